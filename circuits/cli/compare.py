"""`circuits compare`: methods ranked by the faithfulness of their circuits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli import options
from circuits.cli.inputs import (
    DEFAULT_PROMPTS,
    asked_of_nodes,
    built_in,
    check_ablation,
    check_names,
    load,
    parse_positions,
    read_task,
)
from circuits.cli.named import made_method
from circuits.cli.output import CommandError, Notes, check_target, panel, print_json, show, table, working, write_frame

if TYPE_CHECKING:
    from circuits.comparison import MethodComparison

DEFAULT_METHODS = "eap,eap-ig,relp"


def compare(
    model: options.Model,
    task: options.TaskName = None,
    task_file: options.TaskFile = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            "-n",
            min=4,
            help="Number of prompts; half of them score, half of them judge.",
            show_default=f"{DEFAULT_PROMPTS}, or all of a file's",
        ),
    ] = None,
    methods: options.Methods = DEFAULT_METHODS,
    steps: options.Steps = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="A saved circuit that is known to be true: adds AUROC.", show_default=False),
    ] = None,
    exact: Annotated[
        int | None,
        typer.Option(min=3, help="Patch so many edges really, to see how well scores agree.", show_default=False),
    ] = None,
    ablation: options.Ablation = "patch",
    objective: options.Objective = None,
    selection: options.Selection = "top-n",
    random_circuits: options.RandomCircuits = 3,
    inverted: Annotated[bool, typer.Option(help="Add the first method's ranking upside down.")] = False,
    draws: Annotated[int, typer.Option(min=1, help="Bootstrap draws of the scoring prompts, each scored anew.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of methods that draw themselves, in each draw.")] = 1,
    level: options.Level = "edge",
    positions: options.Positions = None,
    dictionaries: options.Dictionaries = None,
    errors: options.Errors = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            "--csv",
            help="Write the table here: CSV, or JSON for a name in .json.",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write tables, curves and Pareto plot here, as one page.", show_default=False)
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank methods on the same prompts.

    Half of the prompts score the edges (or nodes), by every method; on the
    other half the circuits of every size are run. Differences between
    methods are paired over prompts.

    \b
    Example:
      circuits compare --model smollm2-135m --task ioi --methods eap,eap-ig --html methods.html
      circuits compare -m smollm2-135m -t agreement --exact 200 -o methods.csv
      circuits compare -m smollm2-135m -t agreement --level neuron --methods eap-ig,mask-ig,relp
    """
    if (task is None) == (task_file is None):
        raise CommandError("give the task: either --task (see `circuits tasks`) or --task-file")
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise CommandError(f"--methods {methods!r} names no method; give some, such as eap,eap-ig")
    output, html = check_target("-o", output), check_target("--html", html)
    if output is not None and html is not None and output.resolve() == html.resolve():
        raise CommandError(f"-o and --html both name {str(html)!r}; the table and the page are two files")
    with working(quiet) as notes:
        from circuits.circuit import Circuit
        from circuits.compare import compare_methods
        from interp.selection import SELECTIONS

        check_names(task=task, ablation=ablation, objective=objective)
        made = {name: made_method(name, {"steps": steps}, Notes(quiet=True), level=level) for name in names}
        for one in made.values():
            check_ablation(one, ablation)
        SELECTIONS.make(selection)
        known = None if truth is None else Circuit.load(truth)
        of_nodes = asked_of_nodes(level, dictionaries, positions=parse_positions(positions), errors=errors)
        prompts = None if task_file is None else read_task(task_file, n, objective)
        loaded = load(model, device, dtype, notes)
        if prompts is None:
            assert task is not None
            prompts = built_in(task, n or DEFAULT_PROMPTS, seed, loaded)
        prompts = prompts if objective is None else prompts.with_objective(objective)
        result = compare_methods(
            loaded,
            prompts,
            made,
            truth=known,
            exact=exact,
            n_random=random_circuits,
            inverted=inverted,
            draws=draws,
            seeds=seeds,
            selection=selection,
            ablation=ablation,
            **of_nodes,
            seed=seed,
            batch_size=batch_size,
            quiet=quiet,
        )
        files = {}
        if output is not None:
            write_frame(result.to_frame(), output)
            files["table"] = str(output)
        if html is not None:
            result.to_html(html)
            files["html"] = str(html)
    if json:
        print_json(_data(result, files))
        return
    _tell(result)
    for what, path in files.items():
        typer.echo(f"Wrote the {'page' if what == 'html' else what} to {path}")


def _data(result: MethodComparison, files: dict[str, str]) -> dict[str, Any]:
    return {
        **result.about,
        "methods": result.to_frame().to_dict("records"),
        "pairs": result.pairs.to_dict("records"),
        "points": result.points.to_dict("records"),
        "files": files,
    }


def _tell(result: MethodComparison) -> None:
    about, summary = result.about, result.summary()
    rows = [
        ("Model", str(about["model"])),
        (
            "Prompts",
            f"{about['n_scoring']} scored the {result.level}s, {about['n_judging']} others judged the circuits",
        ),
        ("Ablation", str(about["ablation"])),
        ("Seed", str(about["seed"])),
        *(("Warning", note) for note in about["notes"]),
    ]
    needed = [f"{result.counted}_85", f"{result.counted}_95"]
    first = [name for name in ("method", "cmd", "cpr", "log_cmd", *needed) if name in summary]
    second = ["method", *(name for name in summary.columns if name not in (*first, "rank", "cpr_signed"))]
    show(
        panel(f"Methods on {about['task'].get('name')}", rows),
        table("Best CMD first, 95 % intervals", first, summary[first].astype(str).to_numpy().tolist()),
        table("Agreement and cost", second, summary[second].astype(str).to_numpy().tolist()),
    )
