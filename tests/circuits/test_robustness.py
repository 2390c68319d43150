"""Robustness of a circuit: every row against `evaluate`, templates, exchanged counterfactuals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from attribution import attribute
from circuits import Circuit, robustness
from interp import tasks
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.kernels.ablation import ABLATIONS
from interp.models import load_model
from interp.node_mask import NodeMask
from interp.result import Result
from interp.setting import Setting
from interp.tasks.resampled import resampled
from interp.tasks.task import Task
from interp.tasks.templates import by_template
from metrics import evaluate, measure
from metrics.circuit.controls import random_nodes
from metrics.circuit.samples import random_paths
from tests.interp.tasks.test_tasks_support import every_word
from tests.tiny import LAYERS, MLP, behaving, shared, tiny_module


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def task(model: Any) -> Task:
    return behaving(model, 10)


@pytest.fixture(scope="module")
def circuit(model: Any, task: Task) -> Circuit:
    scores = attribute(model, task, "eap", quiet=True)
    return Circuit(scores, scores.mask(80))


def by_hand(model: Any, task: Task, mask: torch.Tensor, ablation: str, objective: str | None) -> float:
    graph = ComputationalGraph.of(model)
    masks = torch.stack((graph.edge_mask, torch.zeros_like(mask), mask))
    clean, empty, alone = evaluate(model, task, masks, ablation=ablation, objective=objective, quiet=True).mean(1)
    return float((alone - empty) / (clean - empty))


def test_every_row_is_what_evaluate_says(model: Any, task: Task, circuit: Circuit) -> None:
    found = robustness(model, task, circuit, n_random=2, others={"half": task.select(range(5))}, quiet=True)
    frame = found.frame.set_index(["varied", "setting"])
    assert frame.index[0] == ("as found", "patch, logit-difference")
    exchanged = resampled(task, model, 0)
    for (varied, setting), row in frame.iterrows():
        used = exchanged if setting == "resampled" else task.select(range(5)) if varied == "prompts" else task
        ablation = setting if setting in ("zero", "mean", "mean-positional") else "patch"
        objective = setting if varied == "objective" else None
        assert row["n"] == len(used)
        assert row["faithfulness"] == pytest.approx(by_hand(model, used, circuit.mask, ablation, objective), rel=1e-6)
        others = [random_paths(circuit.graph, circuit.n_edges, i) for i in range(2)]
        beside = [by_hand(model, used, one, ablation, objective) for one in others]
        assert row["random"] == pytest.approx(sum(beside) / 2, rel=1e-6)
    settings = [setting for varied, setting in frame.index if varied == "ablation"]
    assert settings == ["zero", "mean", "mean-positional", "resampled"]
    assert [s for v, s in frame.index if v == "objective"] == ["probability-difference", "log-probability", "kl"]
    assert "as found (logit-difference under patch ablation)" in repr(found)
    assert "<table" in found._repr_html_()
    assert len(found.figure().data) == 2
    assert len(found.to_frame()) == len(frame)


def test_every_row_of_nodes_is_what_measure_says(model: Any, task: Task) -> None:
    mask = NodeMask(torch.rand(LAYERS, MLP, generator=torch.Generator().manual_seed(2)) < 0.4, "neuron")
    found = robustness(model, task, mask, n_random=2, others={"half": task.select(range(5))}, quiet=True)
    others = random_nodes(Setting(model, task), [mask], 2, 0)
    stack = torch.stack([one.mask for one in (mask, *others)])
    exchanged, rows = resampled(task, model, 0), found.frame.to_dict("records")
    assert [row["setting"] for row in rows[:5]] == ["patch, logit-difference", *ABLATIONS[1:], "resampled"]
    for row in rows:
        used = (
            exchanged
            if row["setting"] == "resampled"
            else task.select(range(5))
            if row["varied"] == "prompts"
            else task
        )
        values = measure(
            model, used, stack, level="neuron", quiet=True,
            ablation=row["setting"] if row["setting"] in ABLATIONS else "patch",
            objective=row["setting"] if row["varied"] == "objective" else None,
        )  # fmt: skip
        reached = (values.circuits.mean(1) - values.empty.mean()) / (values.clean.mean() - values.empty.mean())
        assert row["faithfulness"] == pytest.approx(float(reached[0]), rel=1e-6)
        assert row["random"] == pytest.approx(float(reached[1:].mean()), rel=1e-6)


def test_the_base_is_the_ablation_that_the_circuit_was_found_under(model: Any, task: Task) -> None:
    scores = attribute(model, task, "eap", ablation="zero", quiet=True)
    frame = robustness(model, task, Circuit(scores, scores.mask(80)), n_random=0, objectives=(), quiet=True).frame
    assert frame["setting"].tolist() == ["zero, logit-difference", "patch", "mean", "mean-positional", "resampled"]
    assert frame["random"].isna().all()
    frame = robustness(model, task, scores.mask(80), n_random=0, objectives=(), ablations=(), quiet=True).frame
    assert frame["setting"].tolist() == ["patch, logit-difference"]


def test_objectives_that_prompts_do_not_allow_are_left_out(model: Any, circuit: Circuit) -> None:
    ids = torch.randint(5, 50, (6, 5), generator=torch.Generator().manual_seed(0))
    task = Task.from_tokens("no rival", ids, ids.roll(1, 0), ids[:, 0], objective="log-probability")
    frame = robustness(model, task, circuit, n_random=0, ablations=(), quiet=True).frame
    assert "logit-difference" not in frame["setting"].tolist()
    assert "kl" in frame["setting"].tolist()


def test_templates_split_a_built_in_task() -> None:
    task = tasks.ioi(n=60)
    names = [str(example.clean) for example in task.examples]
    texts = [t for e in task.examples for t in (str(e.clean), str(e.corrupted), str(e.correct[0]), str(e.incorrect[0]))]
    tokenizer = every_word(*texts)
    model = load_model(tiny_module("gpt2", torch.float64, vocab_size=len(tokenizer)), tokenizer=tokenizer)
    mask = ComputationalGraph.of(model).edge_mask
    frame = robustness(model, task, mask, n_random=0, ablations=(), objectives=(), quiet=True).frame
    wordings = frame[frame["varied"] == "template"]
    assert wordings["n"].sum() == 60
    assert wordings["faithfulness"].to_numpy() == pytest.approx(1)
    first = wordings.iloc[0]
    assert first["setting"].startswith("When {first}")
    assert first["n"] == sum(name.startswith("When ") for name in names)


@pytest.mark.parametrize("name", ["ioi", "greater_than", "agreement", "pronoun", "capitals"])
def test_every_prompt_has_a_template(name: str) -> None:
    task = tasks.get(name, n=40)
    groups = by_template(task)
    assert len(groups) > 1
    assert sorted(number for group in groups.values() for number in group) == list(range(40))


def test_templates_of_ones_own_and_none() -> None:
    own = tasks.ioi(n=6, templates=["Here {first} and {second} met; {subject} waved to"])
    assert by_template(own) == {"Here {first} and {second} met; {subject} waved to": list(range(6))}
    assert by_template(tasks.arithmetic(n=4)) == {}
    assert by_template(Task.from_tokens("ioi", [[0, 1]], [[0, 2]], [[3]], [[4]])) == {}


def test_counterfactuals_are_exchanged_within_a_length(model: Any) -> None:
    task = behaving(model, 9)
    found = resampled(task, model, seed=1)
    before, after = task.prompts(model), found.prompts(model)
    assert torch.equal(before.clean, after.clean)
    assert torch.equal(before.correct, after.correct)
    assert sorted(before.corrupted.tolist()) == sorted(after.corrupted.tolist())
    assert (before.corrupted != after.corrupted).any(1).all()
    assert torch.equal(resampled(task, model, seed=1).prompts(model).corrupted, after.corrupted)
    assert found.parameters["resampled"] == 1
    with pytest.raises(InputError, match="no two prompts of one length"):
        resampled(task.select([0]), model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ablations": ["resample"]}, "ablations='resample' is unknown; did you mean 'resampled'"),
        ({"objectives": ["logits"]}, "objective='logits' is unknown"),
        ({"n_random": -1}, "n_random=-1"),
        ({"random": 1}, "robustness takes no random: it is called n_random now"),
    ],
)
def test_bad_input_is_refused(model: Any, task: Task, circuit: Circuit, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        robustness(model, task, circuit, quiet=True, **settings)


def test_the_order_of_0_1_is_refused_with_the_new_one(model: Any, task: Task, circuit: Circuit) -> None:
    with pytest.raises(InputError, match=r"is called in the order robustness\(model, task, circuit\) now"):
        robustness(model, circuit, task, quiet=True)  # type: ignore[arg-type]


def test_it_is_kept_in_a_file(model: Any, task: Task, circuit: Circuit, tmp_path: Path) -> None:
    found = robustness(model, task, circuit, n_random=0, objectives=(), quiet=True)
    again = Result.load(found.save(tmp_path / "robustness.json"))
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert repr(again) == repr(found)
