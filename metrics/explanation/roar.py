"""ROAR and Recursive ROAR: does a model retrained without what an explanation calls important do worse?"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch

from interp import jobs, numbers
from interp.errors import InputError, choose
from interp.files import locked, make_folder, write_text
from interp.interval import Interval
from interp.keywords import check_keywords
from interp.progress import Bar
from interp.run import Run
from metrics.explanation.prediction import PredictKeywords
from metrics.explanation.roar_data import digest, remover, splits_of
from metrics.explanation.roar_plan import Retraining, RetrainingKeywords, RoarPlan, explainers
from metrics.explanation.roar_result import RoarResult, result_of
from metrics.explanation.roar_run import Job, accuracy, call_model, macro_f1, rounds, run_training

BATCH = 512  # inputs per call of predict, where nobody says otherwise
PERFORMANCES = {"accuracy": accuracy, "macro-f1": macro_f1}
_log = logging.getLogger(__name__)


class RoarKeywords(RetrainingKeywords, PredictKeywords, total=False):
    """The keywords of `recursive_roar`."""

    confidence: float
    resamples: int


@numbers.checked()
@torch.inference_mode(False)
def recursive_roar(
    train: Callable[..., Any],
    data: Mapping[str, Sequence[Any]],
    explain: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    *,
    predict: Callable[[Any, Any], Any] = call_model,
    protocol: Retraining | None = None,
    folder: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    **keywords: Unpack[RoarKeywords],
) -> RoarResult:
    """Recursive ROAR with RACU (Madsen et al., Findings of EMNLP 2022); plain ROAR (Hooker et al. 2019) as well.

    At each ratio the elements that a measure calls most important are masked in all three splits, a new model is
    trained, and its performance is measured on the masked test split. Importance is taken from the model that was
    retrained at the ratio before; what is masked stays masked. Random masking, which is not recursive, is the
    baseline. RACU is the area between the two curves, see `metrics.explanation.racu`. `roar_plan` tells how many
    trainings that is; how long they take is told by the progress bar and by the logger `metrics.explanation.roar`
    (level INFO) from the first training on.

    Args:
        train: `train(train_set, validation_set, seed) -> model`, each set a tuple (inputs, labels). The seed alone
            must decide the model, or a resumed run is not the run it was.
        data: `{"train": (inputs, labels), "validation": ..., "test": ...}`; inputs [n, ...], labels [n]. A third
            entry `maskable`, bool with one entry for each element, keeps padding and special positions unmasked.
            Elements: positions of [n, pos], features of [n, d], pixels of [n, h, w] and [n, channel, h, w]; other
            elements by the shape of `maskable`. Tensors are handed on where they lie; a model on another device
            moves them itself.
        explain: `explain(model, inputs, labels, seed) -> scores`, one for each element, larger is more important;
            or several by name. Called with whole splits. Explain what the model predicts rather than the labels:
            where the labels decide what is masked, a model can read the label off the mask. To a lesser degree it
            can wherever masks follow the shape of an input (Rong et al. 2022), which lowers RACU.
        predict: `predict(model, inputs) -> class scores [n, class]`, called without gradients.
        protocol: what is masked and trained; None: `Retraining()`. Its fields may be given as keywords as well.
        ratios, recursive, clip, least: see `metrics.explanation.roar_plan.Masking`; `recursive=False` is ROAR, where
            importance is taken once, from the model trained on everything.
        seeds, mask, performance: see `metrics.explanation.roar_plan.Retraining`.
        folder: where every finished step is kept; the same call goes on where it was killed, and further seeds and
            explainers join what is there.
        settings: whatever else decides the result (JSON), for instance of the training: a folder that was made with
            other data or settings is refused. Callables are known by their name alone.
        workers: trainings that do not wait for each other in so many processes of this machine, -1: one on each core;
            None: this process, or what `joblib.parallel_config` says (Ray and Dask work there, with a `folder` that
            all machines see). What is handed in is pickled. (Threads would share one global random state and end the
            promise that a seed decides its model.)
        batch_size, quiet: inputs per call of `predict` (512); no progress bar.
        confidence, resamples: of the bootstrap over seeds. With few seeds they are wide; with one there is none.

    Returns:
        `RoarResult`: `curves`, `racu` (measure -> `Estimate`), `summary()`, `figure()`.

    Raises:
        InputError: what does not fit, scores that are NaN, constant or of another shape, another run's folder, what
            cannot be sent to another process, a process that died.
    """
    check_keywords("recursive_roar", keywords, RoarKeywords)
    jobs.check_workers(workers)
    run, interval = Run.of(keywords), Interval.of(keywords)
    protocol = (protocol or Retraining()).changed(keywords)
    plan, splits = protocol.plan(explain), splits_of(data)
    measure = protocol.performance
    if isinstance(measure, str):
        measure = PERFORMANCES[choose("performance", measure, PERFORMANCES)]
    with _opened(folder) as opened:
        job = Job(
            train, explainers(explain), splits, remover(protocol.mask, splits["train"]), predict, measure, plan.steps,
            protocol.recursive, run.batch_size or BATCH, opened,
        )  # fmt: skip
        _claim(job, plan, settings)
        teller = _Teller(job, plan)
        with run.progress(f"Recursive ROAR, {len(plan.seeds)} seeds", plan.trainings) as bar:
            teller.start(bar)
            for group in rounds(job, plan.seeds):
                for _ in jobs.spread([functools.partial(run_training, job, one) for one in group], workers):
                    teller.look()
        return result_of(job, protocol, plan.seeds, interval)


class _Teller:
    """Says how much is done, and from the first training on how long the rest will take."""

    def __init__(self, job: Job, plan: RoarPlan) -> None:
        self.records = [path for seed in plan.seeds for path in job.records(seed)]
        self.plan = plan
        self.told = 0

    def start(self, bar: Bar) -> None:
        """Tell the plan."""
        self.bar, self.began, self.started = bar, self._count(), time.monotonic()
        self.told = self.began
        bar.advance(self.began)
        _log.info("%s; %d are done already", self.plan, self.began)

    def look(self) -> None:
        """Tell what has been finished since the last look."""
        done = self._count()
        if done > self.told:
            left = (time.monotonic() - self.started) / (done - self.began) * (len(self.records) - done)
            _log.info("%d of %d trainings done, about %.0f s to go", done, len(self.records), left)
            self.bar.advance(done - self.told)
            self.told = done

    def _count(self) -> int:
        return sum(path.exists() for path in self.records)


def _claim(job: Job, plan: RoarPlan, settings: Mapping[str, Any] | None) -> None:
    """Write down whose folder this is, or refuse that of another run."""
    ours = {
        "format": "faithful-circuits/roar",
        "version": 1,
        "data": digest(job.splits),
        "ratios": list(plan.ratios),
        "recursive": job.recursive,
        "mask": _described(job.remove),
        **{name: _name_of(getattr(job, name)) for name in ("train", "predict", "performance")},
        "settings": dict(settings or {}),
    }
    explained = {"explain": {name: _name_of(one) for name, one in job.explain.items()}}
    path = job.folder / "run.json"
    try:
        ours = json.loads(json.dumps(ours))
        theirs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**ours, "explain": {}}
        known = theirs.pop("explain")
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"settings must be what JSON can hold, and {str(path)!r} undamaged: {error}") from None
    differ = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    differ += [f"explain[{name!r}]" for name, one in explained["explain"].items() if known.get(name, one) != one]
    if differ:
        raise InputError(
            f"folder={str(job.folder)!r} belongs to another run (other {', '.join(differ)}); name another folder, or "
            "remove this one to start anew"
        )
    write_text(path, json.dumps({**ours, "explain": {**known, **explained["explain"]}}, indent=1))


def _described(remove: Any) -> Any:
    value = getattr(remove, "value", None)
    return _name_of(remove) if value is None else value.tolist()


def _name_of(function: Any) -> str:
    function = getattr(function, "func", function)  # of a partial
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


@contextlib.contextmanager
def _opened(folder: str | os.PathLike[str] | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="roar-") as name:
            yield Path(name)
        return
    path = Path(folder)
    # hidden files are of our own making, such as the lock of a run that is about to write its run.json
    holds = [one.name for one in path.iterdir() if not one.name.startswith(".")] if path.is_dir() else [path.name]
    if path.exists() and holds and not (path / "run.json").is_file():
        raise InputError(f"folder={str(path)!r} holds something else; name a new folder, or one of an earlier run")
    lock = make_folder(path) / ".lock"
    lock.touch()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, wait=False))
        except BlockingIOError:
            raise InputError(
                f"folder={str(path)!r} is at work in another process, whose masks this one would mix with its own; "
                "wait for it, name another folder, or use workers= for several processes in one run"
            ) from None
        yield path
