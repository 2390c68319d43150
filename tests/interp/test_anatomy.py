from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM

from attribution import attribute
from interp import ComputationalGraph, load_model
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.answers import answer_logits
from interp.kernels.forward import prepare, run_blocks
from interp.parts import Norm
from interp.tasks.prompts import Prompts
from tests import oracle, versions
from tests.tiny import tiny, tiny_module, tiny_task

TOKENS = torch.tensor([[2, 7, 20, 33, 8, 52, 3, 11], [5, 9, 9, 2, 51, 30, 6, 5]])


@pytest.mark.parametrize("name", oracle.MODELS)
def test_sources_add_up_to_the_final_residual_stream(name):
    model = oracle.expanded(name)
    kept = oracle.run(model, TOKENS, keep=[*oracle.output_points(model), "ln_final.hook_in"])[1]
    total = sum(oracle.outputs(model, kept).values())
    for block in model.blocks:
        bias = getattr(block.attn.o.original_component, "bias", None)
        total = total if bias is None else total + bias
    assert oracle.error(total, kept["ln_final.hook_in"]) < oracle.TOLERANCE


@pytest.mark.parametrize("name", oracle.MODELS)
def test_running_the_weights_gives_the_bridges_own_logits(name):
    model = oracle.model_of(name)
    lengths = torch.tensor([8, 5])
    expected = model(TOKENS)[torch.arange(2), lengths - 1]
    given = [row[:n] for row, n in zip(TOKENS.tolist(), lengths.tolist(), strict=True)]
    prompts = Prompts.from_lists(given, given, [[0]] * 2, [[]] * 2, paired=False)
    assert oracle.error(answer_logits(model, prompts), expected) < oracle.TOLERANCE
    one_by_one = answer_logits(model, prompts, batch_size=1)
    assert oracle.error(one_by_one, expected) < oracle.TOLERANCE


@pytest.mark.parametrize("name", oracle.MODELS)
def test_a_run_from_a_cached_prefix_is_the_run_from_the_start(name):
    model = oracle.model_of(name)
    anatomy = anatomy_of(model)
    expected = oracle.run(model, TOKENS, keep=["ln_final.hook_in"])[1]["ln_final.hook_in"]
    for start in (1, 4, 7):
        frame = prepare(anatomy, TOKENS, start, torch.tensor([8, 8]))
        x = run_blocks(frame, anatomy.embed(TOKENS[:, start:], frame.positions))
        assert oracle.error(x, expected[:, start:]) < oracle.TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gemma3"])
def test_norms_and_their_divisors_are_the_models_own(name):
    model = oracle.model_of(name)
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [(anatomy_of(model).final_norm, model.ln_final)]
    for block, theirs in zip(anatomy_of(model).blocks, model.blocks, strict=True):
        pairs += [(block.attention_norm, theirs.ln1), (block.mlp_norm, theirs.ln2)]
        if hasattr(theirs, "ln1_post"):
            pairs += [(block.attention_post_norm, theirs.ln1_post), (block.mlp_post_norm, theirs.ln2_post)]
    for ours, bridge in pairs:
        expected = bridge.original_component(x)
        assert oracle.error(ours(x), expected) < oracle.TOLERANCE
        bias = 0 if ours.bias is None else ours.bias
        by_hand = ours.centred(x) / ours.divisor(x) * ours.gain + bias
        assert oracle.error(by_hand, expected) < oracle.TOLERANCE


def test_norms_compute_half_precision_in_float32():
    norm = Norm(torch.nn.LayerNorm(8).to(torch.bfloat16), "layer", 1e-5)
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    expected = torch.nn.functional.layer_norm(x.float(), (8,), eps=1e-5).to(torch.bfloat16)
    assert norm(x).equal(expected)
    assert norm.divisor(x).dtype == torch.float32


def test_a_model_is_checked_once_and_remembered():
    model = tiny("gpt2")
    assert anatomy_of(model) is anatomy_of(model)


def test_edited_weights_are_seen_at_once():
    model, task = tiny("llama"), tiny_task(oracle.model_of("llama"))
    before = attribute(model, task, "eap", quiet=True).values
    with torch.no_grad():
        for block in model.blocks:
            block.attn.o.original_component.weight[:, :4] = 0  # nothing leaves head 0
    after = attribute(model, task, "eap", quiet=True).values
    heads = [i for i, name in enumerate(ComputationalGraph.of(model).sources) if ".h0" in name]
    assert before[heads].abs().max() > 1e-3
    assert after[heads].abs().max() == 0


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "gptj", "gemma2"])
def test_a_model_cast_after_its_first_use_is_seen_at_once(name):
    model, task = load_model(tiny_module(name, torch.float32)), tiny_task(oracle.model_of(name))
    single = attribute(model, task, "eap", quiet=True).values
    double = attribute(model.to(torch.float64), task, "eap", quiet=True).values
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert 0 < oracle.error(single.double(), double) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "gptj"])
def test_models_of_lower_precision_pass_the_check(name, dtype):
    model = load_model(tiny_module(name, dtype))
    assert ComputationalGraph.of(model).n_layers == 3
    assert anatomy_of(model).dtype == dtype


def change_mlp(model):
    model.blocks[1].mlp.original_component.forward = lambda x: 2 * x


def change_block(model):
    model.blocks[2].register_forward_hook(
        lambda module, inputs, out: (out[0] + 1, *out[1:]) if isinstance(out, tuple) else out + 1
    )


@pytest.mark.parametrize("change", [change_mlp, change_block])
def test_a_model_that_does_what_its_parts_do_not_explain_is_refused(change):
    model = tiny("llama")
    change(model)
    with pytest.raises(InputError, match=r"is not understood.*misses its final residual stream by"):
        ComputationalGraph.of(model)
    with pytest.raises(InputError, match="is not understood"):
        attribute(model, tiny_task(model), "eap", quiet=True)


@pytest.mark.skipif(not versions.GPTJ_IS_REFUSED, reason="the installed transformers has the older GPT-J")
def test_gpt_j_is_still_refused_where_the_tests_expect_it_to_be():
    with pytest.raises(InputError, match="model=GPTJForCausalLM is not understood: on random prompts") as caught:
        anatomy_of(tiny("gptj"))
    assert versions.reason_to_fail(caught.value)
    assert versions.reason_to_fail(InputError("another")) is None


def test_what_is_no_bridge_is_refused():
    for given in (tiny_module("gpt2"), None, "gpt2"):
        with pytest.raises(InputError, match=r"give what interp\.load_model returns"):
            ComputationalGraph.of(given)


def test_encoders_are_refused():
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    with pytest.raises(InputError, match="BertForMaskedLM"):
        load_model(BertForMaskedLM(config))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"do_layer_norm_before": False}, "post-norm"),
        ({"word_embed_proj_dim": 8}, "projects its embedding|no pre-norm residual stream"),
    ],
)
def test_settings_of_opt_without_a_pre_norm_graph_are_refused(overrides, message):
    with pytest.raises(InputError, match=f"OPTForCausalLM.*({message})"):
        ComputationalGraph.of(tiny("opt", **overrides))


def test_an_architecture_without_our_layout_is_refused_in_a_sentence():
    from transformers import MambaConfig

    config = MambaConfig(vocab_size=20, hidden_size=8, state_size=4, num_hidden_layers=1)
    with pytest.raises(InputError, match="supported"):
        ComputationalGraph.of(load_model(AutoModelForCausalLM.from_config(config)))


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_a_model_that_carries_hooks_is_refused_by_the_hooks_name(direction):
    model = tiny("gpt2")
    task = tiny_task(model)
    expected = attribute(model, task, "eap", quiet=True).values
    model.add_hook("blocks.1.mlp.hook_out", lambda x, hook: None, dir=direction)
    with pytest.raises(InputError, match=r"hook at blocks\.1\.mlp\.hook_out.*reset_hooks"):
        attribute(model, task, "eap", quiet=True)
    model.reset_hooks()
    assert attribute(model, task, "eap", quiet=True).values.equal(expected)
