"""Many independent jobs on joblib's engines; what is finished lies in a folder and is never done again.

Where jobs run is for the user to say: in worker processes of this machine (joblib's loky) by default, on a cluster
inside `with joblib.parallel_config(backend="ray"):` (or `"dask"`), whose machines must see the store's folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import joblib
from joblib.parallel import get_active_backend

from interp import compat, numbers
from interp._version import __version__
from interp.errors import InputError
from interp.files import make_folder, write_text
from interp.headers import check_header
from interp.keeping import decode, encode
from interp.progress import progress

FORMAT = "faithful-circuits/job"
VERSION = 1
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Job:
    """A call that can be made anywhere: `function(**arguments)`, and what it is called by people.

    The function stands at the top of a module. The arguments, and what it returns, are what `interp.keeping` can write
    down; the arguments, the function's name and the version of this package decide what it returns, and name its file.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of what decides the result. Raises `InputError` for arguments that cannot be written down."""
        called = f"{self.function.__module__}.{self.function.__qualname__}"
        inputs = {"function": called, "version": __version__, "arguments": encode(dict(self.arguments))}
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a job.

    Attributes:
        job: which one.
        value: what it returned; None if it failed.
        seconds: how long it took, when it was done.
        error: what it failed with, in a line; None if it did not.
        earlier: whether it was found in the store.
    """

    job: Job
    value: Any = None
    seconds: float = 0.0
    error: str | None = None
    earlier: bool = False


class Store:
    """A folder with one JSON file for each finished job, written whole or not at all. Nothing in it is unpickled.

    Several drivers may use one folder at once: at worst they do the same job twice. Raises `InputError` where the
    folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = make_folder(folder, "store")

    def path(self, job: Job) -> Path:
        """The file of a job."""
        return self.folder / f"{job.digest}.json"

    def get(self, job: Job) -> Outcome | None:
        """What came of a job earlier; None if it is not done. Raises `InputError` for a damaged file."""
        path = self.path(job)
        where = f"the finished job {str(path)!r}"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(f"{where} is damaged ({error}); remove it, and the job is done again") from None
        check_header(content, FORMAT, VERSION, where)
        try:
            value, seconds = decode(content["result"], where), float(content["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where} is damaged ({error!r}); remove it, and the job is done again") from None
        return Outcome(job, value, seconds, earlier=True)

    def put(self, outcome: Outcome) -> None:
        """Keep a finished job. Raises `OSError` that names the file where the disk is full."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "job": outcome.job.name,
            "seconds": outcome.seconds,
            "result": encode(outcome.value),
        }
        write_text(self.path(outcome.job), json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n")


def run(
    jobs: Sequence[Job],
    *,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    quiet: bool = False,
    description: str = "jobs",
) -> list[Outcome]:
    """Do all jobs that are not done yet; what came of each, in their order.

    A job that raises does not stop the others: its outcome says what it raised. Workers write what they finish
    themselves, so that a kill of this process, of a worker or of the machine loses no finished job.

    Args:
        jobs: of which equal ones are done once.
        store: folder of finished jobs; None: none is kept.
        workers: processes, -1 for one on each core; None: what `joblib.parallel_config` says, or this process alone.
        quiet: no progress bar.
        description: what the bar says.

    Raises:
        InputError: for a store that cannot be made or is damaged, and where a worker died without a word.
        OSError: where a job could not be kept, for instance since the disk is full; those kept before stay.
    """
    check_workers(workers)
    kept = None if store is None else Store(store)
    outcomes = {} if kept is None else {job.digest: found for job in jobs if (found := kept.get(job)) is not None}
    missing = {job.digest: job for job in jobs if job.digest not in outcomes}
    with progress(description, len(outcomes) + len(missing), quiet) as bar:
        bar.advance(len(outcomes))
        stays = "" if kept is None else ", and the jobs that are finished stay so"
        for outcome in spread([functools.partial(_done, job, kept) for job in missing.values()], workers, stays):
            bar.advance()
            outcomes[outcome.job.digest] = outcome
            if outcome.error is not None:
                _log.warning("%s failed: %s", outcome.job.name, outcome.error)
    return [outcomes[job.digest] for job in jobs]


def check_workers(workers: int | None) -> None:
    """Raise `InputError` for what is no number of processes, -1 (one on each core) or None."""
    if workers is not None and workers != -1:
        numbers.whole("workers", workers, numbers.COUNT)


def spread(calls: Iterable[Callable[[], T]], workers: int | None, stays: str = "") -> Iterator[T]:
    """What calls return, as they end, made on joblib's engine: `workers` processes, or what the user's context says.

    What a call raises ends all, and is raised here. `stays`: what a sentence about a dead worker adds.

    Raises `InputError` where a worker died without a word, and for what cannot be sent to one.
    """
    backend, n_jobs = get_active_backend()
    compat.hear_of_deaths(backend)
    order = "generator_unordered" if backend.supports_return_generator else "list"  # Ray cannot
    # one at a time: a batch of short jobs would come back together, after the last of them
    parallel = joblib.Parallel(n_jobs=workers, return_as=order, batch_size=1)
    asked = f"workers={n_jobs if workers is None else workers}"
    try:
        yield from parallel(joblib.delayed(call)() for call in calls)
    except pickle.PicklingError as error:
        raise InputError(
            f"{asked} sends what is handed in to other processes, which cannot be done with it "
            f"({error}); use workers=1, or functions and data that can be pickled"
        ) from None
    except Exception as error:
        if not _is_death(error):
            raise
        raise InputError(
            f"{asked}: a process ended without a word, as the system kills one when memory runs out; use fewer workers"
            + stays
        ) from error


def _is_death(error: Exception) -> bool:
    """Whether an engine says that a worker is gone; Ray and Dask, which may not be installed, by name."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return isinstance(error, BrokenProcessPool) or bool(names & {"RayActorError", "WorkerCrashedError", "KilledWorker"})


def _done(job: Job, store: Store | None) -> Outcome:
    """In a worker: do a job and keep what came of it."""
    if store is not None and (earlier := store.get(job)) is not None:
        return earlier  # Dask does again what lay in the memory of a worker that died
    began = time.monotonic()
    try:
        # as a file gives it back, whether there is one or not
        value = decode(encode(job.function(**job.arguments)), job.name)
    except Exception as error:  # whatever a job raises is told of it, and the others go on
        return Outcome(job, seconds=time.monotonic() - began, error=f"{type(error).__name__}: {error}")
    outcome = Outcome(job, value, time.monotonic() - began)
    if store is not None:
        store.put(outcome)
    return outcome
