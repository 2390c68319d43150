"""`circuits plan`: what scoring would take, before any weight is read."""

from __future__ import annotations

from typing import Annotated

import typer

from circuits.cli import options
from circuits.cli.output import print_json, working


def plan(
    model: options.Model,
    task: options.TaskName = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of prompts.")] = 64,
    method: options.Method = "eap-ig",
    steps: options.Steps = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Of the longest prompt; asked for without a tokenizer.", show_default="the task's"),
    ] = None,
    weights: Annotated[str, typer.Option(help="loaded or streamed.")] = "loaded",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Tell what scoring a model's edges would take, from its configuration alone.

    Edges, passes, batch size, and peak memory by part: weights, captures,
    batch, contraction; with --weights streamed also what is read from disk.

    \b
    Example:
      circuits plan --model meta-llama/Llama-3.1-8B --task ioi -n 64 --weights streamed
    """
    with working(quiet):
        from circuits.planning import plan as planned

        found = planned(
            model, task, n=n, method=method, steps=steps, tokens=tokens, weights=weights, dtype=dtype,
            batch_size=batch_size,
        )  # fmt: skip
    if json:
        print_json(found.to_dict())
    else:
        typer.echo(str(found))
