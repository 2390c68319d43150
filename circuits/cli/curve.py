"""`circuits curve`: faithfulness against size, from the scores of a saved circuit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli import options
from circuits.cli.output import check_target, interval, panel, print_json, show, table, working, write_frame
from circuits.cli.saved import Case, reopen, selection_of

if TYPE_CHECKING:
    from metrics import Curve


def curve(
    circuit: options.Saved,
    model: options.SavedModel = None,
    task: options.SavedTask = None,
    task_file: options.TaskFile = None,
    n: options.SavedNumber = None,
    seed: options.SavedSeed = None,
    ablation: options.SavedAblation = None,
    objective: options.SavedObjective = None,
    random_circuits: options.RandomCircuits = 3,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    dictionaries: options.SavedDictionaries = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the curve here: CSV, or JSON for a name in .json.", show_default=False
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a figure of it here.", show_default=False)] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure faithfulness against size.

    Sizes and the areas CPR and CMD are those of the MIB benchmark. The
    circuits of every size, of edges or of nodes, are chosen anew from the saved circuit's scores, by the rule that
    chose it; where that is `balanced`, on half of the prompts, and the other half measures.

    \b
    Example:
      circuits curve ioi.json --html curve.html -o curve.csv
    """
    output, html = check_target("-o", output), check_target("--html", html)
    with working(quiet) as notes:
        from interp.charts import charts
        from interp.files import write_text
        from interp.tables import page
        from metrics import faithfulness_curve

        case = reopen(
            circuit, model=model, task=task, task_file=task_file, n=n, seed=seed, ablation=ablation,
            objective=objective, device=device, dtype=dtype, dictionaries=dictionaries, notes=notes,
        )  # fmt: skip
        selection = selection_of(case.circuit.provenance)
        # what looks at prompts to choose must not be measured on them
        choosing, measured = case.task.split(0.5, case.seed) if selection.measures else (None, case.task)
        scores, of_nodes = case.circuit.scores, case.level != "edge"
        told: Any = {"level": case.level} if of_nodes else {}
        result = faithfulness_curve(
            case.model,
            measured,
            scores if of_nodes else scores.edge_values,
            **told,
            ablation=case.ablation,
            objective=case.task.objective,
            selection=selection,
            choosing=choosing,
            n_random=random_circuits,
            seed=case.seed,
            batch_size=batch_size,
            quiet=quiet,
        )
        files = {}
        if output is not None:
            write_frame(result.to_frame(), output)
            files["curve"] = str(output)
        if html is not None:
            write_text(html, page(result.headline(), charts([result.figure()])))
            files["html"] = str(html)
    if json:
        print_json(_data(circuit, case, result, files))
        return
    _tell(circuit, case, result)
    for what, path in files.items():
        typer.echo(f"Wrote the {'figure' if what == 'html' else what} to {path}")


def _data(path: Path, case: Case, result: Curve, files: dict[str, str]) -> dict[str, Any]:
    areas = ("cpr_estimate", "cmd_estimate", "log_cpr", "log_cmd")
    return {
        "circuit": str(path),
        "model": str(case.model.cfg.model_name),
        "task": case.task.to_dict(),
        "seed": case.seed,
        "ablation": case.ablation,
        "level": case.level,
        "n": len(result.values.clean),
        **{name.removesuffix("_estimate"): getattr(result, name).to_dict() for name in areas},
        "sizes": result.to_frame().to_dict("records"),
        "notes": case.notes,
        "files": files,
    }


def _tell(path: Path, case: Case, result: Curve) -> None:
    area, distance = result.cpr_estimate, result.cmd_estimate
    rows = [
        ("Model", str(case.model.cfg.model_name)),
        ("CPR", f"{interval(area.value, (area.low, area.high))} (area under faithfulness, 95 % interval)"),
        ("CMD", f"{interval(distance.value, (distance.low, distance.high))} (area under its distance from 1)"),
        *(("Warning", note) for note in case.notes),
    ]
    random = result.random or ()
    sizes = [
        (
            f"{fraction:.1%}",
            f"{edges:,}",
            interval(point.value, (point.low, point.high)),
            interval(random[i].value, (random[i].low, random[i].high)) if random else "",
        )
        for i, (fraction, edges, point) in enumerate(zip(result.fractions, result.edges, result.points, strict=True))
    ]
    columns = ("share", f"{case.level}s", "faithfulness", "random circuits")
    show(
        panel(f"Curve of {path} on {len(result.values.clean)} prompts of {case.task.name}", rows),
        table("Faithfulness by size, 95 % intervals", columns, sizes, columns[:2]),
    )
