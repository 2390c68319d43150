"""`circuits trace`: what one prompt's next token is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.cli import options
from circuits.cli.inputs import load
from circuits.cli.output import check_target, panel, print_json, show, table, working

if TYPE_CHECKING:
    from circuits.tracing.graph import AttributionGraph

STRONGEST = 15


def trace(
    prompt: Annotated[str, typer.Argument(help="The prompt.", show_default=False)],
    model: options.Model,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A token to explain; may be repeated. Two as `this|that` are a contrast.",
            show_default="the likely next tokens",
        ),
    ] = None,
    units: Annotated[
        str, typer.Option(help="What the graph is made of: `neurons`, or `heads` with whole MLPs.")
    ] = "neurons",
    top: Annotated[int, typer.Option(min=1, help="Units that the graph shows.")] = 64,
    leave_out: Annotated[
        list[int] | None, typer.Option(min=0, help="A position whose units are not shown; 0 is BOS.")
    ] = None,
    check: Annotated[int, typer.Option(min=0, help="So many units really silenced, and as many random ones.")] = 0,
    compare: Annotated[
        str | None, typer.Option(help="An aligned prompt, whose graph this one is held against.", show_default=False)
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows of the graph at once.", show_default="what the memory allows")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Keep rows here, and go on from it where a trace was cut off.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the graph here, as Neuronpedia's viewer reads it.", show_default=False
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write all of it here, to be opened again.", show_default=False)
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a figure of it here.", show_default=False)] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Trace one prompt: the neurons, or heads and MLPs, that its next token is made of.

    \b
    Example:
      circuits trace --model smollm2-135m "The capital of France is" --html trace.html -o trace.json
    """
    output, save, html = check_target("-o", output), check_target("--save", save), check_target("--html", html)
    with working(quiet) as notes:
        from circuits.tracing.explain import trace as traced
        from interp.files import write_text

        loaded = load(model, device, dtype, notes)
        about: dict[str, Any] = {
            "units": units, "top": top, "leave_out": leave_out or [], "batch_size": batch_size, "quiet": quiet,
        }  # fmt: skip
        graph = traced(loaded, prompt, _targets(target), resume=resume, **about)
        contrast = None
        if compare is not None:
            contrast = graph.compare(traced(loaded, compare, _explained(graph), **about))
        agreement = graph.check(check, seed=seed).to_frame() if check else None
        files = {}
        if output is not None:
            files["graph"] = str(graph.to_json(output))
        if save is not None:
            files["result"] = str(graph.save(save))
        if html is not None:
            write_text(html, graph.figure().to_html(include_plotlyjs=True))
            files["figure"] = str(html)
    if json:
        more = {} if agreement is None else {"check": agreement.to_dict("records")}
        if contrast is not None:
            more["compare"] = contrast.to_frame().to_dict("records")
        print_json(_data(graph, files) | more)
        return
    _tell(graph)
    if contrast is not None:
        columns = ["name", "shown", "influence", "other_influence", "influence_change"]
        changed = [list(map(_cell, row)) for row in contrast.nodes.head(STRONGEST)[columns].values]
        show(table(f"Against {''.join(contrast.other_tokens)}", columns, changed, columns[2:]))
    if agreement is not None:
        columns = ["group", "n", "pearson", "pearson_low", "pearson_high"]
        rows = agreement[agreement["dropped"] == 0][columns]
        show(table("Score against silencing, 95 % intervals", columns, [list(map(_cell, row)) for row in rows.values]))
    for what, path in files.items():
        typer.echo(f"Wrote the {what} to {path}")


def _targets(given: list[str] | None) -> list[Any] | None:
    if not given:
        return None
    return [tuple(one.split("|", 1)) if "|" in one else one for one in given]


def _explained(graph: AttributionGraph) -> list[Any]:
    """What a graph explains, to ask the same of another prompt."""
    sides = [tuple(side[0] for side in pair if side) for pair in graph.settings["sides"]]
    return [side if len(side) > 1 else side[0] for side in sides]


def _data(graph: AttributionGraph, files: dict[str, str]) -> dict[str, Any]:
    small = graph.prune()
    return {
        "model": graph.model,
        "tokens": graph.tokens,
        "targets": graph.target_tokens,
        "replacement_score": graph.replacement_score,
        "completeness_score": graph.completeness_score,
        "nodes": small.nodes.to_dict("records"),
        "edges": small.edges.to_dict("records"),
        "files": files,
    }


def _tell(graph: AttributionGraph) -> None:
    rows = [
        ("Model", graph.model),
        ("Prompt", "".join(graph.tokens)),
        ("Explained", ", ".join(graph.target_tokens)),
        (
            "Replacement",
            f"{graph.replacement_score:.3f} (influence of tokens, over that of tokens and what is not shown)",
        ),
        ("Completeness", f"{graph.completeness_score:.3f}"),
    ]
    units = graph.nodes[graph.kinds().units.numpy()].sort_values("influence", ascending=False, kind="stable")
    columns = ["name", "token", "activation", "influence", "score"]
    shown = units.head(STRONGEST).assign(token=[graph.tokens[i] for i in units.head(STRONGEST)["position"]])
    cells = [list(map(_cell, row)) for row in shown[columns].values]
    show(panel("Attribution graph", rows), table("Largest influence", columns, cells, columns[2:]))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
