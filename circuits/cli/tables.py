"""`circuits tasks`, `circuits models`, `circuits methods`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuits.cli import options
from circuits.cli.output import check_target, print_json, show, table, working, write_frame

if TYPE_CHECKING:
    import pandas as pd

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write the table here: CSV, or JSON for a name in .json.", show_default=False),
]


def tasks(output: Output = None, json: options.Json = False) -> None:
    """List the tasks that have a name.

    \b
    Example:
      circuits tasks
    """
    output = check_target("-o", output)
    with working(quiet=False):
        from interp.tasks import describe

        frame = describe()
    _give(frame, "Tasks", frame.to_numpy().tolist(), output, json)


def models(output: Output = None, json: options.Json = False) -> None:
    """List the models that have a short name.

    Hub ids (org/name), folders and .gguf files are as good wherever a model is asked for.

    \b
    Example:
      circuits models -o models.csv
    """
    output = check_target("-o", output)
    with working(quiet=False):
        from interp.registry import models as known

        frame = known()
    rows = [
        (row["name"], f"{row['parameters'] / 1e6:,.0f} M", "yes" if row["offline"] else "no", row["source"])
        for row in frame.to_dict("records")
    ]
    _give(frame, "Models", rows, output, json, ("name", "parameters", "here", "source"), ("parameters",))


def methods(output: Output = None, json: options.Json = False) -> None:
    """List the methods that score edges or nodes.

    Passes are per prompt; S = steps, L = layers, E = edges, N = nodes. `circuits find` takes those that score
    edges.

    \b
    Example:
      circuits methods --json
    """
    output = check_target("-o", output)
    with working(quiet=False):
        from attribution.edges.named import methods as known

        frame = known()
    rows = [
        (
            row["method"],
            row["level"],
            f"{row['forward_passes']} / {row['backward_passes']}",
            "patch" if row["ablations"] == "patch" else "any",
            row["paper"],
        )
        for row in frame.to_dict("records")
    ]
    _give(frame, "Methods", rows, output, json, ("method", "level", "forward / backward", "ablations", "paper"))


def _give(
    frame: pd.DataFrame,
    title: str,
    rows: Sequence[Sequence[str]],
    output: Path | None,
    json: bool,
    columns: Sequence[str] | None = None,
    right: Sequence[str] = (),
) -> None:
    """Print a table for people (or as JSON), and write it where it was asked for."""
    if output is not None:
        write_frame(frame, output)
    if json:
        print_json(frame.to_dict("records"))
    else:
        show(table(title, columns or list(frame.columns), rows, right))
        if output is not None:
            typer.echo(f"Wrote {output}")
