"""The options that several sub-commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    typer.Option(help="patch, zero, mean or mean-positional.", show_default="the circuit's own"),
]
SavedObjective = Annotated[
    str | None,
    typer.Option(help="logit-difference, log-probability, kl, accuracy ...", show_default="the circuit's own"),
]
