"""Prints the table of docs/programs.md: the smallest network of each task of the paper, and the program read off it.

    python docs/scripts/programs.py [--folder FOLDER] [--small] [TASK ...]

Takes seconds to minutes a task on one core. Networks, what was tried and programs are kept in the folder, and
a second start goes on with what is missing; `--small` takes three easy tasks and few copies.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from circuits.programs import RNN, Program, Training, find_program, names, sequence_task, smallest_rnn
from interp.errors import choose
from interp.files import write_text
from interp.tables import markdown_table

SMALL = ("sum-all", "bitwise-not", "parity-all")
PAPER = 32  # tasks of 62 that the paper's method solves


def main() -> None:
    """Tasks as they come, then the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    parser.add_argument("--folder", type=Path, default=Path("programs"))
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    chosen = [choose("TASK", name, names()) for name in given.tasks] or (SMALL if given.small else names())
    how = Training(copies=8, sequences=64, steps=100, fresh=500) if given.small else Training()
    found = []
    for name in chosen:
        rnn, tried = network(given.folder, name, how)
        program = read(given.folder, name, rnn)
        print(f"{name}: {len(tried)} shapes, {tried['seconds'].sum():.0f} s; {program.headline()}", flush=True)
        found.append(row(program, tried))
    solved = sum(one["verified"] == "yes" for one in found)
    print(f"\n{solved} of {len(found)} tasks solved (the paper: {PAPER} of {len(names())})\n")
    print(markdown_table(pd.DataFrame(found)))


def network(folder: Path, name: str, how: Training) -> tuple[RNN, pd.DataFrame]:
    """The smallest network of a task and the shapes that were tried; from the folder where they are there."""
    weights, tried = folder / f"{name}.safetensors", folder / f"{name}.tried.json"
    if not tried.exists():
        made = smallest_rnn(sequence_task(name), training=how, quiet=True)
        made.rnn.save(weights)
        write_text(tried, json.dumps(made.tried.to_dict("records")))  # last: what is there is whole
    return RNN.load(weights), pd.read_json(io.StringIO(tried.read_text(encoding="utf-8")))


def read(folder: Path, name: str, rnn: RNN) -> Program:
    """The program of a network; from the folder where it is there."""
    path = folder / f"{name}.program.json"
    if not path.exists():
        find_program(rnn, sequence_task(name)).save(path)
    return Program.load(path)


def row(program: Program, tried: pd.DataFrame) -> dict[str, Any]:
    """A row of the table."""
    shown = program.maps.itertuples() if program.source else []
    kinds = dict.fromkeys(program.maps["kind"])
    why = "; ".join(f"{one.states}: {one.result}" for one in program.tried.itertuples())
    return {
        "task": program.task,
        "network": str(program.shape),
        "shapes tried": len(tried),
        "network right": f"{program.network_accuracy}",
        "states": f"{program.states}, {program.n_states}" if program.source else "",
        "formulas": ", ".join(kinds),
        "verified": "yes" if program.solved else "no",
        "right": f"{program.accuracy}" if program.source else "",
        "chance": program.chance,
        "program": "; ".join(f"`{one.variable} = {one.formula}`" for one in shown) or why,
    }


if __name__ == "__main__":
    main()
