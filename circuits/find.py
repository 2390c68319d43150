"""`find_circuit`: from a model and a behaviour to a circuit and an honest report of how faithful it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from attribution.edges.method import Method
from attribution.engines import ScoringKeywords, method_keywords
from circuits.goals import DEFAULT_FAITHFULNESS, ONE_ERROR, Goal
from circuits.levels import Asked, NodeKeywords
from circuits.resampling import Stable
from circuits.search import Search, find
from interp import numbers
from interp.errors import InputError, choose
from interp.interval import Interval, IntervalKeywords
from interp.keywords import chosen
from interp.run import RunKeywords
from interp.running import door
from interp.selection import Selection
from interp.setting import Setting, SettingKeywords
from interp.tasks.task import Task
from metrics.circuit.controls import refuse_drawn
from metrics.circuit.curve import AbsoluteKeyword
from metrics.circuit.samples import REFERENCES


class FindKeywords(
    NodeKeywords, ScoringKeywords, AbsoluteKeyword, SettingKeywords, RunKeywords, IntervalKeywords, total=False
):
    """The keywords of `find_circuit`."""

    reference: str
    kl: float | None
    lower_end: bool
    ladder: bool
    minimal: bool


@numbers.checked(faithfulness=numbers.SHARE, scoring_share=numbers.BETWEEN, n_random=numbers.FROM_ZERO)
@door
def find_circuit(
    model: Any,
    task: Task,
    *,
    method: str | Method = "eap-ig",
    edges: int | float | None = None,
    faithfulness: float | None = None,
    selection: str | Selection = "balanced",
    stable: bool | Stable = False,
    tests: bool = False,
    scoring_share: float = 0.5,
    n_random: int = 3,
    **keywords: Unpack[FindKeywords],
) -> Any:
    """Find the edges (or nodes) of a model that carry a behaviour, and measure how faithful they are alone.

    The prompts are split: scores and size are chosen on one part; the other part is used once, for the reported
    faithfulness, (M(circuit) - M(empty)) / (M(clean) - M(empty)), with its bootstrap interval.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 4 prompts, better 64 or more.
        method: an edge method of `attribution.methods()`, by name, or as an object with its settings, ours or your own:
            `EAPIG(steps=10)`.
        edges: size of the circuit: a number of edges, or a share of all edges between 0 and 1. `top-n` and `greedy`
            count before pruning, and leave fewer.
        faithfulness: instead of a size: the smallest circuit found that reaches it on the scoring prompts, by one
            standard error over them, so that it reaches it on most others, too; 0.85 when no goal is given. Sizes are
            searched by bisection (`circuits.smallest`), and of what is found a last pass drops groups of edges, and
            then single ones, that it can do without (`circuits.trimming`); `report.ladder` holds the sizes that were
            run, `report.trimmed` the pass. About 20 circuits.
        selection: `balanced` (default): connected edges. Of a given size the share that helps is set so that the
            circuit does as well as the model on the scoring prompts (`metrics.circuit.balance`), by up to five
            circuits; the smallest circuit for a goal holds those that help most. Or one that looks at scores alone
            (`interp.selection`): `top-n` (MIB's), `greedy`,
            `connected`, `program`. Or a `Selection`, ours or your own: `TopN(absolute=False)`.
        stable: keep the edges (nodes) of a size that survive resampling: those that three quarters of 20 bootstrap
            resamples of the scoring prompts select (balanced by the share that all scoring prompts set), or as
            `Stable(share=0.75, resamples=20)` says. No more passes, but for `mean` ablations (see
            `circuits.stability`). The circuit is smaller than the size asked for; `report.stability` says by how much,
            and how often each of its edges (nodes) was selected.
        tests: make the hypothesis tests of `metrics.circuit_tests` on the held-out prompts, too: is the circuit
            equivalent, complete (independence), minimal, sufficient, necessary? `report.tests` holds their corrected
            p-values. About 200 more circuits: minutes on a real model.
        scoring_share: share of the prompts that choose the circuit.
        n_random: how many random circuits of the same size to report beside it.
        kl: a goal for the whole output, instead of faithfulness or beside it: mean KL(model || circuit) of at most so
            many nats on the scoring prompts.
        lower_end: whether faithfulness has to be reached by the lower end of its interval over the scoring prompts.
        ladder: choose among the sizes of the ladder alone (.1 % to 100 % of the edges), of each the circuit that the
            selection takes at that size, by their means: `report.ladder` is then the whole curve. Up to 50 circuits.
        minimal: whether the last pass tries every edge (node) of the circuit alone. As many circuits as it has edges.
        reference: how they are drawn: `paths` from the input to the logits, or `grown` from the logits upwards.
        ablation, objective, kv: of the setting: what edges outside the circuit give, what is to be preserved, and key
            and value targets per query `head` or key-value `group`; see `interp.setting.Setting`.
        confidence, resamples, seed: of the intervals over prompts. `seed` also decides the split, the random circuits
            and the resamples of `stable`: the same seed gives the same circuit.
        batch_size, memory, quiet: how runs are made, see `interp.run.Run`.
        level: `neuron`, `head`, `node` (heads and MLPs) or `feature` (with `dictionaries`) instead of edges: all edges
            among the nodes of the circuit stay, all other nodes of that level are ablated, and everything else is live.
            Methods are those of `attribution.neurons`, `attribution.features` and `attribute(level="node")`, `mask-ig`
            and `exact`; `selection` is `balanced` or `top-n`. Without `nodes` the circuit is the smallest whose most
            helpful nodes (`top-n`: largest |score|) reach `faithfulness`; random nodes are of the same layers (or
            dictionaries) and similar norms (`metrics.circuit.controls`).
        nodes: size of a circuit of nodes: a number, or a share of all; `balanced` sets the share that helps so that the
            circuit does as well as the model on the scoring prompts.
        positions: None (a node or edge is at all positions at once), `all` (each position counts on its own, from the
            first at which any prompt differs), or a list of positions; of edges also `spans`, those of the task, and a
            list leaves the other positions to the span `rest`. Of nodes, prompts must be of one length. The circuit of
            edges is then `[span, source, target]`, `edges` counts an edge at each span, random circuits are connected
            ones of edges in random order, and no last pass drops what the circuit can do without.
        dictionaries: of level `feature`: a `Dictionary` or several, of different places, whose features are the nodes.
        errors: what becomes of what dictionaries leave of their outputs: `kept` (default), `ablated`, or `nodes` of
            their own, behind the features of each.
        **keywords: of a method that is named, as in `attribution.attribute`: `rules`, `steps`, `quadrature`, `credit`,
            `checkpointed`, `sample`, `resume`; of a selection that is named: `absolute`.

    Returns:
        `Circuit` with `.mask`, `.report`, `.show()`, `.save(path)`, `.to_html(path)` and more; of nodes a `NodeCircuit`
        with `.node_mask`, `.report`, `.to_frame()`, `.save(path)`.

    Raises:
        InputError: both a size and a goal, a method that scores nodes, too few prompts, and whatever
            `attribute` refuses.
    """
    told = method_keywords("find_circuit", method, keywords, FindKeywords)
    asked = Asked.of(keywords, {"edges": edges, "reference": keywords.get("reference")})
    of_edges = asked.level == "edge"
    size = edges if of_edges else keywords.get("nodes")
    rule = asked.selection(selection, chosen(keywords, AbsoluteKeyword))
    search = Search(
        asked=asked,
        method=asked.method(method, {**chosen(keywords, ScoringKeywords), **told}),
        selection=rule,
        name=selection if isinstance(selection, str) else rule.name,
        size=size,
        goal=_goal("edges" if of_edges else "nodes", size, faithfulness, keywords),
        ladder=keywords.get("ladder", False),
        minimal=keywords.get("minimal", False),
        stable=_resampling(stable, keywords),
        reference=_reference(keywords) if of_edges else None,
        scoring_share=scoring_share,
        n_random=n_random,
        tests=tests,
    )
    setting = Setting.of(model, task, keywords)
    if len(setting) < 4:
        raise InputError(
            f"task={setting.task.name!r} has {len(setting)} prompts; find_circuit needs at least 4, to split them"
        )
    return find(setting, search, Interval.of(keywords))


def _reference(keywords: Mapping[str, Any]) -> str | None:
    """How random circuits of edges are drawn; by position there is one way."""
    drawn = choose("reference", keywords.get("reference", "paths"), REFERENCES)
    if keywords.get("positions") is None:
        return drawn
    refuse_drawn(keywords.get("reference"))
    return None


def _goal(sizes: str, size: int | float | None, faithfulness: float | None, keywords: Mapping[str, Any]) -> Goal:
    """What decides on a size; raises `InputError` where a size is given too."""
    kl, lower_end = keywords.get("kl"), keywords.get("lower_end", False)
    of_goals = {"faithfulness": faithfulness, "kl": kl}
    of_goals |= {name: keywords.get(name) or None for name in ("lower_end", "ladder", "minimal")}
    if size is not None:
        for name, value in of_goals.items():
            if value is not None:
                raise InputError(f"{sizes}={size} and {name}={value} are two ways to choose a size: give one")
    if lower_end and faithfulness is None and kl is not None:
        raise InputError("lower_end=True is about faithfulness, and kl= alone is asked for: give faithfulness= too")
    if faithfulness is None and kl is None:
        faithfulness = DEFAULT_FAITHFULNESS
    spare = 0.0 if keywords.get("ladder") else ONE_ERROR
    return Goal(faithfulness, kl, lower_end, Interval.of(keywords), spare)


def _resampling(stable: bool | Stable, keywords: Mapping[str, Any]) -> Stable | None:
    """How a circuit is chosen by resamples, if it is."""
    if isinstance(stable, Stable):
        return stable
    if not stable:
        return None
    if "resamples" in keywords:
        raise InputError(
            f"resamples={keywords['resamples']} are the bootstrap draws of intervals now; those that a stable circuit "
            "is chosen by belong to stable: stable=Stable(resamples=20), from circuits"
        )
    return Stable()
