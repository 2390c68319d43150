"""`circuits find`: from a model and a task to a circuit, its report and its picture."""

from __future__ import annotations

import warnings
from dataclasses import asdict
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
    parse_size,
    read_task,
)
from circuits.cli.named import method_and_selection, read_settings
from circuits.cli.output import CommandError, Notes, check_target, interval, panel, print_json, show, table, working

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from circuits.circuit import Circuit
    from circuits.node_circuit import NodeCircuit
    from interp.tasks import Task, TaskCheck

STRONGEST = 10
CHECKED = 16  # prompts that say whether the model does the task at all


def find(
    model: options.Model,
    task: options.TaskName = None,
    task_file: options.TaskFile = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            "-n",
            min=1,
            help="Number of prompts; half of them choose, half of them judge.",
            show_default=f"{DEFAULT_PROMPTS}, or all of a file's",
        ),
    ] = None,
    method: options.Method = "eap-ig",
    rules: Annotated[
        str | None,
        typer.Option(help="Backward rules for a gradient method: relp, gim, attnlrp, cp-lrp.", show_default=False),
    ] = None,
    edges: Annotated[
        str | None, typer.Option(help="Size: a number of edges, or a share as 0.02 or 2%.", show_default=False)
    ] = None,
    level: options.Level = "edge",
    nodes: Annotated[
        str | None, typer.Option(help="Size of a circuit of nodes: a number, or a share.", show_default=False)
    ] = None,
    positions: options.Positions = None,
    dictionaries: options.Dictionaries = None,
    errors: options.Errors = None,
    faithfulness: Annotated[
        float | None,
        typer.Option(help="Instead of a size: the smallest circuit that reaches this.", show_default="0.85"),
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option(
            help="A goal for the whole output, instead or beside: mean KL from the model of at most so many nats.",
            show_default=False,
        ),
    ] = None,
    lower_end: Annotated[
        bool, typer.Option("--lower-end", help="The lower end of faithfulness's interval has to reach the goal.")
    ] = False,
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Choose among the sizes of the ladder alone, and show the whole curve.")
    ] = False,
    minimal: Annotated[
        bool, typer.Option("--minimal", help="At the end try every edge (node) alone; takes as many circuits.")
    ] = False,
    ablation: options.Ablation = "patch",
    objective: options.Objective = None,
    selection: options.Selection = "balanced",
    stable: Annotated[
        bool,
        typer.Option(
            "--stable", help="Keep the edges (nodes) that three quarters of 20 resamples of the prompts select."
        ),
    ] = False,
    tests: Annotated[
        bool, typer.Option("--tests", help="Also test the circuit (see `circuits evaluate --tests`); takes minutes.")
    ] = False,
    steps: options.Steps = None,
    settings: options.Set = None,
    seed: options.Seed = 0,
    random_circuits: options.RandomCircuits = 3,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    checkpointed: Annotated[
        bool | None,
        typer.Option(
            "--checkpointed/--no-checkpointed",
            help="Recompute activations to save memory.",
            show_default="when a prompt would not fit",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the circuit here, as JSON.", show_default=False)
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the interactive picture here.", show_default=False)] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the circuit of a task in a model.

    Half of the prompts score the edges and choose the size; the other half, which nothing was chosen on, judges
    the circuit: the share of the model's performance that its edges (or nodes) keep alone, all others ablated.

    \b
    Example:
      circuits find --model smollm2-135m --task ioi -o ioi.json --html ioi.html
      circuits find --model smollm2-135m --task agreement --level neuron --nodes 100
      circuits find -m ./my-model --task-file prompts.csv --edges 2% --json
    """
    if (task is None) == (task_file is None):
        raise CommandError("give the task: either --task (see `circuits tasks`) or --task-file")
    size, of_nodes = parse_size("--edges", edges), parse_size("--nodes", nodes)
    output, html = check_target("-o", output), check_target("--html", html)
    if output is not None and html is not None and output.resolve() == html.resolve():
        raise CommandError(f"-o and --html both name {str(html)!r}; the circuit and its picture are two files")
    with working(quiet) as notes:
        from circuits.find import find_circuit
        from circuits.formats import native

        if output is not None:
            native.check_target(output, "-o")

        check_names(task=task, ablation=ablation, objective=objective)
        flags = {"rules": rules, "steps": steps, "checkpointed": checkpointed}
        scorer, chosen = method_and_selection(method, flags, selection, read_settings(settings), notes, level)
        check_ablation(scorer, ablation)
        prompts = None if task_file is None else read_task(task_file, n, objective)
        loaded = load(model, device, dtype, notes)
        if prompts is None:
            assert task is not None
            prompts = built_in(task, n or DEFAULT_PROMPTS, seed, loaded)
        prompts = prompts if objective is None else prompts.with_objective(objective)
        check = _check(prompts, loaded, notes)
        circuit = find_circuit(
            loaded,
            prompts,
            method=scorer,
            edges=size,
            faithfulness=faithfulness,
            kl=kl,
            lower_end=lower_end,
            ladder=ladder,
            minimal=minimal,
            ablation=ablation,
            selection=chosen,
            stable=stable,
            tests=tests,
            seed=seed,
            n_random=random_circuits,
            **asked_of_nodes(level, dictionaries, nodes=of_nodes, positions=parse_positions(positions), errors=errors),
            batch_size=batch_size,
            quiet=quiet,
        )
        files = {}
        if output is not None:
            files["circuit"] = str(circuit.save(output))
        if html is not None:
            circuit.to_html(html, model=loaded, task=prompts, knock=None)  # half of the page's time
            files["html"] = str(html)
    if json:
        print_json(_data(circuit, check, files))
        return
    show(*_story(circuit))
    for what, path in files.items():
        typer.echo(f"Wrote the {'picture' if what == 'html' else what} to {path}")
    if not files:
        notes("nothing was saved: add -o circuit.json to keep the circuit, --html circuit.html to see it")


def _check(task: Task, model: Any, notes: Notes) -> TaskCheck:
    """How well the model does the task at all, on `CHECKED` prompts evenly taken; said in a note."""
    n, step, of = len(task), -(-len(task) // CHECKED), ""
    if step > 1:
        task, of = task.select(range(0, n, step)), f" of {n}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the same is said below
        check = task.check(model)
    notes(
        f"{len(task)}{of} prompts of {task.name}: {check.accuracy_clean:.0%} answered correctly, "
        f"{check.accuracy_corrupted:.0%} when corrupted; mean {check.objective} {check.clean:.3f}, "
        f"corrupted {check.corrupted:.3f}"
    )
    if not check.ok:
        notes(f"warning: the model shows no behaviour to explain: {'; '.join(check.problems)}")
    return check


def _data(circuit: Circuit | NodeCircuit, check: TaskCheck, files: dict[str, str]) -> dict[str, Any]:
    return {
        **circuit.provenance,
        "check": {**asdict(check), "ok": check.ok},
        "report": circuit.report.to_dict(),
        f"strongest_{_noun(circuit)}s": _strongest(circuit).to_dict("records"),
        "scoring_seconds": circuit.scores.seconds,
        "files": files,
    }


def _noun(circuit: Circuit | NodeCircuit) -> str:
    """What its table names."""
    return "edge" if circuit.report.level == "edge" else "node"


def _strongest(circuit: Circuit | NodeCircuit) -> pd.DataFrame:
    """The strongest edges or nodes, with the position where positions count."""
    frame = circuit.to_frame().head(STRONGEST)
    return frame[[name for name in (_noun(circuit), "position", "score") if name in frame]]


def _story(circuit: Circuit | NodeCircuit) -> list[RenderableType]:
    """The report as a panel, what each size reached, and the strongest edges or nodes."""
    provenance, report = circuit.provenance, circuit.report
    rows = [row for row in report.rows() if row[0] not in (f"Faithfulness by {report.level}s", "Note")]
    method = provenance["method"]
    if rules := circuit.scores.settings.get("rules"):
        method += f" with rules {rules['name']}" if rules["name"] != method else ""
    rows.append(("Found by", f"{method}, seed {provenance['seed']}"))
    rows += [("Note", note) for note in report.notes]
    parts = [panel(f"Circuit of {provenance['task']['name']} in {provenance['model']}", rows)]
    if report.ladder:
        noun = f"{_noun(circuit)}s"
        size = report.edges if report.level == "edge" else report.nodes
        whole = max(1.0, (size or 0) / (report.fraction or 1.0))
        chosen = next((i for i, rung in enumerate(report.ladder) if rung[noun] == size), None)
        ladder = [
            (
                f"{rung[noun]:,}",
                f"{rung[noun] / whole:.2%}",
                interval(rung["faithfulness"]),
                _bar(rung["faithfulness"]),
                "chosen" if i == chosen else "",
            )
            for i, rung in enumerate(report.ladder)
        ]
        parts.append(
            table(
                f"Faithfulness by size, on the {report.n_scoring} prompts that chose it",
                (noun, "share", "faithfulness", "", " "), ladder, (noun, "share", "faithfulness"),
            )
        )  # fmt: skip
    frame = _strongest(circuit)
    if len(frame):
        cells = [(*map(str, row[:-1]), f"{row[-1]:+.4f}") for row in frame.itertuples(index=False)]
        title = f"Strongest {_noun(circuit)}s (positive: helps)"
        parts.append(table(title, tuple(map(str, frame)), cells, ("score",)))
    return parts


def _bar(value: float | None, width: int = 20) -> str:
    return "█" * round(width * min(max(value or 0.0, 0.0), 1.0))
