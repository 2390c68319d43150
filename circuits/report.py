"""Report: how faithful a circuit is, as its file keeps it and its reader sees it."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import pydantic

from interp.errors import InputError, short
from interp.headers import validated
from interp.keeping import kept
from interp.plain import plain

if TYPE_CHECKING:
    from metrics.circuit.prompts import PromptFaithfulness

Interval = tuple[float, float]


@kept
@dataclass(frozen=True)
class Report:
    """How faithful a circuit is, measured on prompts that neither its scores nor its size have seen.

    Attributes:
        faithfulness: (circuit - corrupted) / (clean - corrupted) on the held-out prompts; `interval` is its
            95 % bootstrap interval over prompts.
        n_scoring, n_held_out: how many prompts chose the circuit, and how many judged it.
        clean, corrupted, circuit: mean objective of the model, of the empty circuit under the same ablation
            (with `patch`: the corrupted run), and of this circuit.
        edges, nodes, fraction: size of the circuit, and its share of the graph's edges; of a circuit of nodes its
            nodes, and their share of all.
        ladder: a dictionary per size tried, with keys size, edges (left after pruning) and faithfulness, all
            on the scoring prompts.
        trimmed: what the last pass over the circuit did, where its size was searched: how many edges were `removed` and
            `circuits` run, which edges were `tried_singly` and are needed, and whether that is `every_one`.
        random_faithfulness, random_interval: the same measure for random circuits of this size.
        per_prompt: objective of each held-out prompt, under the keys clean, empty and circuit; `by_prompt` says what
            it shows.
        output: agreement of the whole output distribution with the model's, a dictionary for each of circuit, empty
            circuit and random circuits, with the columns of `metrics.OutputAgreement.to_frame()`.
        stability: how the edges (nodes) fared over resamples of the scoring prompts, where these chose them
            (`stable=True`).
        tests: a dictionary per hypothesis test that was made (`find_circuit(tests=True)`), with the columns of
            `metrics.circuit_tests(...).to_frame()`.
        notes: what a reader must know to trust the figures.
        level: what was chosen: `edge`, or `neuron`, `head`, `node`, `feature`.
        complement, complement_interval: of a circuit of nodes, faithfulness of what it leaves out, alone: a complete
            circuit leaves little.
        behaviour: of a circuit of nodes, (clean - empty) / (clean - corrupted): the share of the behaviour that is lost
            when all nodes of the level are ablated, and that faithfulness is about.
        errors: of a circuit of features, what became of what the dictionaries leave: `kept`, `ablated` or `nodes`.

    What is not known is None; a NaN or infinite figure becomes None.

    >>> print(Report(faithfulness=0.9, interval=(0.8, 1.0), n_held_out=32))
    Faithfulness: 0.900, 95 % interval 0.800 to 1.000 (32 held-out prompts)
    """

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    faithfulness: float | None = None
    interval: Interval | None = None
    n_scoring: int | None = None
    n_held_out: int | None = None
    clean: float | None = None
    corrupted: float | None = None
    circuit: float | None = None
    ablation: str | None = None
    objective: str | None = None
    edges: int | None = None
    nodes: int | None = None
    fraction: float | None = None
    ladder: list[dict[str, Any]] = field(default_factory=list)
    random_faithfulness: float | None = None
    random_interval: Interval | None = None
    per_prompt: dict[str, list[float | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    output: list[dict[str, Any]] = field(default_factory=list)
    stability: dict[str, Any] = field(default_factory=dict)
    tests: list[dict[str, Any]] = field(default_factory=list)
    level: str = "edge"
    complement: float | None = None
    complement_interval: Interval | None = None
    behaviour: float | None = None
    errors: str | None = None
    trimmed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, plain(getattr(self, item.name)))
        for name in ("interval", "random_interval", "complement_interval"):
            ends = getattr(self, name)
            object.__setattr__(self, name, tuple(ends) if ends is not None and None not in ends else None)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "report") -> Report:
        """The report that `to_dict` wrote; raises `InputError` naming `where` and the unfit field."""
        found = validated(cls, data, where)
        try:
            str(found)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{where} is damaged: its report cannot be read ({short(error)})") from None
        return found

    @property
    def by_prompt(self) -> PromptFaithfulness | None:
        """Faithfulness prompt by prompt, with quantiles and `figure()`; None where prompts are not known."""
        arrays = [self.per_prompt.get(name) for name in ("clean", "empty", "circuit")]
        if any(one is None or not one or None in one for one in arrays):
            return None
        from metrics.circuit.prompts import PromptFaithfulness

        return PromptFaithfulness.of(*arrays)  # type: ignore[arg-type]

    def rows(self) -> Iterator[tuple[str, str]]:
        """The report as (heading, text) lines; what is not known is left out."""
        if self.faithfulness is not None:
            text = with_interval(self.faithfulness, self.interval)
            if self.n_held_out is not None:
                chosen = "" if self.n_scoring is None else f"; chosen on {self.n_scoring:,} others"
                text += f" ({self.n_held_out:,} held-out prompts{chosen})"
            yield "Faithfulness", text
        if self.random_faithfulness is not None:
            random = "Random circuits" if self.level == "edge" else f"Random {self.level}s"
            yield random, with_interval(self.random_faithfulness, self.random_interval)
        if self.complement is not None:
            yield "Without the circuit", with_interval(self.complement, self.complement_interval)
        if self.behaviour is not None:
            yield "Behaviour lost without all", f"{self.behaviour:z.3f}"
        if self.errors is not None:
            yield "Errors of dictionaries", "nodes of their own" if self.errors == "nodes" else self.errors
        if self.by_prompt is not None:
            yield "By prompt", str(self.by_prompt)
        if self.output:
            yield "Output", output_text(self.output)
        for test in self.tests:
            decision = {True: "passed", False: "failed"}.get(test["passed"], "not made")
            p = "" if test["p_corrected"] is None else f", corrected p {test['p_corrected']:.2g}"
            yield f"Test of {test['test']}", f"{decision}{p}: {test['meaning']}"
        if self.edges is not None:
            share = "" if self.fraction is None else f" ({self.fraction:.2%} of the graph)"
            nodes = "" if self.nodes is None else f", {self.nodes:,} nodes"
            yield "Size", f"{self.edges:,} edges{share}{nodes}"
        elif self.level != "edge" and self.nodes is not None:
            share = "" if self.fraction is None else f" ({self.fraction:.2%} of all)"
            yield "Size", f"{self.nodes:,} {self.level}s{share}"
        named = {"model": self.clean, "circuit": self.circuit, "empty circuit": self.corrupted}
        means = [f"{name} {value:.3f}" for name, value in named.items() if value is not None]
        if means:
            ablation = "" if self.ablation is None else f" (ablation: {self.ablation})"
            yield f"Mean {self.objective or 'objective'}", ", ".join(means) + ablation
        steps = [
            f"{row.get('edges', row.get('size')):,}: {row['faithfulness']:.2f}"
            for row in self.ladder
            if row.get("faithfulness") is not None
        ]
        if steps:
            yield f"Faithfulness by {self.level}s", ", ".join(steps)
        if self.trimmed:
            yield "Last pass", _trimmed_text(self.trimmed)
        if self.stability:
            yield "Stability", _stability_text(self.stability, self.level)
        for note in self.notes:
            yield "Note", note

    def __str__(self) -> str:
        return "\n".join(f"{heading}: {text}" for heading, text in self.rows()) or "Nothing was measured."

    def _repr_html_(self) -> str:
        lines = "".join(
            f"<tr><th style='text-align:left'>{html.escape(heading)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for heading, text in self.rows()
        )
        return f"<table>{lines}</table>"


def _trimmed_text(found: dict[str, Any]) -> str:
    tried = "every one that is left" if found["every_one"] else f"{len(found['tried_singly']):,} of what is left"
    single = f"{tried} was tried alone and is needed for the goal" if found["tried_singly"] else "none was tried alone"
    return f"{found['removed']:,} more could go ({found['circuits']:,} circuits run); {single}"


def _stability_text(found: dict[str, Any], level: str) -> str:
    noun = "edges" if level == "edge" else "nodes"
    return (
        f"{found[f'{noun}_kept']:,} {level}s that at least {found['share']:.0%} of {found['resamples']} resamples put "
        f"among their {found[f'{noun}_of_size']:,}"
    )


def output_text(rows: list[dict[str, Any]]) -> str:
    """Rows of `OutputAgreement.to_frame()` in a line: the circuit with intervals, the others behind it."""
    own, *others = rows
    kl = f"KL from the model {own['kl']:.3f}"
    if own["kl_low"] is not None:  # one prompt has no interval
        kl += f" [{own['kl_low']:.3f}, {own['kl_high']:.3f}]"
    same = f"same top token on {own['same_argmax']:.0%} [{own['same_low']:.0%}, {own['same_high']:.0%}] of prompts"
    named = [f"{row['of']} {row['kl']:.3f}, {row['same_argmax']:.0%}" for row in others]
    return f"{kl}, {same}" + (f" ({'; '.join(named)})" if named else "")


def with_interval(value: float, interval: Interval | None) -> str:
    """A figure and, where it is known, its interval."""
    text = f"{value:z.3f}"
    return text if interval is None else f"{text}, 95 % interval {interval[0]:z.3f} to {interval[1]:z.3f}"
