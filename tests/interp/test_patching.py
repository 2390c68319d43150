"""Exact patching: against the bridge with hooks, in one go or in pieces."""

from __future__ import annotations

import functools
import math
import os

import pytest
import torch
from safetensors.torch import save_file

from attribution import attribute, patching
from interp import ComputationalGraph
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.ablation import ABLATIONS, Ablator
from interp.kernels.circuit import Edges
from interp.kernels.evaluate import Meter
from interp.objectives import Objective, get_objective
from tests import oracle
from tests.oracle import MODELS, TOLERANCE, error, mixed_task
from tests.tiny import shared, tiny

# into every kind of target, early and late
EDGES = (
    "input->a0.h0<q>", "input->a0.h1<k>", "input->a0.h2<v>", "input->m0", "a0.h3->a1.h1<q>", "m0->a1.h2<k>",
    "a0.h1->a1.h3<v>", "m0->m1", "a1.h0->a2.h0<q>", "m1->a2.h3<k>", "a0.h2->a2.h1<k>", "m1->a2.h2<v>",
    "input->a2.h2<v>", "a1.h3->m2", "a0.h0->m2", "input->logits", "a2.h1->logits", "m0->logits", "m2->logits",
)  # fmt: skip


def exact(name, edges=EDGES, task=None, model=None, **settings):
    model = model or oracle.model_of(name)
    return attribute(model, task or mixed_task(model), "exact", edges=edges, quiet=True, **settings).values


def effects(model, edges, ablations=("patch",)):
    """[ablation, edge], from the bridge alone."""
    return oracle.edge_effects(model, mixed_task(model).prompts(model), edges, ablations)


def at(values, graph, edges=EDGES):
    return torch.stack([values[graph.edge_index(edge)] for edge in edges])


def refuse_call(*_):
    raise AssertionError("nothing was left to do")


@pytest.mark.parametrize("name", MODELS)
def test_exact_scores_are_what_the_bridge_does_when_one_edge_is_patched(name):
    graph = ComputationalGraph.of(oracle.model_of(name))
    expected = effects(oracle.expanded(name), EDGES, ABLATIONS)
    for ablation, row in zip(ABLATIONS, expected, strict=True):
        values = exact(name, ablation=ablation)
        assert error(at(values, graph), row) < TOLERANCE, ablation
        assert int((values != 0).sum()) <= len(EDGES)  # nothing else was scored


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_exact_scores_of_a_group_patch_its_key_or_value_for_all_its_heads(name):
    edges = ("input->a0.h1<k>", "input->a0.h0<v>", "m0->a1.h1<v>", "a1.h2->a2.h0<k>", "m1->a2.h3<q>", "m2->logits")
    model = oracle.model_of(name)  # not the expanded one: its bridge has one key and one value per group
    graph = ComputationalGraph.of(model, kv="group")
    assert error(at(exact(name, edges, kv="group"), graph, edges), effects(model, edges)[0]) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_activation_patching_is_what_the_bridge_does_when_a_node_is_patched(name):
    model = oracle.model_of(name)
    expected = oracle.node_effects(model, mixed_task(model).prompts(model), ABLATIONS)
    for ablation, row in zip(ABLATIONS, expected, strict=True):
        ours = attribute(model, mixed_task(model), "activation-patching", ablation=ablation, quiet=True)
        assert ours.level == "node"
        assert error(ours.values, row) < TOLERANCE, ablation


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2"])
def test_patching_one_edge_is_running_the_circuit_without_that_edge(name, ablation):
    model = oracle.model_of(name)
    task, graph = mixed_task(model), ComputationalGraph.of(model)
    masks = graph.edge_mask.repeat(len(EDGES), 1, 1)
    for mask, edge in zip(masks, EDGES, strict=True):
        mask[graph.edge_index(edge)] = False
    anatomy, prompts = anatomy_of(model), task.prompts(model)
    ablator = Ablator.of(anatomy, ablation, prompts)
    values = Meter(Edges(anatomy, graph, ablator), prompts).values(masks, [get_objective("logit-difference")])[0]
    expected = (values.clean - values.circuits).mean(1)
    assert error(at(exact(name, ablation=ablation), graph), expected) < TOLERANCE


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 2}, {"memory": 1 << 20}], ids=str)
@pytest.mark.parametrize(("name", "ablation"), [("gpt2", "patch"), ("gemma2", "mean"), ("mixtral", "patch")])
def test_batches_and_stacks_change_nothing(name, ablation, settings):
    expected = exact(name, ablation=ablation)
    assert error(exact(name, ablation=ablation, **settings), expected) < TOLERANCE


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chosen", [(1, 2), (0, 1, 2)], ids=["from 3", "from 1"])
def test_skipping_the_shared_prefix_changes_nothing(name, chosen, monkeypatch):
    task = mixed_task(oracle.model_of(name), chosen)
    skipped = exact(name, task=task)
    monkeypatch.setattr(Ablator, "skip_prefix", False)
    assert error(skipped, exact(name, task=task)) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_padding_and_order_change_nothing_and_every_prompt_weighs_the_same(name):
    task = mixed_task(oracle.model_of(name))
    one_by_one = sum(exact(name, task=task.select([i])) for i in range(3)) / 3
    assert error(exact(name), one_by_one) < TOLERANCE
    assert error(exact(name, task=task.select([2, 0, 1])), one_by_one) < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "mixtral"])
def test_grouped_equals_expanded(name):
    expanded = exact(name, model=oracle.expanded(name))
    assert error(exact(name), expanded) < TOLERANCE


# ---- what is patched


def test_all_edges_are_patched_unless_told_otherwise():
    model = shared("gpt2", n_layer=1, n_head=2)
    graph = ComputationalGraph.of(model)
    values = attribute(model, mixed_task(model), "exact", quiet=True).values
    every = [*graph.edges()]
    assert len(every) == 3 * 2 + 3 + 4
    assert error(at(values, graph, every), effects(model, every)[0]) < TOLERANCE
    assert (values[~graph.edge_mask] == 0).all()


def test_a_mask_names_and_one_name_choose_the_same_edges():
    graph = ComputationalGraph.of(oracle.model_of("gpt2"))
    mask = torch.zeros_like(graph.edge_mask)
    for edge in EDGES:
        mask[graph.edge_index(edge)] = True
    before = mask.clone()
    assert exact("gpt2", mask).equal(exact("gpt2"))
    assert mask.equal(before)
    assert exact("gpt2", "m2->logits").equal(exact("gpt2", ["m2->logits"]))


def test_a_sample_is_drawn_from_the_edges_by_its_seed():
    model = oracle.model_of("gpt2")
    graph, task = ComputationalGraph.of(model), mixed_task(model)

    def patched(**settings):
        scores = attribute(model, task, "exact", quiet=True, **settings)
        assert scores.settings["n_edges_patched"] == settings["sample"]
        assert scores.seed == settings.get("seed", 0)
        return scores.values

    first, again, other = patched(sample=7, seed=1), patched(sample=7, seed=1), patched(sample=7, seed=2)
    assert first.equal(again)
    assert not (first != 0).equal(other != 0)
    assert int((first != 0).sum()) <= 7
    chosen = [graph.edge_name(*index) for index in first.nonzero().tolist()]
    assert error(at(first, graph, chosen), effects(model, chosen)[0]) < TOLERANCE
    among = patched(sample=3, edges=EDGES)
    indices = {graph.edge_index(edge) for edge in EDGES}
    assert {tuple(index) for index in among.nonzero().tolist()} <= indices
    everything = patched(sample=len(EDGES), edges=EDGES)
    assert everything.equal(exact("gpt2"))


def test_the_random_state_is_left_alone():
    before = torch.get_rng_state()
    attribute(oracle.model_of("gpt2"), mixed_task(oracle.model_of("gpt2")), "exact", sample=3, seed=9, quiet=True)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edges": ["a0.h0->logits", "m9->logits"]}, "edge='m9->logits' is not an edge"),
        ({"edges": ["m1->m0"]}, "m1 is not upstream of m0"),
        ({"edges": "input"}, "edge='input' is not an edge"),
        ({"edges": torch.ones(16, 40)}, "edges must be a torch.bool tensor of shape"),
        ({"edges": torch.ones(16, 40, dtype=torch.bool)}, "edges switches on .* edges that do not exist"),
        ({"sample": 0}, "sample=0 must be a whole number of at least 1"),
        ({"sample": -3}, "sample=-3"),
        ({"sample": 10**6}, "sample=1000000 must be a whole number from 1 to 262"),
        ({"sample": 4, "edges": ["m0->m1", "m0->m2", "m1->m2"]}, "sample=4 must be a whole number from 1 to 3"),
        ({"batch_size": 0, "edges": EDGES}, "batch_size=0 must be a whole number of at least 1"),
        ({"batch_size": -1, "edges": EDGES}, "batch_size=-1 must be a whole number of at least 1"),
        ({"memory": 1000, "edges": EDGES}, "memory=1000 must be a whole number of at least 1048576"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_choice_that_cannot_be_right_is_refused(settings, message):
    model = oracle.model_of("gpt2")
    with pytest.raises(InputError, match=message):
        attribute(model, mixed_task(model), "exact", quiet=True, **settings)


@pytest.mark.parametrize("setting", [{"edges": ["m0->m1"]}, {"sample": 2}])
def test_nodes_have_no_edges_to_choose_from(setting):
    model = oracle.model_of("gpt2")
    with pytest.raises(InputError, match="is no setting of method='activation-patching'"):
        attribute(model, mixed_task(model), "activation-patching", quiet=True, **setting)


def test_a_nan_objective_is_refused_and_the_prompt_named():
    model = oracle.model_of("gpt2")
    culprit = mixed_task(model).prompts(model).correct[0, 0]

    def broken(logits, prompts, clean):
        return torch.where(prompts.correct[:, 0] == culprit, math.nan, logits[:, 0])

    with pytest.raises(InputError, match="objective='broken' is NaN on prompt 0"):
        exact("gpt2", objective=broken)


def test_patching_never_brings_the_output_nearer_to_the_clean_run_than_itself():
    values = exact("gpt2", objective="kl")  # KL(clean || patched) is never negative
    assert (at(values, ComputationalGraph.of(oracle.model_of("gpt2"))) >= -1e-12).all()
    assert values.max() > 1e-4


def test_accuracy_can_be_patched_though_it_has_no_gradient():
    values = exact("gpt2", objective="accuracy")
    thirds = values * 3  # of three prompts
    assert (thirds - thirds.round()).abs().max() < 1e-12


# ---- interrupted and resumed


class Faulty:
    """An objective that raises once when it has been called so many times."""

    def __init__(self, after=None, error=KeyboardInterrupt):
        self.after, self.error, self.calls = after, error, 0

    def __call__(self, logits, prompts, clean):
        self.calls += 1
        if self.calls == self.after:
            raise self.error
        return logits[:, 3] - logits[:, 4]


def goal(function):
    return Objective("faulty", function)


@functools.cache
def in_one_go(method, batch_size):
    settings = {"edges": EDGES} if method == "exact" else {}
    model = oracle.model_of("llama")
    function = Faulty()
    values = attribute(
        model, mixed_task(model), method, objective=goal(function), batch_size=batch_size, quiet=True, **settings
    ).values
    return values, function.calls


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize(("method", "batch_size"), [("exact", None), ("exact", 2), ("activation-patching", 1)])
def test_an_interrupted_run_resumes_where_it_stopped(method, batch_size, error, tmp_path):
    model, file = oracle.model_of("llama"), tmp_path / "partial.safetensors"
    expected, calls = in_one_go(method, batch_size)
    settings = {"edges": EDGES} if method == "exact" else {}

    def patch(function):
        return attribute(
            model, mixed_task(model), method,
            objective=goal(function), batch_size=batch_size, resume=file, quiet=True, **settings,
        ).values  # fmt: skip

    interrupted = Faulty(after=2 * calls // 3, error=error)
    with pytest.raises(error):
        patch(interrupted)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]  # nothing half-written beside it
    rest = Faulty()
    assert patch(rest).equal(expected)
    assert rest.calls < calls  # what was done is not done again
    nothing = Faulty(after=2 * len(expected))
    assert patch(nothing).equal(expected)
    assert nothing.calls <= 3  # at most a check of the clean run per batch


def test_a_run_that_is_interrupted_at_once_can_be_resumed(tmp_path):
    file = tmp_path / "partial"
    with pytest.raises(KeyboardInterrupt):
        exact("llama", objective=goal(Faulty(after=1)), resume=file)
    assert exact("llama", objective=goal(Faulty()), resume=file).equal(in_one_go("exact", None)[0])


def test_progress_is_saved_while_it_runs(tmp_path, monkeypatch):
    # a kill gives no chance to save at the end
    monkeypatch.setattr("interp.resumed._SAVE_EVERY", 0.0)
    monkeypatch.setattr("attribution.exact.Patcher.edges_into", spy := Spy(tmp_path / "partial"))
    with pytest.raises(KeyboardInterrupt):
        exact("llama", resume=tmp_path / "partial")
    assert spy.existed == [False, True, True]


class Spy:
    """In the place of a patcher's method: looks whether the file is there, and interrupts the third time."""

    def __init__(self, path):
        self.path, self.existed = path, []

    def __call__(self, target, sources, spans):
        self.existed.append(self.path.exists())
        if len(self.existed) == 3:
            raise KeyboardInterrupt
        return torch.zeros(len(sources))


@pytest.mark.parametrize("damage", ["garbage", "cut", "empty", "other tensors"])
def test_a_damaged_resume_file_is_refused_and_left_as_it_is(damage, tmp_path):
    file = tmp_path / "partial"
    exact("gpt2", resume=file)
    whole = file.read_bytes()
    if damage == "other tensors":
        save_file({"x": torch.zeros(2)}, file)
    else:
        file.write_bytes({"garbage": b"no such thing" * 20, "cut": whole[:-20], "empty": b""}[damage])
    before = file.read_bytes()
    with pytest.raises(InputError, match="is not a resumable run, or is damaged"):
        exact("gpt2", resume=file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"edges": EDGES[:-1]},
        {"ablation": "mean"},
        {"objective": "probability-difference"},
        {"batch_size": 1},
        {"task": (1, 2)},
        {"name": "gptj"},
        {"kv": "group", "edges": EDGES},
        {"seed of the weights": 1},
        {"method": "activation-patching"},
    ],
    ids=str,
)
def test_a_resume_file_of_another_run_is_refused(change, tmp_path):
    file = tmp_path / "partial"
    exact("gpt2", resume=file)
    before = file.read_bytes()
    settings = {"edges": EDGES, "method": "exact", **change}
    model = oracle.model_of(settings.pop("name", "gpt2"))
    model = tiny("gpt2", seed=seed) if (seed := settings.pop("seed of the weights", None)) else model
    task = mixed_task(model, settings.pop("task", (0, 1, 2)))
    if settings["method"] != "exact":
        del settings["edges"]
    with pytest.raises(InputError, match="belongs to another run"):
        attribute(model, task, quiet=True, resume=file, **settings)
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["none/run", "", "pipe"])
def test_a_resume_file_that_cannot_be_one_is_refused_before_any_work(name, tmp_path):
    os.mkfifo(tmp_path / "pipe")

    def never(logits, prompts, clean):
        raise AssertionError("work was begun")

    with pytest.raises(InputError, match=r"resume=.*(make it first|is a folder|is no plain file)"):
        exact("gpt2", objective=never, resume=tmp_path / name)


def test_patched_copies_that_do_not_fit_are_halved_and_nothing_is_lost(monkeypatch):
    expected = exact("llama", edges=None)
    seen, unembed = [], patching.unembed

    def narrow(anatomy, x):
        seen.append(len(x))
        if len(x) > 6:
            raise torch.OutOfMemoryError("pretended")
        return unembed(anatomy, x)

    monkeypatch.setattr(patching, "unembed", narrow)
    assert error(exact("llama", edges=None), expected) < TOLERANCE
    assert max(seen) > 6


@pytest.mark.parametrize("edges", [[], torch.zeros(16, 40, dtype=torch.bool)], ids=["names", "mask"])
def test_no_edges_to_patch_are_refused(edges):
    with pytest.raises(InputError, match="edges names no edge"):
        exact("gpt2", edges=edges)


def test_half_an_edge_cannot_be_sampled():
    with pytest.raises(InputError, match=r"sample=2\.5 must be a whole number"):
        exact("gpt2", edges=None, sample=2.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0 must be"),
        ({"quadrature": "mine"}, "quadrature='mine' is unknown"),
        ({"credit": "x"}, "credit='x'"),
    ],
    ids=["steps", "quadrature", "credit"],
)
def test_settings_are_checked_and_refused_where_a_method_has_no_use_for_them(settings, message):
    model = oracle.model_of("gpt2")
    with pytest.raises(InputError, match=message):
        attribute(model, mixed_task(model), "eap-ig-activations", quiet=True, **settings)
    with pytest.raises(InputError, match=f"{next(iter(settings))} is no setting of method='eap'"):
        attribute(model, mixed_task(model), "eap", quiet=True, **settings)


def test_scores_do_not_depend_on_inference_mode():
    model = oracle.model_of("llama")
    task = mixed_task(model)
    expected = attribute(model, task, "eap-ig", quiet=True).values
    with torch.inference_mode():
        inside = attribute(model, task, "eap-ig", quiet=True).values
    assert error(inside, expected) < TOLERANCE


def test_opt_with_a_projected_embedding_is_refused_for_what_it_is():
    with pytest.raises(InputError, match="word_embed_proj_dim"):
        ComputationalGraph.of(tiny("opt", word_embed_proj_dim=8))
