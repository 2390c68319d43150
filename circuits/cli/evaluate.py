"""`circuits evaluate`: how faithful a saved circuit is on fresh prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli import options
from circuits.cli.output import check_target, interval, panel, print_json, show, table, working, write_frame
from circuits.cli.saved import Case, reopen

if TYPE_CHECKING:
    from rich.console import RenderableType

    from interp.kernels.evaluate import CircuitValues
    from metrics import CircuitTests, Estimate, OutputAgreement, PromptFaithfulness


def evaluate(
    circuit: options.Saved,
    model: options.SavedModel = None,
    task: options.SavedTask = None,
    task_file: options.TaskFile = None,
    n: options.SavedNumber = None,
    seed: options.SavedSeed = None,
    ablation: options.SavedAblation = None,
    objective: options.SavedObjective = None,
    random_circuits: options.RandomCircuits = 3,
    tests: Annotated[
        bool,
        typer.Option(
            "--tests",
            help="Make hypothesis tests too: is it equivalent, independent of the rest, minimal, sufficient, needed? "
            "Runs some 280 circuits more.",
        ),
    ] = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write a table of all prompts here: CSV, or JSON for a name in .json.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how faithful a saved circuit is.

    By default on fresh prompts of the task, and in the model, that it was found on.

    \b
    Example:
      circuits evaluate ioi.json -n 128 -o prompts.csv
      circuits evaluate ioi.json --ablation mean --json
      circuits evaluate ioi.json --tests
    """
    output = check_target("-o", output)
    with working(quiet) as notes:
        case = reopen(
            circuit, model=model, task=task, task_file=task_file, n=n, seed=seed, ablation=ablation,
            objective=objective, device=device, dtype=dtype, notes=notes,
        )  # fmt: skip
        values, own, random, agreed = _measure(case, random_circuits, batch_size, quiet)
        battery = None
        if tests:
            notes("making the tests")
            battery = case.circuit.test(
                case.model, case.task, ablation=case.ablation, objective=case.task.objective, seed=case.seed,
                batch_size=batch_size, quiet=quiet,
            )  # fmt: skip
        if output is not None:
            frame = case.task.to_frame()
            frame["model"], frame["empty"] = values.clean.tolist(), values.empty.tolist()
            frame["circuit"] = values.circuits[0].tolist()
            write_frame(frame, output)
    data = _data(circuit, case, values, own, random, output)
    data |= _beyond(values, agreed, case.seed)
    if battery is not None:
        data["tests"] = _tests(battery)
    if json:
        print_json(data)
        return
    show(panel(f"{circuit} on {len(case.task)} prompts of {case.task.name}", _rows(data, own, random, values)))
    if battery is not None:
        show(*_story(battery))
    if output is not None:
        typer.echo(f"Wrote the prompts to {output}")


def _measure(
    case: Case, random_circuits: int, batch_size: int | None, quiet: bool
) -> tuple[CircuitValues, Estimate, Estimate | None, OutputAgreement]:
    """Objectives of model, circuit and random circuits; faithfulness of it and of them; agreement of the output."""
    import torch

    from circuits.judged import beside
    from interp.inspection import anatomy_of
    from interp.interval import Interval
    from interp.run import Run
    from interp.setting import Setting
    from metrics import OutputAgreement
    from metrics.circuit.evaluate import faithfulness_in, graph_of_mask
    from metrics.circuit.output import OUTPUT_OBJECTIVES
    from metrics.circuit.samples import random_circuit

    mask, graph = case.circuit.mask, case.circuit.graph
    others = [random_circuit(graph, int(mask.sum()), case.seed + i) for i in range(random_circuits)]
    kv = graph_of_mask(anatomy_of(case.model), mask).kv
    setting = Setting(case.model, case.task, case.ablation, kv=kv, run=Run(batch_size, quiet=quiet))
    values, minus_kl, same = setting.measure_all(torch.stack([mask, *others]), (None, *OUTPUT_OBJECTIVES))
    interval = Interval(seed=case.seed)
    own, *random = faithfulness_in(beside(values), interval)
    return values, own, random[0] if random else None, OutputAgreement.of(minus_kl, same, interval)


def _by_prompt(values: CircuitValues, seed: int) -> PromptFaithfulness:
    from interp.interval import Interval
    from metrics import PromptFaithfulness

    return PromptFaithfulness.of(
        values.clean.numpy(), values.empty.numpy(), values.circuits[0].numpy(), interval=Interval(seed=seed)
    )


def _beyond(values: CircuitValues, agreed: OutputAgreement, seed: int) -> dict[str, Any]:
    """What one mean does not show: the prompts one by one, and the whole output."""
    return {"by_prompt": _by_prompt(values, seed).summary(), "output": agreed.records()}


def _tests(battery: CircuitTests) -> dict[str, Any]:
    """The tests, the edges and how they were made, as JSON."""
    return {
        "tests": battery.to_frame().to_dict("records"),
        "edges": battery.edges.to_dict("records"),
        "settings": battery.settings,
        "notes": list(battery.notes),
    }


def _story(battery: CircuitTests) -> list[RenderableType]:
    """The tests as a table, and the edges that do no more than random ones."""
    from rich.text import Text

    parts = [table("Hypothesis tests (p-values corrected)", ("test", "p", "", "wanted", " "), battery.rows(), ("p",))]
    idle = battery.edges[battery.edges["superfluous"].astype(bool)].head(10)
    if len(idle):
        cells = [
            (str(edge), f"{change:.4f}", f"{beaten:.0%}")
            for edge, change, beaten in zip(idle["edge"], idle["change"], idle["beaten"], strict=True)
        ]
        title = "Edges that do no more than random ones"
        parts.append(table(title, ("edge", "change", "random edges beaten"), cells, ("change", "random edges beaten")))
    return parts + [Text(f"Note: {note}") for note in battery.notes]


def _data(
    path: Path, case: Case, values: CircuitValues, own: Estimate, random: Estimate | None, output: Path | None
) -> dict[str, Any]:
    circuit = case.circuit
    return {
        "circuit": str(path),
        "model": str(case.model.cfg.model_name),
        "task": case.task.to_dict(),
        "seed": case.seed,
        "ablation": case.ablation,
        "objective": str(case.task.objective),
        "n": len(case.task),
        "faithfulness": own.to_dict(),
        "random_faithfulness": None if random is None else random.to_dict(),
        "mean_objective": {
            "clean": float(values.clean.mean()),
            "empty": float(values.empty.mean()),
            "circuit": float(values.circuits[0].mean()),
        },
        "edges": circuit.n_edges,
        "nodes": circuit.n_nodes,
        "fraction": circuit.n_edges / circuit.graph.n_edges,
        "notes": case.notes,
        "files": {} if output is None else {"prompts": str(output)},
    }


def _rows(data: dict[str, Any], own: Estimate, random: Estimate | None, values: CircuitValues) -> list[tuple[str, str]]:
    from circuits.report import output_text

    means = data["mean_objective"]
    rows = [
        ("Model", data["model"]),
        ("Faithfulness", f"{interval(own.value, (own.low, own.high))} (95 % interval)"),
    ]
    if random is not None:
        rows.append(("Random circuits", interval(random.value, (random.low, random.high))))
    rows += [
        ("By prompt", str(_by_prompt(values, data["seed"]))),
        ("Output", output_text(data["output"])),
        ("Size", f"{data['edges']:,} edges ({data['fraction']:.2%} of the graph), {data['nodes']:,} nodes"),
        (
            f"Mean {data['objective']}",
            f"model {means['clean']:.3f}, circuit {means['circuit']:.3f}, empty circuit {means['empty']:.3f} "
            f"(ablation: {data['ablation']})",
        ),
        ("Seed", str(data["seed"])),
    ]
    return rows + [("Warning", note) for note in data["notes"]]
