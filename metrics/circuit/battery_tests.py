"""The five hypothesis tests of a circuit, one by one; `metrics.circuit.battery` says what each asks."""

from __future__ import annotations

import math
import random as python_random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.evaluate import CircuitValues
from interp.setting import Setting
from metrics.circuit.battery_result import NullTest
from metrics.circuit.evaluate import resolution_of
from metrics.circuit.nulls import equivalence_p_value, independence_p_value, quantile_p_value
from metrics.circuit.samples import Edge, added_paths, edges_of, random_circuit, random_paths, with_edges, without_edges
from metrics.testing import Testing, adjust

Mask = Bool[Tensor, "source target"]
Array = NDArray[np.float64]

EDGE_COLUMNS = ("edge", "change", "beaten", "p", "p_corrected", "superfluous")


@dataclass(frozen=True)
class Setup:
    """What the tests against random circuits share; circuits are measured in a setting of few prompts."""

    setting: Setting
    mask: Mask
    quantile: float
    reference: str
    reference_size: int | float | None
    n_random: int
    seed: int

    @property
    def graph(self) -> ComputationalGraph:
        """The graph of the circuit."""
        return self.setting.graph

    def run(self, masks: list[Mask]) -> CircuitValues:
        """Objectives of circuits."""
        return self.setting.measure(torch.stack(masks))


def equivalence(values: CircuitValues, tolerance: float) -> NullTest:
    """Sign test of circuit against model; `values` hold the circuit first."""
    clean, circuit = values.clean.numpy(), values.circuits[0].numpy()
    p, share = equivalence_p_value(clean, circuit, tolerance, resolution_of(values))
    side = "above" if share > 0.5 else "below"
    return NullTest(
        "equivalence",
        null=f"the circuit scores above the model on half of the prompts, within {tolerance:g}",
        observed=f"above on {share:.0%} of {len(clean)} prompts, by {float((circuit - clean).mean()):+z.3f} on average",
        statistic=share,
        p=p,
        wanted="not rejected",
        meanings=(
            "no sign that circuit and model score differently",
            f"the circuit scores {side} the model too often to be as good as it",
        ),
    )


def independence(values: CircuitValues, permutations: int, seed: int) -> NullTest:
    """HSIC test of the model without the circuit (second in `values`) against the model."""
    rest = values.circuits[1].double().numpy()
    # what is constant but for rounding depends on nothing
    rest = np.full_like(rest, rest.mean()) if np.ptp(rest) <= resolution_of(values) else rest
    p, statistic = independence_p_value(values.clean.double().numpy(), rest, permutations, seed)
    return NullTest(
        "independence",
        null="without the circuit, the rest of the model scores independently of the model",
        observed=f"HSIC {statistic:.3g}",
        statistic=statistic,
        p=p,
        wanted="not rejected",
        meanings=(
            "no sign of the behaviour outside of the circuit",
            "the rest of the model still knows how the model scores: some of the behaviour is outside",
        ),
    )


def minimality(setup: Setup, sample: int | None, testing: Testing) -> tuple[NullTest, pd.DataFrame]:
    """Each edge of the circuit against random edges of inflated circuits; the edges as a frame, too."""
    graph, mask, seed = setup.graph, setup.mask, setup.seed
    rng = python_random.Random(seed)
    tested = edges_of(mask)
    if sample is not None and sample < len(tested):
        tested = sorted(rng.sample(tested, sample))
    null = f"each edge does more than {setup.quantile:.0%} of random edges of inflated circuits"
    paths = added_paths(graph, mask, setup.n_random, seed)
    if not paths:
        return _not_made("minimality", null, "not rejected", "no edge can be added"), pd.DataFrame(columns=EDGE_COLUMNS)
    masks = [mask]
    where: dict[tuple[Edge, ...], int] = {(): 0}

    def place(path: Sequence[Edge]) -> int:
        """Where the circuit with these edges added stands among the masks; each is run once."""
        if tuple(path) not in where:
            where[tuple(path)] = len(masks)
            masks.append(with_edges(mask, path))
        return where[tuple(path)]

    pairs = []
    for path in paths:
        out = rng.choice(path)
        pairs.append((place(path), place([edge for edge in path if edge != out])))
    first = len(masks)
    values = setup.run(masks + [without_edges(mask, [edge]) for edge in tested])
    scores = values.circuits.double().numpy()
    random = np.array([np.abs(scores[one] - scores[other]).mean() for one, other in pairs])
    changes = np.abs(scores[first:] - scores[0]).mean(1)
    frame = minimality_frame(changes, random, setup.quantile, testing, resolution_of(values))
    frame.insert(0, "edge", [graph.edge_name(*edge) for edge in tested])
    frame = frame.sort_values(["beaten", "change"], ignore_index=True, kind="stable")
    flagged = int(frame["superfluous"].sum())
    test = NullTest(
        "minimality",
        null=null,
        observed=f"{flagged} of {len(tested)} edges tested do not, of {int(mask.sum()):,} in the circuit",
        statistic=flagged / len(tested),
        p=float(frame["p_corrected"].min()),
        wanted="not rejected",
        meanings=(
            "no edge is shown to do as little as a random one",
            "some edges do no more than random ones: the circuit could be smaller",
        ),
    )
    return test, frame


def minimality_frame(
    changes: Array, random: Array, quantile: float, testing: Testing, resolution: float = 0.0
) -> pd.DataFrame:
    """Each edge's change `[edge]` against those of random edges `[draw]`; see `CircuitTests.edges`."""
    wins = (changes[:, None] > random[None] + resolution).sum(1)
    p = [quantile_p_value(int(won), len(random), quantile, "less") for won in wins]
    corrected = adjust(p, testing.correction)
    return pd.DataFrame(
        {
            "change": changes,
            "beaten": wins / len(random),
            "p": p,
            "p_corrected": corrected,
            "superfluous": corrected <= testing.alpha,
        }
    )


def reference_edges(setup: Setup) -> int:
    """How many edges the random circuits have that the whole circuit is compared with."""
    n_edges, wanted = setup.graph.n_edges, setup.reference_size
    if wanted is None:
        return int(setup.mask.sum())
    size = int(wanted * n_edges) if isinstance(wanted, float) else wanted
    if not 0 < size <= n_edges:
        raise InputError(f"reference_size={wanted} must be a number of edges up to {n_edges:,}, or a share up to 1.0")
    return size


def sufficiency(setup: Setup) -> NullTest:
    """The circuit's distance from the model against that of random circuits."""
    graph, size = setup.graph, reference_edges(setup)
    drawn = [random_circuit(graph, size, setup.seed + i, setup.reference) for i in range(setup.n_random)]
    values = setup.run([setup.mask, *drawn])
    own, *others = _distances(values)
    wins = int((own + resolution_of(values) < np.array(others)).sum())
    return NullTest(
        "sufficiency",
        null=f"the circuit is closer to the model than at most {setup.quantile:.0%} of random circuits",
        observed=(
            f"closer than {wins} of {len(others)} of {size:,} edges; distance {own:.3f}, theirs {np.median(others):.3f}"
        ),
        statistic=wins / len(others),
        p=quantile_p_value(wins, len(others), setup.quantile),
        wanted="rejected",
        meanings=(
            "not shown to be better than random circuits",
            f"closer to the model than more than {setup.quantile:.0%} of random circuits",
        ),
    )


def necessity(setup: Setup) -> NullTest:
    """What knocking out the circuit does, against random circuits from its complement."""
    graph, mask = setup.graph, setup.mask
    null = f"knocking the circuit out hurts more than knocking out at most {setup.quantile:.0%} of random circuits"
    outside = graph.edge_mask & ~mask
    size = int(mask.sum())
    if int(outside.sum()) < size:
        return _not_made("necessity", null, "rejected", "fewer edges outside of the circuit than in it")
    drawn = [random_paths(graph, size, setup.seed + i, outside) for i in range(setup.n_random)]
    values = setup.run([graph.edge_mask & ~one for one in (mask, *drawn)])
    own, *others = _distances(values)
    wins = int((own > np.array(others) + resolution_of(values)).sum())
    return NullTest(
        "necessity",
        null=null,
        observed=(
            f"it hurts more than {wins} of {len(others)} from the complement; distance {own:.3f}, "
            f"theirs {np.median(others):.3f}"
        ),
        statistic=wins / len(others),
        p=quantile_p_value(wins, len(others), setup.quantile),
        wanted="rejected",
        meanings=(
            "not shown to be more needed than random circuits",
            f"more needed than more than {setup.quantile:.0%} of random circuits outside of it",
        ),
    )


def _distances(values: CircuitValues) -> list[float]:
    """d(M, circuit) of each circuit."""
    return (values.circuits - values.clean).double().abs().mean(1).tolist()


def _not_made(name: str, null: str, wanted: str, why: str) -> NullTest:
    return NullTest(name, null, why, math.nan, math.nan, wanted, ("", ""))
