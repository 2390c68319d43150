"""Jobs on engines with workers that can be killed: loky's processes, a local Ray cluster, a local Dask cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest

from interp.errors import InputError
from interp.jobs import Job, run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # those of the engines are not ours


def doubled(number: int, folder: str, deaths: int) -> tuple[int, int]:
    """Writes down that it runs; at first the third one is killed as the system kills what takes too much."""
    ran = Path(folder) / f"{number}"
    ran.write_text(ran.read_text() + "x" if ran.exists() else "x")
    if number == 2 and len(ran.read_text()) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number, os.getpid()


@contextlib.contextmanager
def ray_cluster() -> Iterator[Any]:
    """Two workers on this machine."""
    if importlib.util.find_spec("ray") is None:
        missing = "Ray is not installed: pip install faithful-circuits[ray]"
        pytest.fail(missing) if os.environ.get("REQUIRE_RAY") == "1" else pytest.skip(missing)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray
    from ray.util.joblib import register_ray

    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )  # fmt: skip
    register_ray()
    try:
        with joblib.parallel_config(backend="ray", n_jobs=2):
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def dask_cluster() -> Iterator[Any]:
    """Two workers on this machine, which Dask starts anew when they die."""
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("Dask is not installed: pip install distributed")
    from distributed import Client, LocalCluster

    told = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**told) as cluster, Client(cluster), joblib.parallel_config(backend="dask", n_jobs=2):
        yield


@contextlib.contextmanager
def processes() -> Iterator[Any]:
    """Two of loky's."""
    with joblib.parallel_config(backend="loky", n_jobs=2):
        yield


# Dask gives a job to four workers before it gives it up
@pytest.mark.parametrize(("engine", "deaths"), [(processes, 1), (ray_cluster, 1), (dask_cluster, 4)])
def test_a_killed_worker_loses_no_finished_job(engine: Any, deaths: int, tmp_path: Path) -> None:
    store, ran = tmp_path / "store", tmp_path / "ran"
    ran.mkdir()
    jobs = [Job(str(number), doubled, {"number": number, "folder": str(ran), "deaths": deaths}) for number in range(6)]
    with engine():
        with pytest.raises(InputError, match=r"a process ended without a word.*the jobs that are finished stay so"):
            run(jobs, store=store, quiet=True)
        kept = {path: path.stat().st_mtime_ns for path in store.iterdir()}
        outcomes = run(jobs, store=store, quiet=True)
    assert [one.value[0] for one in outcomes] == [0, 2, 4, 6, 8, 10]
    assert os.getpid() not in {one.value[1] for one in outcomes}
    assert len(list(store.iterdir())) == 6
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (ran / "2").read_text() == (deaths + 1) * "x"
