"""`mechanisms`: does one task have one circuit? Prompts are clustered by their own scores, each cluster by itself."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from attribution.edges.method import Method
from attribution.engines import ScoringKeywords, method_keywords
from circuits.circuit import Circuit
from circuits.clusters import (
    STEADY,
    Labels,
    Points,
    clustered,
    distance,
    found_again,
    halves_apart,
    one_cluster,
    points_of,
)  # fmt: skip
from circuits.find import FindKeywords, find_circuit
from circuits.levels import Asked, check, scored
from circuits.mechanism_result import Mechanisms
from circuits.node_circuit import NodeCircuit
from interp import numbers
from interp.errors import InputError
from interp.interval import Interval
from interp.keywords import chosen, leftover
from interp.running import door
from interp.selection import Selection
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.elements import Elements
from metrics.circuit.evaluate import faithfulness_in, together
from metrics.testing import adjust

LEAST = 4  # prompts that a circuit is found and judged with
Found = list[Circuit | NodeCircuit | None]


class MechanismsKeywords(FindKeywords, total=False):
    """The keywords of `mechanisms`."""

    edges: int | float | None
    faithfulness: float | None
    selection: str | Selection
    scoring_share: float
    n_random: int


@numbers.checked(clusters=numbers.COUNT, most=numbers.Limits(2), draws=numbers.Limits(19, advice="199 is usual"))
@door
def mechanisms(
    model: Any,
    task: Task,
    *,
    method: str | Method = "eap",
    clusters: int | None = None,
    most: int = 4,
    draws: int = 199,
    **keywords: Unpack[MechanismsKeywords],
) -> Mechanisms:
    """Whether the prompts of a task are carried by one circuit or by several, and by which.

    Each prompt is scored alone; its scores, divided by their length, are a point, and points are clustered (k-means
    from Ward's tree). There are as many clusters as halves of the prompts find again in each other best, by the
    adjusted Rand index, and one where that is below 0.8. A circuit is found for each (`find_circuit`), and judged on
    its own cluster's held-out prompts and on all others' (the idea of clusters that have circuits of their own:
    arXiv:2605.09129). A test says whether two clusters are farther apart than one would be that was divided the same
    way: the null is a normal cloud of their mean and covariance (SigClust, Liu et al. 2008), since two clusters differ
    by more than chance halves whatever the prompts are.

    Args:
        model: what `interp.load_model` returns.
        task: the behaviour; at least 8 prompts, better 64 or more.
        method: scores the prompts, and finds the circuits; as in `find_circuit`. One pass a prompt by default.
        clusters: how many; None: as said above.
        most: clusters that are tried.
        draws: of the test, for each pair of clusters.
        edges, faithfulness: of the circuits, as in `find_circuit`; so are all other keywords.

    Returns:
        `Mechanisms`: `prompts`, `circuits`, `faithfulness`, `pairs`, `counts`, `to_frame()`, `figure()`.

    Raises:
        InputError: fewer than 8 prompts; more clusters than a quarter of the prompts; `mean` and `optimal` ablations,
            which no prompt has alone; a prompt whose scores are all 0; and whatever `find_circuit` refuses.
    """
    told = method_keywords("mechanisms", method, keywords, MechanismsKeywords)
    asked = Asked.of(keywords, {"edges": keywords.get("edges")})
    scorer = asked.method(method, {**chosen(keywords, ScoringKeywords), **told})
    setting, interval = Setting.of(model, task, keywords), Interval.of(keywords)
    _check(setting, clusters)
    elements = asked.elements(setting)
    check(elements, scorer)
    points, rng = points_of(_by_prompt(elements, scorer)), np.random.default_rng(interval.seed)
    counts = _counts(points, [clusters] if clusters else range(2, min(most, len(task) // LEAST) + 1), rng)
    labels = clustered(points, clusters or _best(counts))
    settings = [setting.select(np.flatnonzero(labels == one).tolist()) for one in range(labels.max() + 1)]
    of_circuits: Any = leftover({k: v for k, v in keywords.items() if k not in told}, ScoringKeywords)
    found: Found = [
        find_circuit(model, one.task, method=scorer, **of_circuits) if len(one) >= LEAST else None for one in settings
    ]
    return Mechanisms(
        prompts=_prompts(task, labels),
        circuits=tuple(found),
        faithfulness=_crossed(elements, settings, found, keywords.get("scoring_share", 0.5), interval),
        pairs=_pairs(points, labels, found, draws, rng),
        counts=counts,
        cosines=torch.from_numpy(points @ points.T).float(),
        asked={
            "task": task.name, "model": setting.anatomy.name, "method": scorer.name, "level": asked.level,
            "ablation": str(setting.ablation), "seed": interval.seed, "clusters": clusters, "draws": draws,
        },
    )  # fmt: skip


def _check(setting: Setting, clusters: int | None) -> None:
    n = len(setting)
    if n < 2 * LEAST:
        raise InputError(f"task={setting.task.name!r} has {n} prompts; mechanisms needs at least {2 * LEAST}")
    if clusters is not None and clusters * LEAST > n:
        raise InputError(f"clusters={clusters} of {n} prompts are too many: give at most {n // LEAST}")
    if str(setting.ablation).startswith("mean") or setting.ablation == "optimal":
        raise InputError(
            f"ablation={setting.ablation!r} is taken over all prompts, and mechanisms scores each alone; use 'patch' "
            "or 'zero'"
        )


def _by_prompt(elements: Elements, method: Method) -> NDArray[np.floating]:
    """Scores of each prompt alone, [prompt, element]."""
    setting, rows = elements.setting, []
    with setting.run.progress("scoring each prompt", len(setting)) as bar:
        for prompt in range(len(setting)):
            values = scored(elements.on(setting.select([prompt])), method).values
            rows.append(values.flatten()[elements.places].numpy())
            if not rows[-1].any():
                raise InputError(
                    f"the scores of prompt {prompt} are all 0: nothing of the model moves its objective; leave it out "
                    "(task.select)"
                )
            bar.advance()
    return np.stack(rows)


def _counts(points: Points, tried: Any, rng: np.random.Generator) -> pd.DataFrame:
    rows = [{"clusters": k, "found_again": found_again(points, k, rng)} for k in tried]
    return pd.DataFrame(rows, columns=["clusters", "found_again"])


def _best(counts: pd.DataFrame) -> int:
    """The number that is found again best, if that is well enough; else 1."""
    best = max(counts.to_dict("records"), key=lambda row: row["found_again"], default={"found_again": 0.0})
    return int(best["clusters"]) if best["found_again"] >= STEADY else 1


def _prompts(task: Task, labels: Labels) -> pd.DataFrame:
    clean = task.to_frame()["clean"].map(str)
    return pd.DataFrame({"prompt": range(len(task)), "cluster": labels, "clean": clean})


def _crossed(
    elements: Elements, settings: list[Setting], found: Found, share: float, interval: Interval
) -> pd.DataFrame:
    """Each circuit on the prompts of each cluster; of its own on those that did not choose it."""
    kept = {number: elements.circuit(one.mask) for number, one in enumerate(found) if one is not None}
    rows = []
    for place, setting in enumerate(settings):
        held_out = setting.split(share, interval.seed)[1] if place in kept else setting
        estimates = faithfulness_in(held_out.measure(together([*kept.values()])), interval)
        for number, one in zip(kept, estimates, strict=True):
            rows.append((number, place, len(held_out), one.value, one.low, one.high))
    frame = pd.DataFrame(rows, columns=["circuit", "prompts_of", "n", "faithfulness", "low", "high"])
    return frame.sort_values(["circuit", "prompts_of"], ignore_index=True)


def _pairs(points: Points, labels: Labels, found: Found, draws: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for first, second in combinations(range(len(found)), 2):
        one, other = points[labels == first], points[labels == second]
        both, own = np.concatenate([one, other]), np.repeat([0, 1], [len(one), len(other)])
        enough = min(len(one), len(other)) > 1
        rows.append(
            {
                "first": first,
                "second": second,
                "distance": distance(one, other),
                "halves": float(np.mean([halves_apart(part, rng) for part in (one, other) if len(part) > 1])),
                "jaccard": _overlap(found[first], found[second]),
                "p": one_cluster(both, own, draws, rng) if enough else float("nan"),
            }
        )
    frame = pd.DataFrame(rows, columns=["first", "second", "distance", "halves", "jaccard", "p"])
    return frame.assign(p_corrected=adjust(frame["p"].to_numpy(dtype=float)))


def _overlap(first: Circuit | NodeCircuit | None, second: Circuit | NodeCircuit | None) -> float:
    if first is None or second is None:
        return float("nan")
    return first.jaccard(second)  # type: ignore[arg-type]  # both are of one kind
