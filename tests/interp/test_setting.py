"""What a circuit was found under: it remembers it, its file keeps it, and whatever takes a circuit judges it so."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import metrics
from attribution import attribute
from circuits import Circuit, find_circuit, robustness
from interp import ComputationalGraph
from interp.conditions import Conditions
from interp.errors import InputError
from interp.setting import Setting
from interp.tasks.task import Task
from metrics.circuit.samples import random_circuit, random_paths
from tests.tiny import shared, tiny, tiny_task


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return tiny_task(model, 8)


find = functools.partial(find_circuit, method="eap", edges=40, selection="top-n", n_random=0, quiet=True)
UNDER: dict[str, Any] = {"ablation": "zero", "objective": "log-probability"}


@pytest.fixture(scope="module")
def circuit(model: Any, task: Task) -> Circuit:
    return find(model, task, kv="group", **UNDER)


def twice_the_first_logit(logits: torch.Tensor, prompts: Any, clean: torch.Tensor | None) -> torch.Tensor:
    return 2 * logits[:, 0]


# ---- it remembers, and its file keeps it


def test_a_circuit_remembers_what_it_was_found_under(circuit: Circuit, task: Task, tmp_path: Path) -> None:
    digest = task.to_dict()["sha256"]
    kept = {"ablation": "zero", "objective": "log-probability", "kv": "group", "task": digest}
    assert circuit.setting.to_dict() == kept
    path = circuit.save(tmp_path / "c")
    assert json.loads(path.read_text())["setting"] == kept
    assert Circuit.load(path).setting.to_dict() == kept


def test_a_circuit_may_be_given_another_setting_than_its_scores(circuit: Circuit, tmp_path: Path) -> None:
    other = Circuit(circuit.scores, circuit.mask, setting=Conditions("mean", "kl"))
    loaded = Circuit.load(other.save(tmp_path / "c"))
    assert (loaded.setting.ablation, loaded.setting.objective) == ("mean", "kl")
    assert loaded.scores.setting.ablation == "zero"


def test_files_of_the_first_version_take_the_setting_of_their_scores(circuit: Circuit, tmp_path: Path) -> None:
    path = circuit.save(tmp_path / "c")
    content = json.loads(path.read_text())
    del content["setting"]
    path.write_text(json.dumps({**content, "version": 1}))
    assert Circuit.load(path).setting.to_dict() == circuit.setting.to_dict()


def test_the_format_of_eap_ig_keeps_it_too(circuit: Circuit, tmp_path: Path) -> None:
    other = Circuit(circuit.scores, circuit.mask, setting=Conditions("mean", "kl"))
    read = Circuit.from_eap_ig_json(other.to_eap_ig_json(tmp_path / "c.json"))
    assert (read.setting.ablation, read.setting.objective) == ("mean", "kl")


def test_a_setting_that_is_none_is_damage(circuit: Circuit, tmp_path: Path) -> None:
    path = circuit.save(tmp_path / "c")
    content = json.loads(path.read_text())
    content["setting"] = {"ablation": 3, "objective": None, "kv": None, "task": None}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is damaged: setting"):
        Circuit.load(path)


def test_what_knows_of_no_setting_is_judged_by_patch_and_the_tasks_objective(model: Any, task: Task) -> None:
    mask = random_paths(ComputationalGraph.of(model), 60, 0)
    explicit = metrics.evaluate(model, task, mask, ablation="patch", objective=task.objective, quiet=True)
    assert torch.allclose(metrics.evaluate(model, task, mask, quiet=True), explicit, atol=1e-10)


# ---- whatever takes a circuit


def _float(result: Any) -> torch.Tensor:
    if isinstance(result, torch.Tensor):
        return result.double()
    for name in ("values", "gaps", "frame"):
        found = getattr(result, name, None)
        if name == "gaps" and found:
            return torch.tensor([one.value for one in found])
        if name == "values" and found is not None:
            return torch.cat([found.circuits.flatten()]) if hasattr(found, "circuits") else torch.as_tensor(found)
    numbers = result.to_frame().select_dtypes("number")
    return torch.tensor(numbers.to_numpy(dtype=float))


JUDGES: dict[str, Callable[..., Any]] = {
    "evaluate": metrics.evaluate,
    "completeness": functools.partial(metrics.completeness, sets=2),
    "minimality": functools.partial(metrics.minimality, sets=1, sample=4),
    "prompt_faithfulness": metrics.prompt_faithfulness,
    "circuit_tests": functools.partial(metrics.circuit_tests, n_random=3, sample=2, permutations=20),
    "faithfulness_curve": lambda model, task, circuit, **k: metrics.faithfulness_curve(
        model, task, circuit.scores if isinstance(circuit, Circuit) else circuit, **k
    ),
    "circuit_saco": lambda model, task, circuit, **k: metrics.circuit_saco(
        model, task, circuit.scores if isinstance(circuit, Circuit) else circuit, groups=4, **k
    ),
    "recursive_curve": lambda model, task, circuit, **k: metrics.recursive_curve(
        model, task, circuit.scores if isinstance(circuit, Circuit) else circuit, (0.1, 0.5), n_random=1, **k
    ),
}


@pytest.mark.parametrize("name", JUDGES)
def test_a_circuit_is_judged_under_its_own_setting_unless_told_otherwise(
    name: str, model: Any, task: Task, circuit: Circuit
) -> None:
    judge = functools.partial(JUDGES[name], model, task, quiet=True)
    bare = circuit.scores.values if name in ("faithfulness_curve", "circuit_saco", "recursive_curve") else circuit.mask
    own, asked, patched = judge(circuit), judge(bare, **UNDER), judge(bare)
    assert torch.allclose(_float(own), _float(asked), atol=1e-9, equal_nan=True)
    assert not torch.allclose(_float(own), _float(patched), atol=1e-4, equal_nan=True)
    told = judge(circuit, ablation="patch", objective=task.objective)
    assert torch.allclose(_float(told), _float(patched), atol=1e-9, equal_nan=True)
    if name != "evaluate":
        known = own.settings if name == "circuit_tests" else own.setting.to_dict()
        assert (known["ablation"], known["objective"]) == ("zero", "log-probability")
        assert known["task"] == task.to_dict()["sha256"]
        assert "log-probability under zero ablation" in repr(own)


def test_output_agreement_is_under_the_circuits_ablation(model: Any, task: Task, circuit: Circuit) -> None:
    judge = functools.partial(metrics.output_agreement, model, task, n_random=0, quiet=True)
    own = judge(circuit)
    assert own.kl.value == pytest.approx(judge(circuit.mask, ablation="zero").kl.value)
    assert own.kl.value != pytest.approx(judge(circuit.mask).kl.value, rel=1e-3)
    assert own.setting.to_dict() == {**circuit.setting.to_dict(), "objective": None}
    assert "under zero ablation" in repr(own)


def test_the_methods_tests_and_robustness_keep_ablation_and_objective(model: Any, task: Task, circuit: Circuit) -> None:
    made = circuit.test(model, task, tests=["equivalence"], quiet=True)
    asked = metrics.circuit_tests(model, task, circuit.mask, tests=["equivalence"], quiet=True, **UNDER)
    assert made["equivalence"].observed == asked["equivalence"].observed
    assert (made.settings["ablation"], made.settings["objective"]) == ("zero", "log-probability")
    row = robustness(model, task, circuit, ablations=(), objectives=(), n_random=0, quiet=True).frame.iloc[0]
    assert row["setting"] == "zero, log-probability"
    assert row["circuit"] == pytest.approx(float(metrics.evaluate(model, task, circuit, quiet=True).mean()))


def test_scores_inside_a_circuit_are_made_under_its_setting(model: Any, task: Task, circuit: Circuit) -> None:
    settings: dict[str, Any] = {"kv": "group", "quiet": True}
    own = attribute(model, task, "eap", inside=circuit, **settings)
    asked = attribute(model, task, "eap", inside=circuit.mask, **UNDER, **settings)
    assert torch.allclose(own.values, asked.values, atol=1e-10)
    assert (own.ablation, own.settings["objective"]) == ("zero", "log-probability")


def test_what_the_prompts_do_not_allow_is_refused(model: Any, task: Task) -> None:
    found = find(model, task)
    ids = torch.randint(5, 50, (4, 5), generator=torch.Generator().manual_seed(0))
    alone = Task.from_tokens("no rival", ids, ids.roll(1, 0), ids[:, 0], objective="log-probability")
    with pytest.raises(InputError, match="'logit-difference' contrasts"):
        metrics.evaluate(model, alone, found, quiet=True)
    assert metrics.evaluate(model, alone, found, objective="log-probability", quiet=True).isfinite().all()


# ---- objectives of a user's own


def test_an_objective_of_ones_own_is_kept_in_memory_and_known_by_name_in_a_file(
    model: Any, task: Task, tmp_path: Path
) -> None:
    found = find(model, task, objective=twice_the_first_logit)
    own = metrics.evaluate(model, task, found, quiet=True)
    asked = metrics.evaluate(model, task, found.mask, objective=twice_the_first_logit, quiet=True)
    assert torch.allclose(own, asked, atol=1e-10)
    loaded = Circuit.load(found.save(tmp_path / "c"))
    assert loaded.setting.objective == "twice_the_first_logit"
    for judge in (metrics.evaluate, metrics.prompt_faithfulness):
        with pytest.raises(InputError, match="'twice_the_first_logit', a function of which its file holds the name"):
            judge(model, task, loaded, quiet=True)
    again = metrics.evaluate(model, task, loaded, objective=twice_the_first_logit, quiet=True)
    assert torch.allclose(again, own, atol=1e-10)
    # a task with that objective says what it is
    by_task = metrics.evaluate(model, task.with_objective(twice_the_first_logit), loaded, quiet=True)
    assert torch.allclose(by_task, own, atol=1e-10)


def test_a_graph_of_eap_ig_does_not_say_what_it_was_found_under(model: Any, task: Task, tmp_path: Path) -> None:
    found = find(model, task)
    plain = json.loads(found.to_eap_ig_json(tmp_path / "c.json").read_text())
    path = tmp_path / "d.json"
    path.write_text(json.dumps({key: plain[key] for key in ("cfg", "nodes", "edges")}))
    read = Circuit.from_eap_ig_json(path)
    assert (read.setting.ablation, read.setting.objective) == (None, None)
    assert torch.allclose(
        metrics.evaluate(model, task, read, quiet=True), metrics.evaluate(model, task, found, quiet=True), atol=1e-10
    )


# ---- one null model


def test_random_circuits_are_paths_everywhere_unless_asked_for(model: Any, task: Task) -> None:
    graph = ComputationalGraph.of(model)
    n, seed = 12, 3
    assert torch.equal(random_circuit(graph, n, seed), random_paths(graph, n, seed))
    assert not torch.equal(random_circuit(graph, n, seed, "grown"), random_paths(graph, n, seed))
    assert random_circuit(graph, n, seed)[0].any()  # they reach the input
    with pytest.raises(InputError, match="reference='grow'"):
        random_circuit(graph, n, seed, "grow")


def _mean(model: Any, task: Task, masks: list[torch.Tensor]) -> float:
    values = metrics.circuit.evaluate.measure(model, task, torch.stack(masks), quiet=True)
    clean, empty = values.clean.mean(), values.empty.mean()
    return float(((values.circuits.mean(1) - empty) / (clean - empty)).mean())


@pytest.mark.parametrize("reference", ["paths", "grown"])
def test_the_null_model_of_reports_curves_and_comparisons(model: Any, task: Task, reference: str) -> None:
    from circuits import compare_methods

    found = find(model, task, n_random=2, seed=5, reference=reference)
    held_out = task.split(0.5, 5)[1]
    beside = [random_circuit(found.graph, found.n_edges, 5 + i, reference) for i in range(2)]
    assert found.report.random_faithfulness == pytest.approx(_mean(model, held_out, beside))
    curve = metrics.faithfulness_curve(model, task, found.scores, n_random=2, seed=5, reference=reference, quiet=True)
    assert curve.random is not None
    for point, edges in zip(curve.random, curve.edges, strict=True):
        drawn = [random_circuit(found.graph, edges, 5 + i, reference) for i in range(2)]
        assert point.value == pytest.approx(_mean(model, task, drawn), abs=1e-9)
    compared = compare_methods(model, task, ["eap"], n_random=1, seed=5, reference=reference, resamples=20, quiet=True)
    row = compared.points[compared.points["method"] == "random"].iloc[3]
    drawn = [random_circuit(found.graph, int(row["edges"]), 5, reference)]
    assert row["faithfulness"] == pytest.approx(_mean(model, held_out, drawn), abs=1e-9)


def test_replacing_a_mask_keeps_the_setting(circuit: Circuit) -> None:
    assert replace(circuit, mask=circuit.mask.clone()).setting == circuit.setting


# ---- a setting outlives an edit of the weights


@pytest.mark.parametrize("ablation", ["patch", "mean"])
def test_a_setting_that_is_kept_measures_anew_after_an_edit_of_the_weights(ablation: str) -> None:
    model = tiny("llama", seed=3)
    task = tiny_task(model, 4)
    kept = Setting(model, task, ablation)
    mask = random_circuit(kept.graph, 100, seed=0)[None]
    before, norms = kept.measure(mask), kept.node_norms("neuron")
    assert kept.node_norms("neuron") is norms
    shared = kept.under(objective="log-probability")
    with torch.no_grad():
        model.original_model.model.layers[0].mlp.down_proj.weight.mul_(2.0)
    for after, fresh in (
        (kept, Setting(model, task, ablation)),
        (shared, Setting(model, task, ablation, "log-probability")),
    ):
        found, wanted = after.measure(mask), fresh.measure(mask)
        for name in ("clean", "empty", "circuits"):
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-12)
        torch.testing.assert_close(after.node_norms("neuron"), fresh.node_norms("neuron"), rtol=0, atol=1e-12)
    torch.testing.assert_close(kept.node_norms("neuron")[0], 2 * norms[0])
    assert (kept.measure(mask).clean - before.clean).abs().min() > 1e-3
    assert kept.meter is kept.meter
    model.original_model.lm_head.weight = torch.nn.Parameter(2 * model.original_model.lm_head.weight.detach())
    again = kept.measure(mask).clean
    torch.testing.assert_close(again, Setting(model, task, ablation).measure(mask).clean, rtol=0, atol=1e-12)
