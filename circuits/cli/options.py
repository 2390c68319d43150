"""The options that several sub-commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# names by kind, as the registries have them (a test compares): importing these to show help would load torch
METHODS = (
    "eap", "atp-star", "eap-ig", "eap-ig-activations", "clean-corrupted", "mask-ig", "edge-pruning",
    "edge-pruning-sampled", "ugs", "relp", "gim", "attnlrp", "cp-lrp", "decompx", "cd-t", "information-flow", "acdc",
    "exact", "ensemble",
)  # fmt: skip
SELECTIONS = ("balanced", "top-n", "greedy", "connected", "program", "learned")
ABLATIONS = "patch, zero, zero-token, mean, mean-positional or optimal."
SEEDS = {"min": 0, "max": 2**63 - 1}


def _names(kind: str, ours: tuple[str, ...]) -> str:
    """All names of a kind: ours, those of installed packages (of which none is imported), and how to name others."""
    from importlib.metadata import entry_points

    theirs = [one.name for one in entry_points(group=f"faithful_circuits.{kind}") if one.name not in ours]
    return f"{', '.join([*ours, *theirs])}, or module:Name."


Model = Annotated[
    str, typer.Option("--model", "-m", help="Name (see `circuits models`), hub id, folder or .gguf file.")
]
TaskName = Annotated[
    str | None,
    typer.Option("--task", "-t", help="Name (see `circuits tasks`), or module:function.", show_default=False),
]
Method = Annotated[str, typer.Option(help=f"How edges are scored: {_names('methods', METHODS)}")]
Methods = Annotated[str, typer.Option(help=f"Methods, separated by commas: {_names('methods', METHODS)}")]
Selection = Annotated[str, typer.Option(help=_names("selections", SELECTIONS))]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Points on the path of methods that have one.", show_default="5, or the method's own"),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting of the method or the selection; may be repeated.",
        show_default=False,
    ),
]  # fmt: skip
Ablation = Annotated[str, typer.Option(help=f"What edges outside give: {ABLATIONS}")]
Objective = Annotated[
    str | None,
    typer.Option(help="logit-difference, probability-difference, log-probability, kl.", show_default="the task's"),
]
Seed = Annotated[int, typer.Option(**SEEDS, help="Of prompts, split, bootstrap, random circuits and controls.")]
TaskFile = Annotated[
    Path | None,
    typer.Option(
        help="Your own prompts instead: .csv or .json with clean, corrupted, correct, incorrect.", show_default=False
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...", show_default="cuda if there is one")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.", show_default="float32")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Prompts per pass.", show_default="what the memory allows")]
RandomCircuits = Annotated[int, typer.Option(min=0, help="So many random circuits of equal size beside it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on standard error.")]

Level = Annotated[
    str,
    typer.Option(
        help="edge; or neuron, expert, head, node (heads and MLPs) or feature: everything else of the level is ablated."
    ),
]
Positions = Annotated[
    str | None,
    typer.Option(
        help="all, or positions as 3,4,5, each told apart; of edges also spans (the task's).", show_default=False
    ),
]
Dictionaries = Annotated[
    Path | None,
    typer.Option(help="Of features: a folder of dictionaries, or a transcoder set.", show_default=False),
]
Errors = Annotated[
    str | None,
    typer.Option(help="What becomes of dictionaries' errors: kept, ablated or nodes.", show_default="kept"),
]

# what a saved circuit knows by itself
Saved = Annotated[Path, typer.Argument(help="A circuit that `circuits find -o` saved.", show_default=False)]
SavedModel = Annotated[
    str | None, typer.Option("--model", "-m", help="As in `circuits find`.", show_default="the circuit's own")
]
SavedTask = Annotated[
    str | None, typer.Option("--task", "-t", help="As in `circuits find`.", show_default="the circuit's own")
]
SavedNumber = Annotated[
    int | None,
    typer.Option("--n", "-n", min=1, help="Number of prompts.", show_default="as many as it was found on"),
]
SavedSeed = Annotated[
    int | None,
    typer.Option(
        min=0, max=2**63 - 1, help="Of prompts and bootstrap.", show_default="the circuit's plus 1, for fresh prompts"
    ),
]
SavedAblation = Annotated[
    str | None,
    typer.Option(help=ABLATIONS, show_default="the circuit's own"),
]
SavedObjective = Annotated[
    str | None,
    typer.Option(help="logit-difference, log-probability, kl, accuracy ...", show_default="the circuit's own"),
]
SavedDictionaries = Annotated[
    Path | None,
    typer.Option(
        "--dictionaries",
        help="Of features, of whose dictionaries a file holds the digests alone: the folder that they are in.",
        show_default=False,
    ),
]
