"""A submission to MIB as a folder: written, read and checked.

    FOLDER/ioi_gpt2/importances.json              importance scores, of which MIB takes circuits of every size
    FOLDER/ioi_qwen2.5/0.1.json ... 50.json       or nine circuits, by their size in percent of all edges

Every file is the graph JSON of EAP-IG (`circuits.formats.eap_ig`). In circuits the score of an edge is above 0 where it
is in and 0 where it is out, since MIB's reader asks for one. Scores of nodes stand at the nodes; circuits of them are
circuits of edges in which all edges among the nodes are in, for that is what MIB counts. MIB reads files of torch's as
well (`.pt`): those are pickles, which can run anything, and are never opened here. MIB does not say what the nine files
are called, so that in reading the order of their sizes counts and their names do not.
"""

from __future__ import annotations

import bisect
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.formats import eap_ig
from circuits.formats.mib_names import COLUMNS, MODELS, SIZES, circuit_file, entry_name
from interp import numbers
from interp.errors import InputError
from interp.files import make_folder
from interp.selection import SELECTIONS, ladder, top_n_nodes
from interp.selection.empty import PATHS
from interp.selection.named import Mask, mask_of

IMPORTANCES = "importances.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What a submission holds for a task and a model: importance scores, or circuits from small to large.

    `problems` are sentences on why MIB would not take it; then there may be neither.
    """

    name: str
    scores: Scores | None = None
    circuits: tuple[Circuit, ...] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def task(self) -> str:
        """The task's name in MIB."""
        return self.name.partition("_")[0]

    @property
    def model(self) -> str:
        """The model's name in MIB."""
        return self.name.partition("_")[2]

    @property
    def kind(self) -> str:
        """`importances`, `circuits` or `unreadable`."""
        return "importances" if self.scores is not None else "circuits" if self.circuits else "unreadable"


@numbers.checked(d_model=numbers.COUNT)
def write_importances(
    scores: Scores, folder: str | os.PathLike[str], task: str, model: str, d_model: int | None = None
) -> Path:
    """Write `FOLDER/task_model/importances.json`; returns its path. MIB's reader wants the model's width, `d_model`."""
    path = _made(folder, task, model) / IMPORTANCES
    _refuse_others(path.parent, {IMPORTANCES})
    empty = torch.zeros(scores.graph.shape, dtype=torch.bool, device="cpu")
    return eap_ig.write(Circuit(scores, empty), path, d_model)


@numbers.checked(d_model=numbers.COUNT)
def write_circuits(
    scores: Scores,
    folder: str | os.PathLike[str],
    task: str,
    model: str,
    d_model: int | None = None,
    *,
    selection: str = "top-n",
    absolute: bool = True,
) -> list[Path]:
    """Write nine circuits, `FOLDER/task_model/0.1.json` to `50.json`: int(p n) edges each, then pruned.

    Of scores of nodes each holds the best heads and MLPs, as many as have no more edges among them (`top_n_nodes`).
    Raises `InputError` for scores of another level, and for nodes beside a selection of edges.
    """
    masks = _nine(scores, selection, absolute)
    home = _made(folder, task, model)
    _refuse_others(home, {circuit_file(fraction) for fraction in SIZES})
    paths = []
    for fraction, mask in zip(SIZES, masks, strict=False):
        if not mask.any():
            logger.warning("%s holds no edges: none of those selected %s", circuit_file(fraction), PATHS)
        inside = Scores(mask.float(), scores.graph, **_made_as(scores))
        paths.append(eap_ig.write(Circuit(inside, mask), home / circuit_file(fraction), d_model))
    return paths


def _nine(scores: Scores, selection: str, absolute: bool) -> list[Mask]:
    """The circuits on the ladder, the whole model behind them."""
    graph = scores.graph
    rule = SELECTIONS.make(selection, {"absolute": absolute})
    if scores.level == "edge":
        return [mask_of(rule, scores.edge_values, graph, n) for n in ladder(graph)]
    if scores.level != "node" or scores.spans is not None or selection != "top-n":
        raise InputError("nine circuits are taken from scores of edges, or of nodes at all positions by 'top-n'")

    def of(n: int) -> Mask:
        return top_n_nodes(scores.values, graph, n, absolute)

    counts = range(len(graph.sources))
    fitting = [bisect.bisect_right(counts, limit, key=lambda n: int(of(n).sum())) - 1 for limit in ladder(graph)]
    return [of(max(n, 0)) for n in fitting]


def read(folder: str | os.PathLike[str]) -> list[Entry]:
    """Read a submission, or one of its folders; what cannot be read has its reasons in `problems`.

    Raises `InputError` if there is no such folder, or none of its folders is called TASK_MODEL.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"folder={str(root)!r} does not exist or is no folder")
    if any(path.suffix in (".json", ".pt") for path in root.iterdir()):
        return [_entry(root.resolve())]
    found = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise InputError(
            f"folder={str(root)!r} holds no folders; a submission has one for each task and model, such as 'ioi_gpt2'"
        )
    return [_entry(path) for path in found]


def check(folder: str | os.PathLike[str]) -> tuple[pd.DataFrame, list[str]]:
    """Whether MIB would take a submission: a table of its folders, and a sentence for everything that is wrong.

    Each folder must be called by a task and a model that MIB pairs, and hold one file of importances or nine circuits
    of at most .1, .2, .5, 1, 2, 5, 10, 20 and 50 % of all edges, over the graph of that model. A whole submission needs
    two tasks and two models.
    """
    entries = read(folder)
    rows, problems = [], []
    for entry in entries:
        problems += [f"{entry.name}: {problem}" for problem in entry.problems]
        sizes = [circuit.n_edges for circuit in entry.circuits]
        rows.append(
            {
                "folder": entry.name,
                "holds": entry.kind,
                "level": entry.scores.level if entry.scores is not None else "edge" if sizes else "",
                "edges": f"{min(sizes):,} to {max(sizes):,}" if sizes else "",
                "problems": len(entry.problems),
            }
        )
    good = [entry for entry in entries if not entry.problems]
    for what, names in (("tasks", {e.task for e in good}), ("models", {e.model for e in good})):
        if len(names) < 2:
            problems.append(f"the leaderboard asks for at least two {what}; valid folders here are of {len(names)}")
    return pd.DataFrame(rows), problems


def _made(folder: str | os.PathLike[str], task: str, model: str) -> Path:
    return make_folder(Path(folder) / entry_name(task, model))


def _refuse_others(home: Path, ours: set[str]) -> None:
    """MIB takes one file or nine: what is there already must be what is written over."""
    others = sorted(path.name for path in home.iterdir() if not path.name.startswith(".") and path.name not in ours)
    if others:
        raise InputError(
            f"folder {str(home)!r} holds {others[0]!r} already; MIB takes one kind of file: remove it first"
        )


def _made_as(scores: Scores) -> dict[str, Any]:
    known = scores.to_dict()
    return {key: known[key] for key in ("method", "ablation", "settings", "task", "model", "seed", "versions")}


def _entry(path: Path) -> Entry:
    name, problems = path.name, []
    if name not in COLUMNS:
        problems.append(f"the leaderboard has no such pair of task and model; it has {', '.join(COLUMNS)}")
    files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".pt"))
    if any(file.suffix == ".pt" for file in files):
        problems.append(".pt files are pickles, which can run anything, and are not opened: write .json instead")
        return Entry(name, problems=problems)
    if len(files) not in (1, len(SIZES)):
        problems.append(f"there are {len(files)} .json files; MIB takes one of importances or {len(SIZES)} circuits")
        return Entry(name, problems=problems)
    try:
        circuits = [eap_ig.read(file) for file in files]
    except InputError as error:
        return Entry(name, problems=[*problems, str(error)])
    graph, known = circuits[0].graph, MODELS.get(name.partition("_")[2])
    if known and (graph.n_layers, graph.n_heads) != (known.layers, known.heads):
        problems.append(
            f"its graph has {graph.n_layers} layers of {graph.n_heads} heads; the model has {known.layers} of "
            f"{known.heads}"
        )
    if len(files) == 1:
        if not circuits[0].scores.values.any():
            problems.append("no edge or node has a score other than 0")
        return Entry(name, scores=circuits[0].scores, problems=problems)
    if any(circuit.graph.shape != graph.shape for circuit in circuits):
        return Entry(name, problems=[*problems, "its circuits are of different models"])
    circuits.sort(key=lambda circuit: circuit.n_edges)
    for fraction, circuit in zip(SIZES, circuits, strict=True):
        if circuit.n_edges > (limit := int(fraction * graph.n_edges)):
            problems.append(
                f"one circuit must have at most {fraction:.1%} of all edges, {limit:,}; in the order of sizes it has "
                f"{circuit.n_edges:,}"
            )
    return Entry(name, circuits=tuple(circuits), problems=problems)
