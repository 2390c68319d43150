"""Hypothesis tests of a circuit: equivalence, independence, minimality, sufficiency, partial necessity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import pandas as pd
from torch import Tensor

from interp import numbers
from interp.errors import InputError, choose
from interp.keywords import check_keywords
from interp.running import door
from interp.setting import MaskObject, Setting
from interp.tasks.task import Task
from metrics.circuit import battery_tests
from metrics.circuit.battery_result import CircuitTests, NullTest
from metrics.circuit.elements import elements_of
from metrics.circuit.evaluate import EvaluateKeywords, judging
from metrics.circuit.nulls import TOLERANCE
from metrics.circuit.samples import REFERENCES
from metrics.testing import Testing, TestingKeywords, adjust

TESTS = ("equivalence", "independence", "minimality", "sufficiency", "necessity")


@dataclass(frozen=True)
class Reference:
    """The random circuits that a circuit is held against in the tests.

    Attributes:
        drawn: of edges how: `paths` (from input to logits, as in the paper; what None means) or `grown` (from the
            logits upwards; small ones seldom reach the input). Of nodes None: each node of the circuit is exchanged for
            one outside, of its layer and near in norm (`metrics.circuit.controls`).
        size: their size for sufficiency: a number of edges (nodes) or a share of all; None: that of the circuit.
        prompts: so many prompts for the tests against them; None: all.
        quantile: share of them that has to be beaten. Lower asks for less.
    """

    drawn: str | None = None
    size: int | float | None = None
    prompts: int | None = 16
    quantile: float = 0.9

    def __post_init__(self) -> None:
        if self.drawn is not None:
            choose("reference", self.drawn, REFERENCES)
        numbers.settle(self, prompts=numbers.COUNT, quantile=numbers.BETWEEN)


class BatteryKeywords(EvaluateKeywords, TestingKeywords, total=False):
    """The keywords of `circuit_tests`."""

    seed: int


@numbers.checked(tolerance=TOLERANCE, quantile=numbers.BETWEEN, n_random=numbers.COUNT, sample=numbers.COUNT)
@door
def circuit_tests(
    model: Any,
    task: Task,
    circuit: Any,
    *,
    tests: Sequence[str] = TESTS,
    tolerance: float = 0.1,
    quantile: float | None = None,
    reference: str | Reference | None = None,
    n_random: int = 60,
    sample: int | None = 40,
    **keywords: Unpack[BatteryKeywords],
) -> CircuitTests:
    """Test the circuit hypothesis (Shi et al. 2024, arXiv:2410.13032): is this the part that does the task?

    s is the objective of a prompt, M the model, C the circuit, R a random circuit; d(A, B) is the mean over prompts of
    |s(A) - s(B)| (the authors' code squares the differences). C is made of edges, or of nodes of a level: what is said
    of edges below then holds of these, and C' is C with one more node, like one of the circuit's.

    - equivalence. Null: circuit and model outdo each other equally often, |P(s(C) > s(M)) - 1/2| <= `tolerance`. Sign
      test over prompts. A good circuit does *not* get it rejected.
    - independence. Null: the score of the model without the circuit's edges is independent of the model's. Permutation
      test by HSIC. A good circuit does *not* get it rejected: nothing of the behaviour is left outside.
    - minimality. Null for each edge e: d(C, C without e) is above a share `quantile` of d(C', C' without e'), where C'
      is C with a random path added and e' a random edge of that path. Binomial tests, corrected for the number of
      edges. A good circuit does *not* get it rejected: a rejection says that an edge does no more than a random one.
    - sufficiency. Null: d(M, C) is below d(M, R) for at most a share `quantile` of random circuits R of the same size.
      Binomial test. A good circuit gets it rejected.
    - necessity (partial). Null: d(M, M without C) is above d(M, M without R) for at most a share `quantile` of random
      circuits R of the same size from the complement of C. Binomial test. A good circuit gets it rejected.

    Not to reject is no proof: with few prompts nothing is. The tests against random circuits hold the circuit and the
    prompts fixed; their sample size is the number of random circuits, so they use fewer prompts. Costs 2 circuits over
    all prompts, and over the prompts of `reference` about 2 x `n_random` for sufficiency and necessity and `sample` +
    2 x `n_random` for minimality.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        circuit: a `Circuit` or a bool mask `[source, target]`; or nodes, as in `evaluate`.
        tests: those to make.
        tolerance: of the equivalence test, below 1/2; 0 asks for a fair coin.
        quantile: share of the random circuits that has to be beaten; None: that of `reference`.
        reference: how random circuits of edges are drawn, `paths` or `grown`, or a `Reference` that also says how large
            they are and on how many prompts they are run.
        n_random: how many; with 0.9 and five tests fewer than 44 can never reject at 5 %.
        sample: so many random edges (nodes) for minimality; None: all.
        level, spans, dictionaries, errors: of a bare tensor of nodes, as in `evaluate`.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        correction, alpha, permutations: of the p-values of the tests and of the edges, see `metrics.testing.Testing`;
            permutations (1000) are those of the independence test.
        seed: of prompts, random circuits, edges and permutations.

    Returns:
        `CircuitTests`: `to_frame()`, `edges`, `["sufficiency"]`.

    Raises:
        InputError: an empty circuit, fewer than 2 prompts, unknown names, numbers out of range, a way to draw edges for
            a circuit of nodes.
    """
    for name in tests:
        choose("tests", name, TESTS)
    against = reference if isinstance(reference, Reference) else Reference(reference)
    against = against if quantile is None else replace(against, quantile=quantile)
    check_keywords("circuit_tests", keywords, BatteryKeywords)
    setting, mask = judging(model, task, circuit, keywords)
    testing, seed = Testing.of(keywords, permutations=1000), numbers.seed(keywords.get("seed", 0))
    return battery_in(
        setting, mask, against, testing,
        tests=tests, tolerance=tolerance, n_random=n_random, sample=sample, seed=seed,
    )  # fmt: skip


def battery_in(
    setting: Setting,
    circuit: Tensor | MaskObject,
    against: Reference,
    testing: Testing,
    *,
    tests: Sequence[str] = TESTS,
    tolerance: float = 0.1,
    n_random: int = 60,
    sample: int | None = 40,
    seed: int = 0,
) -> CircuitTests:
    """`circuit_tests` in a setting, which measures nothing again."""
    n = len(setting)
    if n < 2:
        raise InputError(f"task={setting.task.name!r} has {n} prompts; the tests need at least 2")
    elements, mask = elements_of(setting, circuit)
    level, noun = elements.level, elements.noun
    if not elements.count(mask):
        raise InputError(f"circuit has no {level}s; there is nothing to test")
    few = setting
    if against.prompts is not None and against.prompts < n:
        few, _ = setting.split(against.prompts / n, seed)
    size = None if against.size is None else elements.size("size", against.size)
    elements.random(mask, 0, seed, against.drawn, size)  # refuses what cannot be drawn before any work
    setup = battery_tests.Setup(elements.on(few), mask, against.quantile, against.drawn, size, n_random, seed)
    found: dict[str, NullTest] = {}
    tested = pd.DataFrame(columns=[noun, *battery_tests.ELEMENT_COLUMNS])
    if {"equivalence", "independence"} & set(tests):
        values = elements.measure([mask, elements.rest(mask)])
        found["equivalence"] = battery_tests.equivalence(values, tolerance)
        found["independence"] = battery_tests.independence(values, testing.permutations, seed)
    if "minimality" in tests:
        found["minimality"], tested = battery_tests.minimality(setup, sample, testing)
    if "sufficiency" in tests:
        found["sufficiency"] = battery_tests.sufficiency(setup)
    if "necessity" in tests:
        found["necessity"] = battery_tests.necessity(setup)
    made = [found[name] for name in TESTS if name in tests]
    corrected = adjust([one.p for one in made], testing.correction).tolist()
    settings = {
        "alpha": testing.alpha, "correction": testing.correction, "tolerance": tolerance,
        "quantile": against.quantile, "reference": against.drawn or elements.null, "reference_size": against.size,
        "prompts": n, "reference_prompts": len(few), "n_random": n_random, "level": level,
        f"{noun}s_tested": len(tested), "permutations": testing.permutations, **setting.conditions.to_dict(),
        "of": setting.conditions.title(), "seed": seed,
    }  # fmt: skip
    decided = [replace(one, p_corrected=p, rejected=p <= testing.alpha) for one, p in zip(made, corrected, strict=True)]
    notes = _notes(n, n_random, against.quantile, tests, testing)
    return CircuitTests(tuple(decided), tested, settings, tuple(notes))


def _notes(n: int, n_random: int, quantile: float, tests: Sequence[str], testing: Testing) -> list[str]:
    notes = []
    if n < 16:
        notes.append(f"Only {n} prompts: equivalence and independence can hardly be rejected.")
    smallest = quantile**n_random * (len(tests) if testing.correction == "holm" else 1)
    if smallest > testing.alpha and {"sufficiency", "necessity"} & set(tests):
        notes.append(
            f"{n_random} random circuits are too few for quantile={quantile:g}: sufficiency and necessity may "
            "not be rejected even if all are beaten."
        )
    return notes
