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

    from circuits.judged import Measured
    from interp.kernels.evaluate import CircuitValues
    from metrics import CircuitTests, OutputAgreement, PromptFaithfulness


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
    dictionaries: options.SavedDictionaries = None,
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
      circuits evaluate features.json --dictionaries saes
    """
    output = check_target("-o", output)
    with working(quiet) as notes:
        case = reopen(
            circuit, model=model, task=task, task_file=task_file, n=n, seed=seed, ablation=ablation,
            objective=objective, device=device, dtype=dtype, dictionaries=dictionaries, notes=notes,
        )  # fmt: skip
        found = _measure(case, random_circuits, batch_size, quiet)
        values = found.values
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
    data = _data(circuit, case, found, output)
    data |= _beyond(values, found.output, case.seed)
    if battery is not None:
        data["tests"] = _tests(battery)
    if json:
        print_json(data)
        return
    show(panel(f"{circuit} on {len(case.task)} prompts of {case.task.name}", _rows(data, case, found)))
    if battery is not None:
        show(*_story(battery))
    if output is not None:
        typer.echo(f"Wrote the prompts to {output}")


def _measure(case: Case, random_circuits: int, batch_size: int | None, quiet: bool) -> Measured:
    """Model, circuit and random circuits on the prompts."""
    from circuits.judged import measured
    from interp.interval import Interval
    from metrics.circuit.controls import random_controls
    from metrics.circuit.evaluate import judging

    told = {"ablation": case.ablation, "objective": case.task.objective, "batch_size": batch_size, "quiet": quiet}
    setting, mask = judging(case.model, case.task, case.circuit, told)
    others = random_controls(setting, [mask], random_circuits, case.seed)
    return measured(setting, mask, others, Interval(seed=case.seed))


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
    """The tests, the edges (nodes) and how they were made, as JSON."""
    return {
        "tests": battery.to_frame().to_dict("records"),
        f"{battery.edges.columns[0]}s": battery.edges.to_dict("records"),
        "settings": battery.settings,
        "notes": list(battery.notes),
    }


def _story(battery: CircuitTests) -> list[RenderableType]:
    """The tests as a table, and the edges (nodes) that do no more than random ones."""
    from rich.text import Text

    parts = [table("Hypothesis tests (p-values corrected)", ("test", "p", "", "wanted", " "), battery.rows(), ("p",))]
    idle = battery.edges[battery.edges["superfluous"].astype(bool)].head(10)
    if len(idle):
        level, noun = battery.settings["level"], battery.edges.columns[0]
        cells = [
            (str(name), f"{change:.4f}", f"{beaten:.0%}")
            for name, change, beaten in zip(idle[noun], idle["change"], idle["beaten"], strict=True)
        ]
        title, beaten = f"{level.capitalize()}s that do no more than random ones", f"random {level}s beaten"
        parts.append(table(title, (noun, "change", beaten), cells, ("change", beaten)))
    return parts + [Text(f"Note: {note}") for note in battery.notes]


def _data(path: Path, case: Case, found: Measured, output: Path | None) -> dict[str, Any]:
    values = found.values
    return {
        "circuit": str(path),
        "model": str(case.model.cfg.model_name),
        "task": case.task.to_dict(),
        "seed": case.seed,
        "ablation": case.ablation,
        "objective": str(case.task.objective),
        "n": len(case.task),
        "faithfulness": found.own.to_dict(),
        "random_faithfulness": None if found.random is None else found.random.to_dict(),
        "mean_objective": {
            "clean": float(values.clean.mean()),
            "empty": float(values.empty.mean()),
            "circuit": float(values.circuits[0].mean()),
        },
        **_size(case),
        **(
            {} if found.complement is None else {"complement": found.complement.to_dict(), "behaviour": found.behaviour}
        ),
        "notes": case.notes,
        "files": {} if output is None else {"prompts": str(output)},
    }


def _size(case: Case) -> dict[str, Any]:
    """What the circuit is made of, and how much of it there is."""
    from circuits.circuit import Circuit

    circuit = case.circuit
    if isinstance(circuit, Circuit):
        share = circuit.n_edges / circuit.graph.n_edges
        return {"level": case.level, "edges": circuit.n_edges, "nodes": circuit.n_nodes, "fraction": share}
    return {"level": case.level, "nodes": circuit.n_nodes, "fraction": circuit.n_nodes / circuit.n_all}


def _rows(data: dict[str, Any], case: Case, found: Measured) -> list[tuple[str, str]]:
    from circuits.report import output_text

    own, random, means = found.own, found.random, data["mean_objective"]
    of_edges = case.level == "edge"
    rows = [
        ("Model", data["model"]),
        ("Faithfulness", f"{interval(own.value, (own.low, own.high))} (95 % interval)"),
    ]
    if random is not None:
        rows.append(
            (
                "Random circuits" if of_edges else f"Random {case.level}s",
                interval(random.value, (random.low, random.high)),
            )
        )
    if (left := found.complement) is not None:
        rows.append(("Without the circuit", interval(left.value, (left.low, left.high))))
        rows.append(("Behaviour lost without all", interval(found.behaviour)))
    if case.circuit.setting.errors is not None:
        rows.append(("Errors of dictionaries", case.circuit.setting.errors))
    share = f"{data['fraction']:.2%}"
    size = f"{data['nodes']:,} {case.level}s ({share} of all)"
    if of_edges:
        size = f"{data['edges']:,} edges ({share} of the graph), {data['nodes']:,} nodes"
    rows += [
        ("By prompt", str(_by_prompt(found.values, data["seed"]))),
        ("Output", output_text(data["output"])),
        ("Size", size),
        (
            f"Mean {data['objective']}",
            f"model {means['clean']:.3f}, circuit {means['circuit']:.3f}, empty circuit {means['empty']:.3f} "
            f"(ablation: {data['ablation']})",
        ),
        ("Seed", str(data["seed"])),
    ]
    return rows + [("Warning", note) for note in data["notes"]]
