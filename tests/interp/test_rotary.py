"""Rotary tables and query scales that depend on a prompt's length or positions: against transformers, prompt by prompt.

The reference is the transformers module itself, a copy of it for every length, called on one prompt at a time.
"""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from attribution import attribute, decompose, relevance, tokens
from interp import ComputationalGraph, Task, load_model
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels import frame
from interp.kernels.answers import answer_logits
from interp.rotary import QueryScale, Rotary
from interp.tasks.prompts import Prompts
from metrics import evaluate
from tests import oracle
from tests.oracle import TOLERANCE, error
from tests.tiny import MLP, VOCAB, stay_in_float64, tiny_module

ORIGINAL = 8  # tokens that a model was trained for; prompts are shorter and longer
_LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_key_value_heads": 4, "max_position_embeddings": 32}
_DEFAULT = {"rope_type": "default", "rope_theta": 1e4}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": ORIGINAL}


def longrope(pairs: int = 4) -> dict[str, Any]:
    """The issue's: long factors 1.5, 2, 3, 4."""
    factors = {"short_factor": [1.0] * pairs, "long_factor": [1.5, 2.0, 3.0, 4.0][:pairs]}
    return {**_YARN, "rope_type": "longrope", **factors}


# name: (tiny model, configuration)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": ("llama", {**_LLAMA, "rope_parameters": longrope()}),
    "dynamic": ("llama", {**_LLAMA, "rope_parameters": _DYNAMIC, "max_position_embeddings": ORIGINAL}),
    "gemma3-longrope": (
        "gemma3",
        {"rope_parameters": {"full_attention": longrope(3), "sliding_attention": _DEFAULT}},
    ),
    "gemma3-dynamic": (
        "gemma3",
        {
            "rope_parameters": {"full_attention": _DYNAMIC, "sliding_attention": _DEFAULT},
            "max_position_embeddings": ORIGINAL,
        },
    ),
    "neox-dynamic": (
        "gpt_neox",
        {
            "hidden_size": 32,
            "rope_parameters": {**_DYNAMIC, "partial_rotary_factor": 0.5},
            "max_position_embeddings": ORIGINAL,
        },
    ),
    "phi3-longrope": ("phi3", {**_LLAMA, "rope_parameters": longrope(), "original_max_position_embeddings": ORIGINAL}),
    "query-scale": ("ministral3", {**_LLAMA, "rope_parameters": {**_YARN, "llama_4_scaling_beta": 0.5}}),
}
BY_LENGTH = [name for name in KINDS if name != "query-scale"]


@functools.cache
def module_of(name: str) -> nn.Module:
    """The transformers module, which is never called: only its copies are."""
    kind, settings = KINDS[name]
    return tiny_module(kind, **settings)


@functools.cache
def copy_for(name: str, length: int) -> Any:
    """A copy of the module that only runs prompts of this length."""
    module = copy.deepcopy(module_of(name))
    stay_in_float64(module)
    return module


def fresh(name: str) -> Any:
    """A model as `load_model` returns it, that has run nothing."""
    model = load_model(copy.deepcopy(module_of(name)))
    stay_in_float64(model)
    return model


model_of = functools.cache(fresh)


@functools.cache
def model_for(name: str, length: int) -> Any:
    """A model that only runs prompts of this length."""
    return fresh(name)


@functools.cache
def unread(name: str) -> Any:
    """A model that passes no check: it is only asked about when something is broken."""
    return fresh(name)


@torch.no_grad()
def alone(name: str, row: Tensor) -> Tensor:
    """The module's logits [pos, d_vocab] on one prompt."""
    return copy_for(name, len(row))(row[None]).logits[0]


def task_of(*lengths: int) -> Task:
    """Prompts whose counterfactuals differ at position 5, and at the last."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(VOCAB, (len(lengths), max(lengths)), generator=generator)
    ends, corrupted = torch.tensor(lengths), clean.clone()
    for row, end in enumerate(lengths):
        corrupted[row, [5, end - 1]] = (clean[row, [5, end - 1]] + 17) % VOCAB
    mask = (torch.arange(max(lengths)) < ends[:, None]).long()
    return Task.from_tokens(
        "lengths", clean, corrupted, [[3]] * len(lengths), [[5]] * len(lengths), attention_mask=mask
    )


def rows_of(name: str, *lengths: int) -> list[list[int]]:
    """The clean prompts without padding."""
    clean = task_of(*lengths).prompts(model_of(name)).clean.tolist()
    return [row[:n] for row, n in zip(clean, lengths, strict=True)]


def objectives(name: str, task: Task, version: str = "clean") -> Tensor:
    prompts = task.prompts(model_of(name))
    rows = zip(getattr(prompts, version), prompts.lengths.tolist(), strict=True)
    logits = torch.stack([alone(name, row[:n])[-1] for row, n in rows])
    return logits[:, 3] - logits[:, 5]


def one_by_one(name: str, task: Task, ask: Any) -> list[Tensor]:
    """What the oracle says of each prompt, each with a model that has run nothing of another length."""
    lengths = task.prompts(model_of(name)).lengths.tolist()
    models = [model_for(name, length) for length in lengths]
    return [ask(model, task.select([i]).prompts(model)) for i, model in enumerate(models)]


# ---- runs


@pytest.mark.parametrize("name", KINDS)
def test_padded_prompts_have_the_logits_of_each_alone(name):
    rows, lengths = torch.randint(VOCAB, (4, 30), generator=torch.Generator().manual_seed(3)), [30, 6, 12, 8]
    expected = torch.stack([alone(name, row[:n])[-1] for row, n in zip(rows, lengths, strict=True)])
    given = [row[:n].tolist() for row, n in zip(rows, lengths, strict=True)]
    prompts = Prompts.from_lists(given, given, [[0]] * 4, [[]] * 4, paired=False)
    assert error(answer_logits(model_of(name), prompts), expected) < TOLERANCE
    assert error(answer_logits(model_of(name), prompts.select([3, 2, 1, 0])), expected.flip(0)) < TOLERANCE


@pytest.mark.parametrize("lengths", [(12,), (8, 30), (12, 6, 7, 30)], ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_the_whole_model_as_a_circuit_is_the_model_and_the_check_of_the_task_agrees(name, lengths):
    model, task = model_of(name), task_of(*lengths)
    expected = objectives(name, task)
    whole = ComputationalGraph.of(model).edge_mask
    found, empty = evaluate(model, task, torch.stack([whole, torch.zeros_like(whole)]), quiet=True)
    assert error(found, expected) < TOLERANCE
    assert error(empty, objectives(name, task, "corrupted")) < TOLERANCE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a random model does no task
        check = task.check(model)
    assert abs(check.clean - float(expected.mean())) < TOLERANCE


EDGES = ("input->a0.h1<k>", "input->a0.h2<q>", "m0->a1.h2<q>", "a0.h1->a1.h3<v>", "m1->a2.h3<k>", "a1.h3->m2",
         "a2.h1->logits", "input->logits")  # fmt: skip


@pytest.mark.parametrize("name", ["longrope", "dynamic", "query-scale"])
def test_scores_are_the_brute_force_means_over_prompts_alone(name):
    model, task = model_of(name), task_of(12, 6, 30)
    graph = ComputationalGraph.of(model)
    expected = sum(one_by_one(name, task, lambda m, p: oracle.edge_effects(m, p, EDGES, ("patch",))[0])) / 3
    exact = attribute(model, task, "exact", edges=EDGES, quiet=True).values
    assert error(torch.stack([exact[graph.edge_index(edge)] for edge in EDGES]), expected) < TOLERANCE

    def slope(m: Any, p: Any) -> Tensor:
        delta = oracle.differences(m, p)
        at = oracle.input_gradients(m, p, {}, [edge.split("->")[1] for edge in EDGES])
        return torch.stack([(delta[edge.split("->")[0]] * at[edge.split("->")[1]]).sum() for edge in EDGES])

    expected = sum(one_by_one(name, task, slope)) / 3
    for size in (None, 1):
        eap = attribute(model, task, "eap", batch_size=size, quiet=True).values
        assert error(torch.stack([eap[graph.edge_index(edge)] for edge in EDGES]), expected) < TOLERANCE


@pytest.mark.parametrize("name", ["longrope", "dynamic", "query-scale"])
def test_circuits_are_run_as_prompt_by_prompt(name):
    model, task = model_of(name), task_of(12, 6, 30)
    graph = ComputationalGraph.of(model)
    mask = graph.edge_mask & (torch.rand(graph.shape, generator=torch.Generator().manual_seed(0)) < 0.6)

    def slow(m: Any, p: Any) -> Tensor:
        return oracle.circuit_values(m, p, [(set(graph.edges(mask)), oracle.ablated_outputs(m, p, "patch"))])[0]

    assert error(evaluate(model, task, mask, quiet=True), torch.cat(one_by_one(name, task, slow))) < TOLERANCE


# ---- input tokens


@pytest.mark.parametrize("method", ["gradient-x-input", "integrated-gradients", "occlusion", "attention-rollout"])
@pytest.mark.parametrize("name", ["longrope", "dynamic"])
def test_token_scores_of_padded_prompts_are_those_of_each_alone(name, method):
    rows = rows_of(name, 12, 6, 30)
    together = tokens(model_of(name), rows, 3, method, quiet=True).values
    for row, found in zip(rows, together, strict=True):
        expected = tokens(model_for(name, len(row)), [row], 3, method, quiet=True).values[0]
        assert error(found[: len(row)], expected) < 1e-6  # captum computes in float32


@pytest.mark.parametrize("name", ["longrope", "dynamic"])
def test_gradients_at_tokens_and_latents_are_the_modules_own(name):
    rows = rows_of(name, 12, 6, 30)
    hook = "blocks.1.hook_in"
    found = relevance(model_of(name), rows, 3, "gradient", at=hook, quiet=True).values[hook]
    for row, values in zip(rows, found, strict=True):
        module = copy_for(name, len(row))
        kept: list[Tensor] = []
        hook_on = module.model.layers[1].register_forward_pre_hook(lambda _, given, kept=kept: kept.append(given[0]))
        with hook_on:
            logit = module(torch.tensor([row])).logits[0, -1, 3]
        (gradient,) = torch.autograd.grad(logit, kept)
        assert error(values[: len(row)], (gradient * kept[0])[0].detach()) < TOLERANCE


@pytest.mark.parametrize("name", ["longrope", "dynamic"])
def test_decompositions_are_those_of_each_prompt_alone(name):
    rows = rows_of(name, 12, 6)
    found = decompose(model_of(name), rows, target=3, quiet=True)
    expected = torch.stack([alone(name, torch.tensor(row))[-1, 3] for row in rows])
    assert error(found.model_logits[:, 0], expected) < TOLERANCE
    assert found.error < TOLERANCE


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_classifiers_with_such_tables_are_run_length_by_length(kind):
    rope = _DYNAMIC if kind == "dynamic" else longrope(2)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": MLP}
    marks = {f"{name}_token_id": i for i, name in enumerate(("pad", "cls", "sep", "bos", "eos"))}
    config = transformers.ModernBertConfig(
        vocab_size=VOCAB,
        num_labels=3,
        max_position_embeddings=ORIGINAL if kind == "dynamic" else 32,
        rope_parameters={"full_attention": rope, "sliding_attention": _DEFAULT},
        attn_implementation="eager",
        **sizes,
        **marks,
    )
    with torch.random.fork_rng(devices=[]):
        module: Any = transformers.ModernBertForSequenceClassification(config).double().eval()
    for seed, parameter in enumerate(module.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)).double()
    rows = [[2, *range(10, 10 + n), 3] for n in (10, 3, 28)]
    expected = torch.stack([copy.deepcopy(module)(torch.tensor([row])).logits[0, 1] for row in rows]).detach()
    found = tokens(module, rows, 1, "gradient-x-input", quiet=True)
    assert error(found.logits.double(), expected) < 1e-6


# ---- what runs leave behind


@pytest.mark.parametrize("name", BY_LENGTH)
def test_the_order_of_runs_makes_no_difference_and_the_module_stays_as_it_was(name):
    model, short, long = fresh(name), task_of(12), task_of(30)
    model(long.prompts(model).clean)  # the user's own run leaves its tables in a dynamic module
    (rotary,) = (part for part in model.original_model.modules() if "rope_type" in vars(part))
    before = {key: copy.deepcopy(value) for key, value in {**vars(rotary), **rotary._buffers}.items() if key[:1] != "_"}
    for task in (long, short, long):
        found = evaluate(model, task, ComputationalGraph.of(model).edge_mask, quiet=True)
        assert error(found, objectives(name, task)) < TOLERANCE
        tokens(model, task.prompts(model).clean, 3, "attention-rollout", quiet=True)
        tokens(model, task.prompts(model).clean, 3, "reagent", max_steps=1, quiet=True)
    after = {**vars(rotary), **rotary._buffers}
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        assert same or key == "config", key


# ---- the check at first use


def of_the_batch(self, positions, lengths, kind, dtype):
    return Rotary._ask(self.module, positions, kind, dtype)


def of_the_longest(self, positions, lengths, kind, dtype, own=Rotary.tables):
    return own(self, positions, lengths.max()[None], kind, dtype)


@pytest.mark.parametrize("wrong", [of_the_batch, of_the_longest])
@pytest.mark.parametrize("name", BY_LENGTH)
def test_the_check_sees_tables_of_another_length(name, wrong, monkeypatch):
    monkeypatch.setattr(Rotary, "tables", wrong)
    with pytest.raises(InputError, match=r"is not understood: on random prompts of 12 and 7 tokens, padded"):
        anatomy_of(unread(name))


@pytest.mark.parametrize("name", ["longrope", "dynamic", "query-scale"])
def test_the_check_looks_beyond_a_context_that_is_too_long_to_be_run(name, monkeypatch):
    kind, settings = KINDS[name]
    rope = {**settings["rope_parameters"], "original_max_position_embeddings": 4096}
    settings = {**settings, "rope_parameters": rope, "max_position_embeddings": 4096}
    anatomy_of(load_model(tiny_module(kind, **settings)))
    monkeypatch.setattr(QueryScale, "__call__", lambda self, positions, dtype: torch.ones(len(positions), dtype=dtype))
    monkeypatch.setattr(Rotary, "tables", functools.partialmethod(of_twelve, own=Rotary.tables))
    with pytest.raises(InputError, match="at positions 4096 to 4102"):
        anatomy_of(load_model(tiny_module(kind, **settings)))


def of_twelve(self, positions, lengths, kind, dtype, own):
    return own(self, positions, torch.tensor([12]), kind, dtype)


def test_the_check_looks_beyond_windows(monkeypatch):
    anatomy_of(load_model(tiny_module("mistral", sliding_window=20)))
    monkeypatch.setattr(frame, "_mask", functools.partial(with_window, own=frame._mask))
    with pytest.raises(InputError, match="prompts of 24 and 7 tokens"):
        anatomy_of(load_model(tiny_module("mistral", sliding_window=20)))


def with_window(positions, stop, window, own):
    return own(positions, stop, None if window is None else window + 1)


def test_llama4_whose_layers_scale_queries_and_pair_neighbours_is_refused():
    with pytest.raises(InputError, match="Llama4ForCausalLM is not understood"):
        anatomy_of(load_model(tiny_module("llama4")))
