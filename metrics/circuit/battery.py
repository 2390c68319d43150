"""Hypothesis tests of a circuit: equivalence, independence, minimality, sufficiency, partial necessity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from interp import numbers
from interp.errors import InputError, choose
from interp.kernels.evaluate import CircuitValues
from interp.objectives import Objective
from interp.running import door
from interp.setting import judged_under
from interp.tasks.task import Task
from metrics.circuit import battery_tests
from metrics.circuit.battery_result import CircuitTests, NullTest
from metrics.circuit.evaluate import checked_circuit, measure
from metrics.circuit.nulls import TOLERANCE
from metrics.circuit.samples import REFERENCES
from metrics.testing import CORRECTIONS, adjust

Mask = Bool[Tensor, "source target"]

TESTS = ("equivalence", "independence", "minimality", "sufficiency", "necessity")


@numbers.checked(
    tolerance=TOLERANCE, quantile=numbers.BETWEEN, random_circuits=numbers.COUNT, reference_prompts=numbers.COUNT,
    sample=numbers.COUNT, permutations=numbers.COUNT, alpha=numbers.BETWEEN,
)  # fmt: skip
@door
def circuit_tests(
    model: Any,
    task: Task,
    circuit: Any,
    *,
    tests: Sequence[str] = TESTS,
    tolerance: float = 0.1,
    quantile: float = 0.9,
    reference: str = "paths",
    reference_size: int | float | None = None,
    random_circuits: int = 60,
    reference_prompts: int | None = 16,
    sample: int | None = 40,
    permutations: int = 1000,
    ablation: str | None = None,
    objective: str | Objective | None = None,
    correction: str = "holm",
    alpha: float = 0.05,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    quiet: bool = False,
) -> CircuitTests:
    """Test the circuit hypothesis (Shi et al. 2024, arXiv:2410.13032): is this the part that does the task?

    s is the objective of a prompt, M the model, C the circuit, R a random circuit; d(A, B) is the mean over prompts of
    |s(A) - s(B)| (the authors' code squares the differences).

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
    all prompts, and over `reference_prompts` about 2 x `random_circuits` for sufficiency and necessity and `sample` +
    2 x `random_circuits` for minimality.

    Args:
        model: what `interp.load_model` returns.
        task: the prompts; use others than the circuit was chosen on.
        circuit: a `Circuit`, or a bool mask `[source, target]`.
        tests: those to make.
        tolerance: of the equivalence test, below 1/2; 0 asks for a fair coin.
        quantile: share of the reference that has to be beaten. Lower asks for less.
        reference: how random circuits are drawn: `paths` (paths from input to logits, as in the paper) or `grown` (from
            the logits upwards; small ones seldom reach the input).
        reference_size: their size for sufficiency: a number of edges or a share of all; None: that of the circuit.
        random_circuits: how many; with 0.9 and five tests fewer than 44 can never reject at 5 %.
        reference_prompts: so many prompts for the last three tests; None: all.
        sample: so many random edges for minimality; None: all.
        permutations: of the independence test.
        ablation, objective, batch_size, memory, quiet: as in `evaluate`.
        correction: of the p-values of the tests, and of the edges: `holm`, `bh`, `none`.
        alpha: level of the decisions.
        seed: of prompts, random circuits, edges and permutations.

    Returns:
        `CircuitTests`: `to_frame()`, `edges`, `["sufficiency"]`.

    Raises:
        InputError: an empty circuit, fewer than 2 prompts, unknown names, numbers out of range.
    """
    for name in tests:
        choose("tests", name, TESTS)
    choose("reference", reference, REFERENCES)
    choose("correction", correction, CORRECTIONS)
    if len(task) < 2:
        raise InputError(f"task={task.name!r} has {len(task)} prompts; the tests need at least 2")
    graph, mask = checked_circuit(model, circuit)
    judged = judged_under(circuit, task, ablation, objective)
    if not mask.any():
        raise InputError("circuit has no edges; there is nothing to test")
    few = task
    if reference_prompts is not None and reference_prompts < len(task):
        few, _ = task.split(reference_prompts / len(task), seed)

    def run(masks: list[Mask], prompts: Task) -> CircuitValues:
        return measure(
            model, prompts, torch.stack(masks), judged.ablation,
            objective=judged.objective, batch_size=batch_size, memory=memory, quiet=quiet,
        )  # fmt: skip

    setup = battery_tests.Setup(
        graph, mask, lambda masks: run(masks, few), quantile, reference, reference_size, random_circuits, seed
    )
    battery_tests.reference_edges(setup)  # refuses a size out of range before any work
    found: dict[str, NullTest] = {}
    edges = pd.DataFrame(columns=battery_tests.EDGE_COLUMNS)
    if {"equivalence", "independence"} & set(tests):
        values = run([mask, graph.edge_mask & ~mask], task)
        found["equivalence"] = battery_tests.equivalence(values, tolerance)
        found["independence"] = battery_tests.independence(values, permutations, seed)
    if "minimality" in tests:
        found["minimality"], edges = battery_tests.minimality(setup, sample, correction, alpha)
    if "sufficiency" in tests:
        found["sufficiency"] = battery_tests.sufficiency(setup)
    if "necessity" in tests:
        found["necessity"] = battery_tests.necessity(setup)
    made = [found[name] for name in TESTS if name in tests]
    corrected = adjust([one.p for one in made], correction).tolist()
    settings = {
        "alpha": alpha, "correction": correction, "tolerance": tolerance, "quantile": quantile, "reference": reference,
        "reference_size": reference_size, "prompts": len(task), "reference_prompts": len(few),
        "random_circuits": random_circuits, "edges_tested": len(edges), "permutations": permutations,
        **judged.on(task, graph.kv).to_dict(), "seed": seed,
    }  # fmt: skip
    decided = [replace(one, p_corrected=p, rejected=p <= alpha) for one, p in zip(made, corrected, strict=True)]
    notes = _notes(len(task), random_circuits, quantile, tests, correction, alpha)
    return CircuitTests(tuple(decided), edges, settings, tuple(notes))


def _notes(
    n: int, random_circuits: int, quantile: float, tests: Sequence[str], correction: str, alpha: float
) -> list[str]:
    notes = []
    if n < 16:
        notes.append(f"Only {n} prompts: equivalence and independence can hardly be rejected.")
    smallest = quantile**random_circuits * (len(tests) if correction == "holm" else 1)
    if smallest > alpha and {"sufficiency", "necessity"} & set(tests):
        notes.append(
            f"{random_circuits} random circuits are too few for quantile={quantile:g}: sufficiency and necessity may "
            "not be rejected even if all are beaten."
        )
    return notes
