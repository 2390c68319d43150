"""`attribution.neurons`: what it takes, what it gives back, and what must not change its numbers."""

from __future__ import annotations

import pytest
import torch

import attribution
from attribution import EAP, EAPIG, NeuronScores, attribute, neurons, rule_set
from attribution.rules import Epsilon
from interp import Task
from interp.errors import InputError
from interp.result import Result
from tests.oracle import error, mixed_task, model_of
from tests.tiny import LAYERS, MLP, shared, tiny, tiny_module, word_tokenizer

IDS = [[4, 17, 9, 30, 2, 41, 8], [11, 3, 26, 50, 19], [5, 6, 7, 8, 9, 10]]


def scores(name="llama", inputs=IDS, target=7, **settings):
    return neurons(model_of(name), inputs, target, quiet=True, **settings)


def rows_of(frame):
    return frame[["prompt", "layer", "position", "neuron"]].values.tolist()


# ---- what it takes


def test_strings_and_ids_of_one_length_or_several_are_prompts():
    from interp.models import load_model

    model = load_model(tiny_module("llama", torch.float32), tokenizer=word_tokenizer())
    found = neurons(model, ["a b c", "c b"], "a", quiet=True)
    ids = [[2, 4, 5, 6], [2, 6, 5]]
    assert found.tokens == [["<bos>", "a", "b", "c"], ["<bos>", "c", "b"]]
    assert found.target_tokens == ["a", "a"]
    assert torch.equal(found.values, neurons(model, ids, 4, quiet=True).values)
    alone = neurons(model, torch.tensor([ids[0]]), [4], quiet=True)
    assert torch.allclose(found.values[:1], alone.values, atol=1e-6)
    assert torch.allclose(alone.values, neurons(model, "a b c", "a", quiet=True).values, atol=1e-6)


def test_targets_are_linear():
    three, five, eight = (scores(target=i).values for i in (3, 5, 8))
    for target, expected in (
        ((3, 5), three - five),
        ([(3, 5)] * 3, three - five),
        (torch.tensor([[3, 5]] * 3), three - five),
        ([[3, 5, 8]] * 3, three + five + eight),
        (([3, 8], [5]), three + eight - five),
    ):
        assert error(scores(target=target).values, expected) < 1e-12
    mixed = scores(target=[3, (5, 8), [3, 8]])
    assert error(mixed.values, torch.stack([three[0], (five - eight)[1], (three + eight)[2]])) < 1e-12
    assert mixed.target_tokens == ["3", "5 - 8", "3 + 8"]


def test_without_a_target_the_likeliest_token_is_explained():
    model = model_of("llama")
    best = [int(model(torch.tensor([ids]))[0, -1].argmax()) for ids in IDS]
    assert torch.equal(scores(target=None).values, scores(target=best).values)


def test_a_centred_logit_is_that_less_the_mean_of_all():
    found = scores(target=3, centred=True)
    means = scores(target=[list(range(53))] * 3)
    assert error(found.values, scores(target=3).values - means.values / 53) < 1e-12
    assert found.settings["objective"] == "centred-logits"


def test_relp_ah_is_the_default_and_a_named_method_has_its_own_rules():
    assert scores().rules == "relp-ah"
    assert torch.equal(scores().values, scores(rules="relp-ah").values)
    assert torch.equal(scores(rules="relp").values, scores(method="relp").values)
    assert torch.equal(scores(rules="gradient").values, scores(method="eap").values)
    assert torch.equal(scores(rules="gradient").values, scores(method=EAP()).values)
    plus = rule_set("relp-ah").plus(Epsilon(0.1))
    assert error(scores(rules=plus).values, scores().values) > 1e-4


def test_a_linear_rule_acts_on_a_neurons_own_output_matrix():
    # a huge epsilon lets nothing through linear layers
    huge = rule_set("relp-ah").plus(Epsilon(1e12))
    assert scores(rules=huge).values.abs().max() < 1e-9 * scores().values.abs().max()


def test_a_task_is_clean_less_corrupted():
    model, task = model_of("qwen2"), mixed_task(model_of("qwen2"))
    found = neurons(model, task, quiet=True)
    assert found.paired
    assert found.biases.empty
    assert not found.values[~found.mask[:, None].expand(-1, LAYERS, -1)].any()
    prompts = task.prompts(model)
    assert (found.mask.int().argmax(1) == prompts.first_difference).all()
    # a zero of the difference in either order
    swapped = Task.from_tokens(
        "swapped", prompts.corrupted, prompts.clean,
        [[i for i in row if i >= 0] for row in prompts.correct.tolist()],
        [[i for i in row if i >= 0] for row in prompts.incorrect.tolist()],
        attention_mask=prompts.mask.long(),
    )  # fmt: skip
    there = neurons(model, swapped, method="clean-corrupted", quiet=True).values
    assert error(neurons(model, task, method="clean-corrupted", quiet=True).values, -there) < 1e-10


def test_methods_may_be_objects():
    task = mixed_task(model_of("llama"))
    named = neurons(model_of("llama"), task, method="eap-ig", steps=3, quiet=True)
    assert torch.equal(named.values, neurons(model_of("llama"), task, method=EAPIG(steps=3), quiet=True).values)


# ---- what must not change the numbers


@pytest.mark.parametrize(
    "settings", [{"batch_size": 1}, {"batch_size": 2}, {"memory": 1 << 20}, {"checkpointed": True}], ids=str
)
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "mixtral"])
def test_batches_memory_and_checkpoints_change_nothing(name, settings):
    one, other = scores(name), scores(name, **settings)
    assert error(other.values, one.values) < 1e-12
    assert error(other.embedding, one.embedding) < 1e-12
    keys = ["prompt", "layer", "place", "position"]
    assert one.biases[keys].equals(other.biases[keys])
    assert one.biases["score"].tolist() == pytest.approx(other.biases["score"].tolist(), rel=1e-9, abs=1e-12)
    model, task = model_of(name), mixed_task(model_of(name))
    paired = [neurons(model, task, method="eap-ig", quiet=True, **each).values for each in ({}, settings)]
    assert error(*paired) < 1e-12


def test_padding_is_as_if_it_were_not_there():
    together = scores("opt")
    for row, ids in enumerate(IDS):
        alone = scores("opt", [ids])
        assert error(together.values[[row], :, : len(ids)], alone.values) < 1e-12
        assert not together.values[row, :, len(ids) :].any()
        assert not together.embedding[row, len(ids) :].any()


def test_grad_modes_change_nothing_and_the_model_is_left_alone():
    model, expected = model_of("gpt2"), scores("gpt2").values
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(scores("gpt2").values, expected)
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- the largest, and sums


@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("k", [1, 20, 500])
def test_the_largest_are_kept_without_holding_all(k, batch_size):
    every, kept = scores(), scores(keep=k, batch_size=batch_size)
    assert kept.values is None
    assert kept.activations is None
    top = every.top(k)
    assert top["score"].tolist() == pytest.approx(kept.top(k)["score"].tolist(), rel=1e-9)
    assert rows_of(top) == rows_of(kept.kept)
    assert top["activation"].tolist() == pytest.approx(kept.kept["activation"].tolist(), rel=1e-9)
    assert (top["score"].abs().diff().dropna() <= 0).all()
    for row in top.itertuples():
        assert row.score == float(every.values[row.prompt, row.layer, row.position, row.neuron])
        assert row.activation == float(every.activations[row.prompt, row.layer, row.position, row.neuron])
    assert torch.allclose(kept.embedding, every.embedding, atol=1e-12)


def test_no_padding_is_ever_kept():
    n = int(scores().mask.sum()) * LAYERS * MLP
    kept = scores(keep=n)
    prompt, position = (torch.tensor(kept.kept[name]) for name in ("prompt", "position"))
    assert len(kept.kept.drop_duplicates(["prompt", "layer", "position", "neuron"])) == n
    assert bool(scores().mask[prompt, position].all())


def test_positions_are_left_out_before_the_largest_are_taken():
    every = scores()
    without = every.values.clone()
    without[:, :, [0, 2]] = 0
    assert torch.equal(scores(leave_out=[0, 2]).values, without)
    expected = rows_of(scores(leave_out=[0, 2]).top(30))
    assert rows_of(every.top(30, leave_out=[0, 2])) == expected == rows_of(scores(keep=30, leave_out=[0, 2]).kept)
    assert torch.equal(scores(leave_out=[0]).embedding, every.embedding)


@pytest.mark.parametrize("over", ["prompt", "position", ("prompt", "position"), ("position", "prompt")], ids=str)
@pytest.mark.parametrize("batch_size", [1, None])
def test_sums_are_those_of_all(over, batch_size):
    names = [over] if isinstance(over, str) else over
    summed, later = scores(summed=over, batch_size=batch_size), scores().sum(*names)
    axes = [{"prompt": 0, "position": 2}[name] for name in names]
    assert error(summed.values, scores().values.sum(axes)) < 1e-12
    assert error(later.values, summed.values) < 1e-12
    assert summed.axes == later.axes
    top = summed.top(5)
    assert top.columns.tolist() == [*summed.axes, "score"]
    assert top["score"].tolist() == pytest.approx(later.top(5)["score"].tolist(), rel=1e-9)


# ---- what is given back


def test_dtypes_and_shapes():
    found = scores()
    assert found.values.dtype == found.embedding.dtype == torch.float64
    assert found.values.shape == (3, LAYERS, 7, MLP)
    single = neurons(shared("llama", torch.float32), IDS, 7, quiet=True)
    assert single.values.dtype == single.embedding.dtype == torch.float32
    assert error(single.values.double(), found.values) < 1e-4


def test_a_line_a_table_a_figure_and_a_file(tmp_path):
    for found in (scores(), scores(keep=9), scores(summed="prompt"), scores(method="exact", only=[(0, 1), (1, 2, 3)])):
        assert repr(found).startswith("NeuronScores: ")
        assert "\n" not in repr(found)
        assert "<table" in found._repr_html_()
        assert len(found.figure(n=2).data[0].x) == 2
        again = Result.load(found.save(tmp_path / "neurons.json"))
        assert isinstance(again, NeuronScores)
        assert again.to_frame().equals(found.to_frame())
        assert again.biases.equals(found.biases)
        assert repr(again) == repr(found)
    assert len(scores(keep=9).to_frame()) == 9
    assert len(scores(target=3, inputs=[[1, 2]]).to_frame()) == 2 * LAYERS * MLP


def test_biases_are_told_by_place():
    found = scores("gpt2").biases
    assert found.columns.tolist() == ["prompt", "place", "layer", "position", "score"]
    places = {"positions", "attention_norm", "v", "o", "mlp_norm", "up", "down", "final_norm"}
    assert set(found["place"]) == places  # with the pattern held none reaches queries and keys
    assert set(scores("gpt2", rules="gradient").biases["place"]) == places | {"q", "k"}
    assert set(scores("qwen2").biases["place"]) == {"v"}
    real = {(row, position) for row, ids in enumerate(IDS) for position in range(len(ids))}
    assert set(zip(found["prompt"], found["position"], strict=True)) == real
    assert not found.duplicated(["prompt", "place", "layer", "position"]).any()


def test_two_models_are_compared_neuron_by_neuron():
    base, tuned = (neurons(shared("llama", seed=seed), IDS, 7, quiet=True) for seed in (0, 1))
    table = tuned.compare(base, 5)
    assert table.columns.tolist() == ["prompt", "layer", "position", "neuron", "score", "other", "difference"]
    for row in table.itertuples():
        where = row.prompt, row.layer, row.position, row.neuron
        assert row.score == float(tuned.values[where])
        assert row.other == float(base.values[where])
        assert row.difference == pytest.approx(row.score - row.other)
    assert table["difference"].abs().max() == pytest.approx(float((tuned.values - base.values).abs().max()))
    with pytest.raises(InputError, match="cannot be compared with"):
        tuned.compare(base.sum("prompt"))
    with pytest.raises(InputError, match="without keep"):
        tuned.compare(scores(keep=3))


# ---- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 53}, "target of input 0 must be a token id from 0 to 52"),
        ({"target": -1}, "target of input 0 must be a token id"),
        ({"target": [1, 2]}, "target must be one target for all inputs, or a list with one for each of the 3; got 2"),
        ({"inputs": [[1, 2]], "target": [3, 5]}, r"for the sum of their logits give \[\[3, 5\]\]"),
        ({"target": (1, 2, 3)}, "must be a token, a pair"),
        ({"target": (3, 3)}, "names a token twice"),
        ({"target": [[3, 3], 1, 2]}, "names a token twice"),
        ({"target": [[], 1, 2]}, "names no token"),
        ({"inputs": []}, "inputs must be strings or token ids"),
        ({"inputs": [[1], []]}, "input 1 must be a string or at least one token id"),
        ({"inputs": [[99]]}, "input 0 must be a string or at least one token id from 0 to 52"),
        ({"keep": 0}, "keep=0 must be a whole number of at least 1"),
        ({"keep": 18 * LAYERS * MLP + 1}, "keep=1,297 is more than there are: 1,296"),
        ({"keep": 5, "summed": "prompt"}, "give one of the two"),
        ({"summed": "neuron"}, "summed='neuron' is unknown"),
        ({"leave_out": [-1]}, r"leave_out\[0\]=-1"),
        ({"rules": "relp-ha"}, "rules='relp-ha' is unknown; did you mean 'relp-ah'"),
        ({"method": "mask-ig"}, "method='mask-ig' has no meaning for neurons"),
        ({"method": "edge-pruning"}, "method='edge-pruning' has no meaning for neurons"),
        ({"method": "eap-ig"}, "method='eap-ig' follows a path between two prompts"),
        ({"method": "relp", "rules": "gim"}, "rules is no setting of method='relp'"),
        ({"method": EAP(inside=torch.ones(16, 40) > 0)}, "neurons have no scores inside one"),
        ({"method": attribution.Exact(sample=3)}, "takes only=, and neither edges, sample nor resume"),
        ({"method": "exact"}, "name them: only="),
        ({"method": "exact", "only": [(9, 1)]}, r"only holds \(9, 1\); a neuron is"),
        ({"method": "exact", "only": [(0, MLP)]}, "only holds"),
        ({"method": "exact", "only": [(0, 7, 1)]}, "positions up to 6"),
        ({"method": "exact", "only": [(0, -1, 1)]}, "only holds"),
        ({"method": "exact", "only": []}, "only must list neurons"),
        ({"method": "exact", "only": [(0, 1)], "keep": 3}, "keep and summed are for gradients"),
        ({"only": [(0, 1)]}, "only goes with method='exact'"),
        ({"ablation": "zero"}, "ablation is for a task"),
        ({"objective": "kl"}, "objective is for a task"),
        ({"kepe": 3}, "kepe"),
    ],
    ids=str,
)
def test_what_cannot_be_right_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        scores(**settings)


@pytest.mark.parametrize(
    "settings", [{"target": 3}, {"attention_mask": [[1]]}, {"prepend_bos": True}, {"centred": True}], ids=str
)
def test_a_task_has_its_own_answers(settings):
    with pytest.raises(InputError, match=f"{next(iter(settings))} is for prompts"):
        neurons(model_of("llama"), mixed_task(model_of("llama")), quiet=True, **settings)


def test_of_the_result_too():
    with pytest.raises(InputError, match="n=10000 neurons are asked for"):
        scores().top(10000)
    with pytest.raises(InputError, match="n=6 neurons are asked for; 5 were kept"):
        scores(keep=5).top(6)
    with pytest.raises(InputError, match="ask for summed= instead"):
        scores(keep=5).sum("prompt")
    with pytest.raises(InputError, match="over='layer' is unknown"):
        scores().sum("layer")
    with pytest.raises(InputError, match="over which these scores are summed"):
        scores(summed="position").top(3, leave_out=[0])
    with pytest.raises(InputError, match="not for a task"):
        neurons(model_of("llama"), mixed_task(model_of("llama")), quiet=True).conservation()


def test_nan_is_refused_and_the_prompt_named():
    model = tiny("llama")
    with torch.no_grad():
        model.blocks[2].mlp.out.original_component.weight[0, 0] = float("nan")
    with pytest.raises(InputError):
        neurons(model, IDS, 7, quiet=True)


def test_encoders_and_other_foreigners_are_refused_in_a_sentence():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=53, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
    )
    for foreign in (BertForSequenceClassification(config), "llama"):
        with pytest.raises(InputError, match="model is a"):
            neurons(foreign, IDS, 7)


def test_mixtures_that_are_more_than_their_experts_are_refused_in_a_sentence():
    from transformers import AutoConfig, AutoModelForCausalLM

    from interp.models import load_model

    config = AutoConfig.for_model(
        "qwen2_moe", vocab_size=53, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, moe_intermediate_size=24, shared_expert_intermediate_size=24, num_experts=3,
        num_experts_per_tok=2,
    )  # fmt: skip
    model = load_model(AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval())
    with pytest.raises(InputError, match="so it has no neurons here; score it as one node"):
        neurons(model, IDS, 7, "gradient", quiet=True)
    with pytest.raises(InputError, match="so backward rules cannot enter it"):
        neurons(model, IDS, 7, quiet=True)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mixtral"])
def test_half_precision_gives_scores_in_single(name):
    exact, coarse = (neurons(shared(name, dtype), IDS, 7, quiet=True) for dtype in (torch.float32, torch.bfloat16))
    assert coarse.values.dtype == coarse.embedding.dtype == torch.float32
    assert error(coarse.values, exact.values) < 0.2


def test_a_node_score_of_a_mixture_is_shared_among_its_experts_neurons():
    model = model_of("mixtral")
    found = neurons(model, mixed_task(model), method="eap", quiet=True).sum("position")
    node = attribute(model, mixed_task(model), "eap", level="node", quiet=True).values
    assert error(found.values.sum(2).mean(0), node[[5, 10, 15]]) < 1e-10
