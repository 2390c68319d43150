"""find_circuit on tiny random models: what it chooses on, what it reports, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from attribution.edges.gradient import EAPIG
from attribution.edges.method import Method
from attribution.scores import Scores
from circuits import Circuit, find_circuit
from interp.errors import InputError
from interp.kernels.evaluate import Meter
from interp.run import Run
from interp.selection import Selection, TopN, ladder, prune, top_n
from interp.setting import Setting
from interp.tasks.task import Task
from metrics import evaluate, faithfulness
from metrics.circuit.balance import Balanced
from metrics.circuit.samples import random_circuit
from tests.tiny import behaving, shared

N = 12


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return behaving(model, N)


@pytest.fixture(scope="module")
def circuit(model: Any, task: Task) -> Circuit:
    return find_circuit(model, task, quiet=True)


def clean_prompts(task: Task) -> set[Any]:
    return {example.clean for example in task.examples}


def test_a_seed_decides_everything(model: Any, task: Task, circuit: Circuit) -> None:
    again = find_circuit(model, task, quiet=True, batch_size=5)
    assert torch.equal(again.mask, circuit.mask)
    torch.testing.assert_close(again.scores.values, circuit.scores.values)
    assert again.report.faithfulness == pytest.approx(circuit.report.faithfulness)
    assert again.report.interval == pytest.approx(circuit.report.interval)
    assert again.report.random_faithfulness == pytest.approx(circuit.report.random_faithfulness)
    other = find_circuit(model, task, seed=1, quiet=True)
    assert not torch.equal(other.scores.values, circuit.scores.values)


def test_global_random_numbers_are_neither_used_nor_moved(model: Any, task: Task) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    find_circuit(model, task, edges=20, method="eap", quiet=True)
    assert torch.equal(torch.random.get_rng_state(), before)


@dataclass(frozen=True)
class Spied(EAPIG):
    """A method that tells which prompts it saw."""

    seen: list[set[Any]] = field(default_factory=list, compare=False)

    def scores(self, setting: Setting) -> Scores:
        self.seen.append(clean_prompts(setting.task))
        return super().scores(setting)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[frozenset[Any], list[bytes]]:
    """The circuits that are really run, by the prompts that they are run on."""
    found: dict[frozenset[Any], list[bytes]] = {}
    measure = Meter._measure

    def spy(self: Meter, circuits: dict[bytes, torch.Tensor], *rest: Any) -> None:
        found.setdefault(frozenset(map(tuple, self.prompts.clean.tolist())), []).extend(circuits)
        measure(self, circuits, *rest)

    monkeypatch.setattr(Meter, "_measure", spy)
    return found


def test_held_out_prompts_are_used_once_and_last(
    model: Any, task: Task, runs: dict[frozenset[Any], list[bytes]]
) -> None:
    method = Spied()
    found = find_circuit(model, task, method=method, quiet=True)
    (scored,) = method.seen
    sized, judged = runs  # in the order of their first run
    assert not sized & judged
    assert len(sized) == len(scored) == found.report.n_scoring == N / 2
    assert len(judged) == found.report.n_held_out == N / 2
    assert scored | {example.clean for example in task.split(0.5, 0)[1].examples} == clean_prompts(task)


def test_nothing_is_measured_twice(model: Any, task: Task, runs: dict[frozenset[Any], list[bytes]]) -> None:
    found = find_circuit(model, task, tests=True, ladder=True, quiet=True)
    scoring, held_out = runs.values()
    assert len(scoring) == len(set(scoring)) <= 1 + 5 * 10, "the balanced search is at most five circuits a size"
    assert len(held_out) == len(set(held_out))
    assert found.report.tests
    runs.clear()
    find_circuit(model, task, quiet=True)
    scoring, held_out = runs.values()
    assert len(scoring) == len(set(scoring)) <= 1 + 30
    runs.clear()
    find_circuit(model, task, selection="top-n", ladder=True, quiet=True)
    scoring, held_out = runs.values()
    assert len(scoring) <= 1 + 10
    assert len(held_out) == 1 + 1 + 3, "the empty circuit, the circuit and three random ones"


def test_share_of_prompts_that_score(model: Any, task: Task) -> None:
    report = find_circuit(model, task, edges=30, scoring_share=0.25, method="eap", quiet=True).report
    assert (report.n_scoring, report.n_held_out) == (3, 9)


@pytest.mark.parametrize("ablation", ["patch", "zero", "mean", "mean-positional"])
def test_report_is_what_evaluate_says_on_the_held_out_prompts(model: Any, task: Task, ablation: str) -> None:
    found = find_circuit(model, task, method="eap", edges=0.3, ablation=ablation, seed=3, quiet=True)
    report, graph = found.report, found.graph
    _, held_out = task.split(0.5, 3)
    masks = torch.stack((graph.edge_mask, torch.zeros_like(graph.edge_mask), found.mask))
    clean, empty, alone = evaluate(model, held_out, masks, ablation=ablation, quiet=True)
    assert report.per_prompt["clean"] == pytest.approx(clean.tolist())
    assert report.per_prompt["empty"] == pytest.approx(empty.tolist())
    assert report.per_prompt["circuit"] == pytest.approx(alone.tolist())
    assert (report.clean, report.corrupted, report.circuit) == pytest.approx(
        (float(clean.mean()), float(empty.mean()), float(alone.mean()))
    )
    expected = float((alone.mean() - empty.mean()) / (clean.mean() - empty.mean()))
    assert report.faithfulness == pytest.approx(expected)
    assert report.interval is not None
    assert report.interval[0] <= expected <= report.interval[1]
    assert (report.ablation, report.objective) == (ablation, "logit-difference")
    assert report.edges == int(found.mask.sum())
    assert report.nodes == found.n_nodes
    assert report.fraction == pytest.approx(report.edges / graph.n_edges)


def test_random_circuits_are_as_large_and_on_the_same_prompts(model: Any, task: Task) -> None:
    found = find_circuit(model, task, method="eap", edges=40, n_random=2, seed=7, quiet=True)
    _, held_out = task.split(0.5, 7)
    masks = torch.stack([random_circuit(found.graph, found.n_edges, seed) for seed in (7, 8)])
    means = evaluate(model, held_out, masks, quiet=True).mean(1)
    clean, empty = found.report.clean, found.report.corrupted
    assert clean is not None
    assert empty is not None
    expected = ((means - empty) / (clean - empty)).mean()
    assert found.report.random_faithfulness == pytest.approx(float(expected))
    assert found.report.random_interval is not None
    without = find_circuit(model, task, method="eap", edges=40, n_random=0, seed=7, quiet=True)
    assert without.report.random_faithfulness is None
    assert without.report.random_interval is None
    assert without.report.faithfulness == pytest.approx(found.report.faithfulness)


@pytest.mark.parametrize("goal", [None, 0.2, 0.97])
def test_the_smallest_rung_that_reaches_the_goal(model: Any, task: Task, goal: float | None) -> None:
    found = find_circuit(model, task, faithfulness=goal, selection="top-n", ladder=True, quiet=True)
    rungs, wanted = found.report.ladder, 0.85 if goal is None else goal
    assert [rung["size"] for rung in rungs] == list(ladder(found.graph))
    reached = [rung["faithfulness"] >= wanted for rung in rungs]
    first = reached.index(True)
    assert first > 0
    assert found.n_edges == rungs[first]["edges"]
    assert torch.equal(found.mask, found.scores.mask(rungs[first]["size"]))
    assert rungs[-1]["faithfulness"] == pytest.approx(1)
    assert rungs[-1]["edges"] == found.graph.n_edges


def test_rungs_are_measured_on_the_scoring_prompts(model: Any, task: Task) -> None:
    scoring, _ = task.split(0.5, 0)
    circuit = find_circuit(model, task, selection="top-n", ladder=True, quiet=True)
    graph = circuit.graph
    for rung in circuit.report.ladder[4::2]:
        masks = torch.stack((graph.edge_mask, torch.zeros_like(graph.edge_mask), circuit.scores.mask(rung["size"])))
        clean, empty, alone = evaluate(model, scoring, masks, quiet=True).mean(1).tolist()
        assert rung["faithfulness"] == pytest.approx((alone - empty) / (clean - empty))


def test_balanced_circuits_are_balanced_on_the_scoring_prompts(model: Any, task: Task) -> None:
    circuit = find_circuit(model, task, selection="balanced", ladder=True, quiet=True)
    setting = Setting(model, task, run=Run(quiet=True)).split(0.5, 0)[0]
    values, sizes = circuit.scores.values, ladder(circuit.graph)
    masks = [rule(values) for rule in Balanced().rules(setting, values, sizes)]
    reached = faithfulness(setting.measure(torch.stack(masks)))
    rungs = circuit.report.ladder
    assert [rung["edges"] for rung in rungs] == [int(mask.sum()) for mask in masks]
    assert [rung["faithfulness"] for rung in rungs] == pytest.approx([one.value for one in reached])
    first = next(i for i, one in enumerate(reached) if one.value >= 0.85)
    assert torch.equal(circuit.mask, masks[first])
    assert circuit.provenance["selection"] == "balanced"
    exact = find_circuit(model, task, edges=40, selection="balanced", quiet=True)
    assert exact.n_edges == 40, "edges are counted after pruning"


@dataclass(frozen=True)
class Weights(Method):
    """A third party's method: what it says does not matter."""

    sign: float = 1.0

    name = "weights"

    def values(self, setting: Setting) -> torch.Tensor:
        torch.manual_seed(0)
        return self.sign * torch.rand(setting.graph.shape) * setting.graph.edge_mask


@dataclass(frozen=True)
class Last(Selection):
    """A third party's selection: the edges of smallest score."""

    name = "last"

    def mask(self, scores: torch.Tensor, graph: Any, n: int) -> torch.Tensor:
        return top_n(-scores, graph, n, False)


def test_methods_and_selections_of_others(model: Any, task: Task) -> None:
    found = find_circuit(model, task, method=Weights(sign=2.0), selection=Last(), edges=40, quiet=True)
    assert (found.provenance["method"], found.provenance["selection"]) == ("weights", "last")
    assert found.scores.settings["sign"] == 2.0
    assert torch.equal(found.mask, Last().mask(found.scores.values, found.graph, 40))
    by_name = find_circuit(
        model, task, method=f"{__name__}:Weights", selection=f"{__name__}:Last", edges=40, quiet=True
    )
    assert torch.equal(by_name.mask, found.mask)
    assert by_name.provenance["selection"] == f"{__name__}:Last"


def test_objects_are_what_their_names_and_keywords_mean(model: Any, task: Task) -> None:
    named = find_circuit(model, task, method="eap-ig", steps=2, selection="top-n", absolute=False, edges=40, quiet=True)
    made = find_circuit(model, task, method=EAPIG(steps=2), selection=TopN(absolute=False), edges=40, quiet=True)
    assert torch.equal(named.mask, made.mask)
    assert named.provenance["selection_settings"] == {"absolute": False, "pruned": True}


def test_number_and_share_of_edges(model: Any, task: Task, circuit: Circuit) -> None:
    n = int(0.1 * circuit.graph.n_edges)
    by_number = find_circuit(model, task, edges=n, selection="top-n", quiet=True)
    by_share = find_circuit(model, task, edges=0.1, selection="top-n", quiet=True)
    assert torch.equal(by_number.mask, by_share.mask)
    assert torch.equal(by_number.mask, by_number.scores.mask(n))
    assert 0 < by_number.n_edges <= n
    assert by_number.report.ladder == []
    everything = find_circuit(model, task, edges=1.0, method="eap", quiet=True)
    assert everything.n_edges == circuit.graph.n_edges
    assert everything.report.faithfulness == pytest.approx(1)
    assert find_circuit(model, task, edges=1, method="eap", quiet=True).n_edges <= 1


def test_greedy_and_signed_selection(model: Any, task: Task) -> None:
    greedy = find_circuit(model, task, edges=30, selection="greedy", absolute=False, method="eap", quiet=True)
    assert torch.equal(greedy.mask, greedy.scores.mask(30, selection="greedy", absolute=False))
    assert torch.equal(prune(greedy.mask, greedy.graph), greedy.mask)
    assert greedy.provenance["selection"] == "greedy"


def test_key_value_groups_and_settings(model: Any, task: Task) -> None:
    found = find_circuit(model, task, edges=30, kv="group", steps=2, quiet=True)
    assert found.graph.shape[1] < find_circuit(model, task, edges=30, method="eap", quiet=True).graph.shape[1]
    assert found.scores.settings["steps"] == 2
    assert found.report.faithfulness is not None


def test_another_objective(model: Any, task: Task) -> None:
    found = find_circuit(model, task, edges=30, objective="log-probability", quiet=True)
    assert found.report.objective == "log-probability"
    assert max(found.report.per_prompt["clean"]) <= 0  # type: ignore[type-var]


def test_provenance(task: Task, circuit: Circuit) -> None:
    provenance = circuit.provenance
    assert provenance["task"] == task.to_dict()
    assert provenance["method"] == "eap-ig"
    assert provenance["seed"] == 0
    assert provenance["settings"]["steps"] == 5
    assert circuit.scores.n_prompts == N / 2


def test_no_behaviour_is_said(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    report = find_circuit(model, behaving(model, 8, turned=True), edges=30, method="eap", quiet=True).report
    assert any("no behaviour to explain" in note for note in report.notes)
    assert any("Only 4 held-out prompts" in note for note in report.notes)
    assert "no behaviour to explain" in caplog.text


def test_notes(model: Any, task: Task) -> None:
    half = find_circuit(model, task, edges=0.9, method="eap", quiet=True).report
    assert any("more than half of all edges" in note for note in half.notes)
    assert not any("no behaviour" in note for note in half.notes)
    many = find_circuit(model, behaving(model, 32), edges=20, method="eap", quiet=True).report
    assert many.notes == []


@pytest.mark.parametrize("method", ["attribution-patching", "activation-patching"])
def test_methods_that_score_nodes_are_refused(model: Any, task: Task, method: str) -> None:
    with pytest.raises(InputError, match=f"method='{method}' scores nodes"):
        find_circuit(model, task, method=method, quiet=True)


def test_four_prompts_are_needed(model: Any) -> None:
    with pytest.raises(InputError, match="has 3 prompts; find_circuit needs at least 4"):
        find_circuit(model, behaving(model, 3), quiet=True)
    assert find_circuit(model, behaving(model, 4), edges=10, method="eap", quiet=True).report.n_held_out == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edges": 10, "faithfulness": 0.9}, "edges=10 and faithfulness=0.9 are two ways to choose a size"),
        ({"edges": 0}, "edges=0 must be a whole number of at least 1"),
        ({"edges": -3}, "edges=-3 must be"),
        ({"edges": 1.5}, "edges=1.5 must be"),
        ({"edges": True}, "edges=True must be"),
        ({"edges": 100_000}, "out of range"),
        ({"faithfulness": 0.0}, "faithfulness=0.0 must be a number above 0"),
        ({"faithfulness": 1.2}, "faithfulness=1.2 must be a number"),
        ({"faithfulness": float("nan")}, "faithfulness=nan must be a finite number"),
        ({"method": "eap_ig"}, "method='eap_ig' is unknown; did you mean 'eap-ig'"),
        ({"ablation": "patching"}, "ablation='patching' is unknown; did you mean 'patch'"),
        ({"ablation": "zero"}, "method='eap-ig' follows a path between two prompts"),
        ({"objective": "accuracy"}, "has no gradient"),
        ({"objective": "logit-diff"}, "objective='logit-diff' is unknown; did you mean 'logit-difference'"),
        ({"selection": "topn"}, "selection='topn' is unknown; did you mean 'top-n'"),
        ({"absolute": False}, "absolute is no setting of selection='balanced', which takes: steps"),
        ({"random_circuits": 1}, "find_circuit takes no random_circuits: it is called n_random now"),
        ({"stable": True, "stable_share": 0.5}, r"stable=Stable\(share=0.75\), from circuits"),
        ({"stable": True, "resamples": 5}, r"bootstrap draws of intervals now; .* stable=Stable\(resamples=20\)"),
        ({"scoring_share": 1.0}, "scoring_share=1.0 must be a number above 0 and below 1"),
    ],
)
def test_what_cannot_be_right_is_refused(model: Any, task: Task, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_circuit(model, task, quiet=True, **settings)
