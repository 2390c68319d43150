"""`circuits sweep`: models x tasks x methods x seeds from a file, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli import options
from circuits.cli.output import CommandError, check_target, complain, print_json, show, table, working, write_frame

SHOWN = ("model", "task", "method", "seeds", "faithfulness", "lowest", "highest", "random", "size")


def sweep(
    grid: Annotated[Path, typer.Argument(help="What to do: .yaml, .json or .toml.", show_default=False)],
    store: Annotated[
        Path | None,
        typer.Option(help="Folder of finished circuits: a second start does what is missing.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-j", min=-1, help="Processes; -1: one on each core.", show_default="1"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", "--csv", help="Write the table here: CSV, or JSON.", show_default=False),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write tables and figure here.", show_default=False)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell jobs, passes, memory and time; find nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find circuits of models x tasks x methods x seeds, in one table.

    The file says models, tasks and methods, and maybe seeds, n, find
    (settings of find_circuit), dtype and device.

    \b
    Example:
      circuits sweep sweep.yaml --dry-run
      circuits sweep sweep.yaml --store results -j 4 -o table.csv --html page.html
    """
    output, html = check_target("-o", output), check_target("--html", html)
    if workers == 0:
        raise CommandError("--workers 0 does nothing; give a number of processes, or -1 for one on each core")
    with working(quiet):
        from circuits.sweeping.planning import plan_sweep
        from circuits.sweeping.running import sweep as found
        from interp.plain import plain
        from interp.tables import cell

        if dry_run:
            planned = plan_sweep(grid, store=store)
        else:
            result = found(grid, store=store, workers=workers, quiet=quiet)
            if output is not None:
                write_frame(result.to_frame(), output)
            if html is not None:
                result.to_html(html)
    if dry_run:
        if json:
            print_json(plain(planned.to_frame().to_dict("records")))
        else:
            typer.echo(str(planned))
        return
    if json:
        print_json({"circuits": result.frame.to_dict("records"), "failed": result.failed.to_dict("records")})
    else:
        rows = [[cell(row[name]) for name in SHOWN] for row in result.over_seeds().to_dict("records")]
        show(table(result.headline(), SHOWN, rows))
    for row in result.failed.to_dict("records"):
        complain(f"{row['method']} on {row['task']} in {row['model']}, seed {row['seed']}, failed: {row['error']}")
    if len(result.failed):
        raise typer.Exit(1)
