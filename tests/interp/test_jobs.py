"""Jobs on joblib's engines, and the store of what is finished."""

from __future__ import annotations

import os
from pathlib import Path

import joblib
import pytest

from interp.errors import InputError
from interp.jobs import Job, Store, run


def halved(number: int) -> tuple[float, int]:
    return number / (number - 3), os.getpid()


JOBS = [Job(f"half of {number}", halved, {"number": number}) for number in range(5)]


def test_a_job_that_fails_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    outcomes = run(JOBS, store=tmp_path, quiet=True)
    assert [one.value and one.value[0] for one in outcomes] == [0, -0.5, -2, None, 4]
    assert outcomes[3].error == "ZeroDivisionError: division by zero"
    again = run(JOBS, store=tmp_path, quiet=True)
    assert [one.earlier for one in again] == [True, True, True, False, True]
    assert [one.value for one in again] == [one.value for one in outcomes]


def test_equal_jobs_are_done_once() -> None:
    assert JOBS[0].digest == Job("another name", halved, {"number": 0}).digest != JOBS[1].digest
    assert run([JOBS[0], JOBS[0]], quiet=True)[1].value[0] == 0


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_the_users_engine_is_the_one_that_works(backend: str, tmp_path: Path) -> None:
    with joblib.parallel_config(backend=backend, n_jobs=2):
        outcomes = run(JOBS[:3], store=tmp_path, quiet=True)
    assert [one.value[0] for one in outcomes] == [0, -0.5, -2]
    assert (os.getpid() in {one.value[1] for one in outcomes}) == (backend == "threading")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_job_and_bad_workers_are_told(tmp_path: Path) -> None:
    run(JOBS[:1], store=tmp_path, quiet=True)
    Store(tmp_path).path(JOBS[0]).write_text("{")
    with pytest.raises(InputError, match=r"is damaged.*remove it, and the job is done again"):
        run(JOBS[:1], store=tmp_path, quiet=True)
    with pytest.raises(InputError, match="workers=0"):
        run(JOBS[:1], workers=0, quiet=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"store=.*cannot be made"):
        run(JOBS[:1], store=tmp_path / "file", quiet=True)
