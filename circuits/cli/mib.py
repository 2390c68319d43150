"""`circuits mib`: submissions to the circuit-localisation track of MIB, made, checked and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli import options
from circuits.cli.inputs import DEFAULT_PROMPTS, built_in, check_ablation, check_names, load, read_task
from circuits.cli.named import made_method
from circuits.cli.output import CommandError, Notes, interval, print_json, show, table, working, write_frame
from circuits.cli.saved import edge_circuit

if TYPE_CHECKING:
    from attribution.edges.method import Method
    from circuits.mib import Entry
    from interp.tasks import Task

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Exchange circuits with the MIB benchmark: submit, export, check, evaluate.",
)

Folder = Annotated[Path, typer.Argument(help="The submission, or one of its folders.", show_default=False)]
Circuits = Annotated[bool, typer.Option("--circuits", help="Nine circuits by size instead of importance scores.")]
Number = Annotated[
    int | None, typer.Option("--n", "-n", min=1, help="Prompts.", show_default=f"{DEFAULT_PROMPTS}, or all of a file's")
]


@app.command()
def submit(
    folder: Annotated[Path, typer.Argument(help="The folder to write, or to add to.", show_default=False)],
    models: Annotated[str, typer.Option("--models", help="By MIB's names (gpt2, qwen2.5, ...), or any that load.")],
    tasks: Annotated[str, typer.Option("--tasks", help="By MIB's names (ioi, mcqa, ...), or built-in tasks.")],
    task_file: options.TaskFile = None,
    method: options.Method = "eap-ig",
    steps: options.Steps = None,
    ablation: Annotated[
        str, typer.Option(help="patch, zero-token (MIB's zero), zero, mean, mean-positional.")
    ] = "patch",
    circuits: Circuits = False,
    selection: Annotated[str, typer.Option(help="Of --circuits: top-n or greedy.")] = "top-n",
    level: Annotated[str, typer.Option(help="What is scored: edge, or node (heads and MLPs).")] = "edge",
    n: Number = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the prompts.")] = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score edges, or heads and MLPs, and write the folder that MIB takes.

    One folder for every model and task that MIB pairs. Prompts are those of
    the built-in task of that kind, or of --task-file (with a single task):
    MIB's own data sets are on the Hugging Face hub.

    \b
    Example:
      circuits mib submit submission --models gpt2,qwen2.5 --tasks ioi,mcqa
      circuits mib submit nodes --models gpt2 --tasks ioi --level node
      circuits mib check submission
    """
    chosen_models, chosen_tasks = _list("--models", models), _list("--tasks", tasks)
    if task_file is not None and len(chosen_tasks) > 1:
        raise CommandError("--task-file holds the prompts of one task; give one name to --tasks")
    files: list[str] = []
    with working(quiet) as notes:
        from attribution import attribute
        from circuits import mib
        from interp.errors import choose

        check_names(ablation=ablation)
        scorer = _scorer(method, steps, choose("level", level, ("edge", "node")), notes)
        check_ablation(scorer, ablation)
        pairs = _pairs(chosen_models, chosen_tasks, notes)
        for name in chosen_tasks:
            if task_file is None:
                _kind(name)
        for source in dict.fromkeys(source for source, _ in pairs):
            loaded = load(mib.MODELS[source].hub if source in mib.MODELS else source, device, dtype, notes)
            width = int(loaded.cfg.d_model)
            for name in (task for model, task in pairs if model == source):
                prompts = _prompts(name, task_file, n, seed, loaded)
                scores = attribute(loaded, prompts, scorer, ablation=ablation, batch_size=batch_size, quiet=quiet)
                if circuits:
                    written = mib.write_circuits(scores, folder, name, source, width, selection=selection)
                else:
                    written = [mib.write_importances(scores, folder, name, source, width)]
                files += map(str, written)
                notes(f"wrote {written[0].parent}")
    _files(folder, files, json)


@app.command()
def export(
    circuit: options.Saved,
    folder: Annotated[Path, typer.Argument(help="The folder to write, or to add to.", show_default=False)],
    model: Annotated[str, typer.Option("--model", "-m", help="By MIB's name: gpt2, qwen2.5, gemma2, llama3.")],
    task: Annotated[str, typer.Option("--task", "-t", help="By MIB's name: ioi, mcqa, arc-easy ...")],
    circuits: Circuits = False,
    json: options.Json = False,
) -> None:
    """Write the scores of a saved circuit as MIB takes them.

    With --circuits the nine circuits are chosen as the saved one was. A balanced one was chosen by running the model,
    which nothing here does: its nine circuits are MIB's own, top-n by score.

    \b
    Example:
      circuits mib export ioi.json submission --model gpt2 --task ioi
    """
    with working(quiet=False):
        from circuits import mib

        found = edge_circuit(circuit)
        width = found.provenance.get("d_model")
        if circuits:
            chosen = {key: found.provenance[key] for key in ("selection", "absolute") if key in found.provenance}
            if chosen.get("selection") == "balanced":
                chosen["selection"] = "top-n"
            written = mib.write_circuits(found.scores, folder, task, model, width, **chosen)
        else:
            written = [mib.write_importances(found.scores, folder, task, model, width)]
    _files(folder, [str(path) for path in written], json)


@app.command()
def check(folder: Folder, json: options.Json = False) -> None:
    """Say whether MIB would take a submission; exit code 2 if not.

    \b
    Example:
      circuits mib check submission
    """
    with working(quiet=False):
        from circuits import mib

        frame, problems = mib.check(folder)
    if json:
        print_json({"folders": frame.to_dict("records"), "problems": problems, "ok": not problems})
    else:
        show(table(f"Submission {folder}", list(frame.columns), frame.astype(str).to_numpy().tolist()))
        for problem in problems:
            typer.echo(f"Problem: {problem}")
        typer.echo("MIB would not take this." if problems else "This is what MIB asks for.")
    if problems:
        raise typer.Exit(2)


@app.command()
def evaluate(
    folder: Folder,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Instead of the folder's own, as in `circuits find`.", show_default=False),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="A built-in task instead of the folder's.", show_default=False)
    ] = None,
    task_file: options.TaskFile = None,
    n: Number = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of prompts and bootstrap.")] = 1,
    ablation: Annotated[
        str, typer.Option(help="patch, zero-token (MIB's zero), zero, mean, mean-positional.")
    ] = "patch",
    truth: Annotated[
        Path | None,
        typer.Option(help="The known circuit, as graph JSON: adds AUROC as MIB computes it.", show_default=False),
    ] = None,
    selection: Annotated[str, typer.Option(help="top-n or greedy.")] = "top-n",
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the table here: CSV, or JSON for .json.", show_default=False),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """CPR and CMD of a submission's circuits, as MIB computes them.

    CPR by circuits of signed scores, CMD by circuits of absolute ones. The
    leaderboard judges on prompts of its own, which are not public.

    \b
    Example:
      circuits mib evaluate submission/ioi_gpt2 -o results.csv
    """
    from circuits.cli.output import check_target

    output = check_target("-o", output)
    with working(quiet) as notes:
        import pandas as pd

        from circuits import Circuit, mib

        check_names(task=task, ablation=ablation)
        entries = [entry for entry in mib.read(folder) if entry.kind != "unreadable" or _skip(entry, notes)]
        if not entries:
            raise CommandError(f"{str(folder)!r} holds nothing that can be evaluated; see `circuits mib check`")
        if task is None and task_file is None:
            for entry in entries:
                _kind(entry.task)
        known = None if truth is None else Circuit.from_eap_ig_json(truth)
        rows = []
        for source, group in _by_model(entries, model).items():
            loaded = load(source, device, dtype, notes)
            for entry in group:
                prompts = _prompts(task or entry.task, task_file, n, seed, loaded)
                rows.append(
                    mib.evaluate(
                        loaded, prompts, entry, truth=known, selection=selection, seed=seed, ablation=ablation,
                        batch_size=batch_size, quiet=quiet,
                    )
                )  # fmt: skip
        frame = pd.concat(rows, ignore_index=True)
        if output is not None:
            write_frame(frame, output)
    if json:
        print_json(frame.to_dict("records"))
        return
    cells = [
        [
            str(row["entry"]),
            str(row["holds"]),
            str(row["n"]),
            *(interval(row[area], (row[f"{area}_low"], row[f"{area}_high"])) for area in ("cpr", "cmd")),
            *([interval(row["auroc"])] if "auroc" in row else []),
        ]
        for row in frame.to_dict("records")
    ]
    columns = ["folder", "holds", "prompts", "CPR", "CMD", *(["AUROC"] if "auroc" in frame else [])]
    show(table("As MIB computes them, 95 % intervals", columns, cells))
    if output is not None:
        typer.echo(f"Wrote the table to {output}")


def _scorer(method: str, steps: int | None, level: Any, notes: Notes) -> Method:
    """A method by name that scores that level."""
    from attribution.edges.named import METHODS
    from attribution.engines import chosen_method

    told = {"level": level} if "level" in (METHODS.settings(method) or ()) else {}
    return chosen_method(made_method(method, {"steps": steps}, notes, told, level), level=level)


def _list(option: str, text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise CommandError(f"{option} {text!r} names nothing; separate several by commas")
    return names


def _pairs(models: list[str], tasks: list[str], notes: Notes) -> list[tuple[str, str]]:
    """Models with tasks; of MIB's models only with the tasks that it pairs them with."""
    from circuits import mib

    pairs = [(model, task) for model in models for task in tasks]
    kept = [pair for pair in pairs if pair[0] not in mib.MODELS or mib.entry_name(pair[1], pair[0]) in mib.COLUMNS]
    if not kept:
        raise CommandError(f"MIB pairs none of these models with any of these tasks; it has {', '.join(mib.COLUMNS)}")
    for model, task in pairs:
        if mib.entry_name(task, model) not in mib.COLUMNS:
            what = "left out" if (model, task) not in kept else "written all the same"
            notes(f"MIB has no {mib.entry_name(task, model)}: {what}")
    return kept


def _kind(name: str) -> tuple[str, dict[str, Any]]:
    """The built-in task of a name of MIB's, or of our own."""
    from circuits.formats.mib_names import BUILT_IN, TASKS
    from interp import tasks
    from interp.errors import unknown

    mibs = name.replace("_", "-")
    if mibs in BUILT_IN:
        return BUILT_IN[mibs]
    if name.replace("-", "_") in tasks.names():
        return name, {}
    if mibs in TASKS:
        raise CommandError(f"task {name!r} has no built-in prompts: give MIB's own with --task-file")
    raise unknown("task", name, [*TASKS, *tasks.names()])


def _prompts(name: str, task_file: Path | None, n: int | None, seed: int, model: Any) -> Task:
    if task_file is not None:
        return read_task(task_file, n)
    built, settings = _kind(name)
    return built_in(built, n or DEFAULT_PROMPTS, seed, model, settings)


def _by_model(entries: list[Entry], model: str | None) -> dict[str, list[Entry]]:
    """Entries by the model to load."""
    from circuits.formats.mib_names import MODELS

    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        own = MODELS[entry.model].hub if entry.model in MODELS else entry.model
        groups.setdefault(model or own, []).append(entry)
    return groups


def _skip(entry: Entry, notes: Notes) -> bool:
    notes(f"{entry.name} is left out: {' '.join(entry.problems)}")
    return False


def _files(folder: Path, files: list[str], json: bool) -> None:
    if json:
        print_json({"folder": str(folder), "files": files})
        return
    for file in files:
        typer.echo(f"Wrote {file}")
