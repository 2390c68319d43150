"""One job of a sweep: a model and prompts by name, a circuit, and what is kept of it. Runs in any process."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from circuits.find import find_circuit
from circuits.sweeping.grid import Cell
from interp import tasks
from interp.jobs import Job
from interp.models import load_model
from interp.tasks.task import Task


def job_of(cell: Cell) -> Job:
    """The job that finds a circuit; what files it reads hold now is part of its inputs."""
    held = {"model": _held(cell.model), "prompts": _content(cell.prompts.get("file"))}
    return Job(str(cell), find_one, {"cell": asdict(cell), "held": held})


def find_one(cell: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """The circuit's report, as `Report.to_dict` gives it, and its edges (nodes) with their scores."""
    model = loaded(cell["model"], cell["device"], cell["dtype"], held["model"])
    prompts = prompts_of(cell["prompts"], cell["seed"], model)
    circuit = find_circuit(model, prompts, seed=cell["seed"], quiet=True, **cell["settings"])
    return {"report": circuit.report.to_dict(), "kept": circuit.to_frame()}


@functools.lru_cache(maxsize=1)
def loaded(name: str, device: str | None, dtype: str | None, held: str | None) -> Any:
    """The model, which the jobs that follow in this process find here; `held` tells an edited folder apart."""
    return load_model(name, device=device, dtype=dtype)


def prompts_of(prompts: Mapping[str, Any], seed: int, model: Any) -> Task:
    """The task of a cell: `n` prompts by name and seed, or those of a file."""
    if "task" in prompts:
        own = {key: value for key, value in prompts.items() if key not in ("task", "n")}
        if own:  # these were asked for: a function that does not take them says so
            return tasks.get(prompts["task"], **own, n=prompts["n"], seed=seed, model=model)
        return tasks.offered(prompts["task"], n=prompts["n"], seed=seed, model=model)
    path = prompts["file"]
    task = Task.from_csv(path) if path.lower().endswith(".csv") else Task.from_json(path)
    return task.select(range(prompts["n"])) if "n" in prompts else task


def _held(model: str) -> str | None:
    """Of a folder or a file on this machine, names, sizes and times: weights are too large to read for this."""
    path = Path(model)
    if not path.exists():
        return None
    files = sorted(one for one in (path.iterdir() if path.is_dir() else [path]) if one.is_file())
    return hashlib.sha256(
        repr([(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files]).encode()
    ).hexdigest()


def _content(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
