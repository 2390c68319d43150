"""Token attributions of encoder classifiers: against hooks and autograd on the transformers modules themselves."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from attribution import RuleSet, TokenAttributions, rule_set, token_methods, tokens
from interp.errors import InputError
from tests.oracle import error
from tests.tiny import tiny_module

VOCAB, D_MODEL, CLASSES, POSITIONS = 47, 16, 5, 20
PAD = 1
TOLERANCE = 1e-10
CAPTUMS = 1e-6  # captum keeps the steps of integrated gradients, and occlusion's means, in float32
ROWS = [[2, 9, 27, 14, 5, 44, 3], [2, 7, 3], [11], [2, 12, 13, 40, 3]]
TARGETS, OTHERS = [0, 4, 2, 1], [3, 1, 0, 2]
NAMES = ("bert", "roberta", "distilbert", "electra")
RULED = ("attnlrp", "cp-lrp", "relp", "gim")
METHODS = tuple(
    method for method in token_methods()["method"]
    if method in ("gradient-x-input", "integrated-gradients", "gradient-shap", "occlusion", "feature-ablation",
                  "attention-rollout", "reagent", "random")
)  # fmt: skip
SEEDED = ("gradient-shap", "reagent", "random")
ON_TARGET = [m for m in METHODS if m not in ("attention-rollout", "reagent", "random")]

_SIZES = {
    "vocab_size": VOCAB, "hidden_size": D_MODEL, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 24, "max_position_embeddings": POSITIONS, "pad_token_id": PAD, "num_labels": CLASSES,
    "type_vocab_size": 2,
}  # fmt: skip
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _SIZES),
    "roberta": ("Roberta", {**_SIZES, "max_position_embeddings": POSITIONS + PAD + 1, "type_vocab_size": 1}),
    "electra": ("Electra", {**_SIZES, "embedding_size": 8}),
    "distilbert": (
        "DistilBert",
        {"vocab_size": VOCAB, "dim": D_MODEL, "n_layers": 3, "n_heads": 4, "hidden_dim": 24, "pad_token_id": PAD,
         "max_position_embeddings": POSITIONS, "num_labels": CLASSES},
    ),
}  # fmt: skip


def made(name: str, dtype: torch.dtype = torch.float64, seed: int = 0, **more: Any) -> Any:
    """A tiny random classifier in eval mode, with large weights."""
    prefix, sizes = _CONFIGS[name]
    config = getattr(transformers, f"{prefix}Config")(**{**sizes, **more})
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{prefix}ForSequenceClassification")(config)
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        parameter.data = (noise + ("LayerNorm.weight" in key or "layer_norm.weight" in key)).to(dtype)
    return model.to(dtype).eval()


model_of = functools.cache(made)


def word_tokenizer(**special: Any) -> Any:
    """Words a, b, c between [CLS] and [SEP]; its file asks for truncation, which must not be done."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "far"]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words[:-1])} | {"far": VOCAB}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    backend.enable_truncation(4)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    given = {**names, "mask_token": "[MASK]", **special}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **given)


def always(token: int) -> Callable[[Tensor, Tensor, torch.Generator], Tensor]:
    """A proposer that draws nothing."""
    return lambda ids, places, generator: ids.masked_fill(places, token)


QUICK: dict[str, dict[str, Any]] = {
    "reagent": {"max_steps": 4, "runs": 2, "proposer": always(8)},
    "gradient-shap": {"samples": 4},
    "integrated-gradients": {"steps": 4},
}


def scored(model: Any, method: str, rows: Any = None, target: Any = None, **settings: Any) -> TokenAttributions:
    model = model_of(model) if isinstance(model, str) else model
    rows = ROWS if rows is None else rows
    target = TARGETS[: len(rows)] if target is None else target
    return tokens(model, rows, target, method, quiet=True, **{**QUICK.get(method, {}), **settings})


known = functools.cache(scored)  # for settings that can be hashed


# ---- the slow path: one input at a time, without padding, word embeddings written in by a hook


def words_of(model: Any, row: list[int]) -> Tensor:
    """[pos, d]: the rows of the embedding matrix."""
    return next(p for key, p in model.named_parameters() if key.endswith("word_embeddings.weight")).detach()[row]


def logits_from(model: Any, x: Tensor) -> Tensor:
    """[run, pos, d] -> [run, class], with the word embeddings of some ids written over."""
    part = next(part for key, part in model.named_modules() if key.endswith("word_embeddings"))
    handle = part.register_forward_hook(lambda module, args, output: x)
    try:
        return model(input_ids=torch.full(x.shape[:2], 6)).logits  # 6 is no padding, so positions run on
    finally:
        handle.remove()


def slopes(model: Any, x: Tensor, target: int) -> Tensor:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(logits_from(model, leaf)[:, target].sum(), leaf)[0]


def agree(found: TokenAttributions, expected: list[Tensor], tolerance: float = TOLERANCE) -> None:
    for row, ours, theirs in zip(ROWS, found.values, expected, strict=True):
        assert error(ours[: len(row)], theirs) < tolerance
        assert not ours[len(row) :].any()


def tolerance_of(method: str) -> float:
    return CAPTUMS if method in ("occlusion", "integrated-gradients") else TOLERANCE


# ---- values


@pytest.mark.parametrize("name", NAMES)
def test_gradient_times_input_is_autograds(name: str) -> None:
    model, expected = model_of(name), []
    for row, target in zip(ROWS, TARGETS, strict=True):
        x = words_of(model, row)
        expected.append((x * slopes(model, x[None], target)[0]).sum(-1))
    agree(known(name, "gradient-x-input"), expected)


@pytest.mark.parametrize("baseline", ["zero", 8])
@pytest.mark.parametrize("name", NAMES)
def test_integrated_gradients_are_gauss_legendre_sums(name: str, baseline: Any) -> None:
    nodes, masses = np.polynomial.legendre.leggauss(6)
    alphas, weights = torch.tensor((nodes + 1) / 2)[:, None, None], torch.tensor(masses / 2)[:, None, None]
    model, expected, ends = model_of(name), [], []
    for row, target in zip(ROWS, TARGETS, strict=True):
        x = words_of(model, row)
        start = torch.zeros_like(x) if baseline == "zero" else words_of(model, [8] * len(row))
        mean = (weights * slopes(model, start + alphas * (x - start), target)).sum(0)
        expected.append(((x - start) * mean).sum(-1))
        ends.append(logits_from(model, start[None])[0, target].detach())
    found = scored(name, "integrated-gradients", steps=6, baseline=baseline)
    agree(found, expected, CAPTUMS)
    assert found.baseline_logits is not None
    assert (found.baseline_logits - torch.stack(ends)).abs().max() < TOLERANCE


def test_integrated_gradients_are_complete_with_many_steps() -> None:
    found = scored("bert", "integrated-gradients", steps=150, baseline=8)
    assert found.baseline_logits is not None
    assert (found.values.sum(1) - (found.logits - found.baseline_logits)).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_gradient_shap_without_noise_has_integrated_gradients_as_its_mean(name: str) -> None:
    samples, model, row = 400, model_of(name), ROWS[0]
    found = scored(name, "gradient-shap", [row], baseline=8, noise=0.0, samples=samples)
    x, start = words_of(model, row), words_of(model, [8] * len(row))
    alphas = (torch.arange(500, dtype=torch.float64) + 0.5)[:, None, None] / 500
    terms = ((x - start) * slopes(model, start + alphas * (x - start), TARGETS[0])).sum(-1)
    assert ((found.values[0] - terms.mean(0)).abs() <= 5 * terms.std(0) / math.sqrt(samples) + 1e-6).all()


def start_of(model: Any, length: int, baseline: Any) -> Tensor:
    if baseline == "zero":
        return torch.zeros_like(words_of(model, [0] * length))
    if baseline == "mean":
        return words_of(model, list(range(VOCAB))).mean(0).expand(length, -1)
    return words_of(model, [baseline] * length)


@pytest.mark.parametrize("baseline", ["zero", "mean", 8])
@pytest.mark.parametrize("name", NAMES)
def test_feature_ablation_is_what_the_logit_loses_without_a_token(name: str, baseline: Any) -> None:
    model, expected = model_of(name), []
    for row, target in zip(ROWS, TARGETS, strict=True):
        changed = words_of(model, row).repeat(len(row), 1, 1)
        for position in range(len(row)):
            changed[position, position] = start_of(model, len(row), baseline)[position]
        with torch.no_grad():
            whole = model(input_ids=torch.tensor([row])).logits[0, target]
            expected.append(whole - logits_from(model, changed)[:, target])
    agree(scored(name, "feature-ablation", baseline=baseline), expected)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_occlusion_averages_over_the_windows_that_hold_a_token(name: str, window: int) -> None:
    model, expected = model_of(name), []
    for row, target in zip(ROWS, TARGETS, strict=True):
        size = min(window, len(row))
        changed = [
            [8 if start <= place < start + size else token for place, token in enumerate(row)]
            for start in range(len(row) - size + 1)
        ]
        with torch.no_grad():
            whole, *others = model(input_ids=torch.tensor([row, *changed])).logits[:, target]
        lost = [whole - other for other in others]
        held = [
            [value for start, value in enumerate(lost) if start <= place < start + size] for place in range(len(row))
        ]
        expected.append(torch.stack([torch.stack(values).mean() for values in held]))
    agree(scored(name, "occlusion", baseline=8, window=window), expected, CAPTUMS)


@pytest.mark.parametrize("name", NAMES)
def test_attention_rollout_is_the_first_tokens_row(name: str) -> None:
    twin, expected = made(name), []
    twin.set_attn_implementation("eager")
    for row in ROWS:
        with torch.no_grad():
            patterns = twin(input_ids=torch.tensor([row]), output_attentions=True).attentions
        assert len(patterns) == 3
        flow = torch.eye(len(row), dtype=torch.float64)[0]
        for pattern in reversed(patterns):
            flow = 0.5 * flow + 0.5 * flow @ pattern[0].mean(0)
        assert float(flow.sum()) == pytest.approx(1)
        expected.append(flow)
    agree(known(name, "attention-rollout"), expected)


@pytest.mark.parametrize("change", ["target", "distribution"])
def test_one_step_of_reagent_by_hand(change: str) -> None:
    model, row, y = model_of("bert"), ROWS[0], TARGETS[0]

    def chances(ids: list[int]) -> Tensor:
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)

    generator = torch.Generator().manual_seed(3)
    importance = torch.randn(1, 7, generator=generator, dtype=torch.float64)[0]
    replaced = torch.rand(1, 7, generator=generator)[0].topk(2).indices.tolist()  # round(0.3 * 7)
    clean, after = chances(row), chances([8 if i in replaced else token for i, token in enumerate(row)])
    c = float(clean[y] - after[y])
    if change == "distribution":
        c = float(((clean.sqrt() - after.sqrt()) ** 2).sum().div(2).sqrt())
    signs = torch.tensor([1.0 if i in replaced else -1.0 for i in range(7)], dtype=torch.float64)
    expected = (importance + torch.logit((signs * c + 1) / 2)).softmax(0)
    found = scored("bert", "reagent", [row], runs=1, max_steps=1, change=change, seed=3)
    assert error(found.values[0], expected) < TOLERANCE


def test_a_masked_language_model_proposes_for_reagent() -> None:
    sizes = {key: value for key, value in _SIZES.items() if key != "num_labels"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        masked = transformers.BertForMaskedLM(transformers.BertConfig(**sizes, mask_token_id=4)).double()
    masked.cls.predictions.decoder.bias.data[8] = 1e4  # sure of its word
    found, by_hand = (
        scored("bert", "reagent", ROWS[:2], proposer=proposer, runs=1, max_steps=1) for proposer in (masked, always(8))
    )
    assert torch.equal(found.values, by_hand.values)
    assert masked.training


# ---- batches, order, seeds


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_padding_batches_and_order_change_nothing(method: str, name: str) -> None:
    found = known(name, method)
    assert found.values.dtype == torch.float64
    assert found.values[0].any()
    assert not found.values[~found.mask].any()
    alone = scored(name, method, batch_size=1)
    assert (alone.values - found.values).abs().max() < tolerance_of(method)
    assert (alone.logits - found.logits).abs().max() < TOLERANCE
    if method in SEEDED:
        again, other = (scored(name, method, seed=seed) for seed in (0, 1))
        assert torch.equal(again.values, found.values)
        assert not torch.equal(other.values, found.values)
    else:
        order = [2, 0, 3, 1]
        turned = scored(name, method, [ROWS[i] for i in order], [TARGETS[i] for i in order], batch_size=3)
        assert (turned.values - found.values[order]).abs().max() < tolerance_of(method)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_padded_ids_with_a_mask_on_either_side(name: str) -> None:
    right = torch.tensor([[2, 9, 27, 3], [2, 7, PAD, PAD]])
    left = torch.tensor([[2, 9, 27, 3], [PAD, PAD, 2, 7]])
    plain = scored(name, "gradient-x-input", [[2, 9, 27, 3], [2, 7]])
    for padded in (right, left):
        found = scored(name, "gradient-x-input", padded, [0, 4], attention_mask=padded != PAD)
        assert (found.values - plain.values).abs().max() < TOLERANCE
    with torch.no_grad():
        theirs = model_of(name)(input_ids=right, attention_mask=right != PAD).logits
    assert (plain.logits - theirs[[0, 1], [0, 4]]).abs().max() < TOLERANCE


def test_a_model_without_heads_is_scored() -> None:
    config = transformers.FNetConfig(**{name: value for name, value in _SIZES.items() if name != "num_attention_heads"})
    torch.manual_seed(0)
    model = transformers.FNetForSequenceClassification(config).eval()
    found = scored(model, "gradient-x-input", target=TARGETS)
    for i, (row, target) in enumerate(zip(ROWS, TARGETS, strict=True)):
        words = model.get_input_embeddings()(torch.tensor([row])).detach().requires_grad_()
        logit = model(inputs_embeds=words).logits[0, target]
        (slope,) = torch.autograd.grad(logit, words)
        torch.testing.assert_close(found.logits[i], logit.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(found.values[i][: len(row)], (slope * words).detach().sum(2)[0], rtol=0, atol=1e-5)


def test_a_budget_makes_batches_small() -> None:
    long = [list(range(4, 24))] * 40
    sizes: list[int] = []
    model = made("bert")
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(len(kwargs.get("inputs_embeds", ()))), with_kwargs=True
    )
    scored(model, "gradient-x-input", long, 1)
    assert max(sizes) == 40
    sizes.clear()
    scored(model, "gradient-x-input", long, 1, memory=1 << 20)
    assert 1 < max(sizes) < 40
    handle.remove()


# ---- targets


@pytest.mark.parametrize("method", ON_TARGET)
def test_a_contrast_is_the_difference_of_its_two_classes(method: str) -> None:
    this, that = known("roberta", method), scored("roberta", method, target=OTHERS)
    both = scored("roberta", method, target=list(zip(TARGETS, OTHERS, strict=True)))
    assert error(both.values, this.values - that.values) < CAPTUMS
    assert (both.logits - (this.logits - that.logits)).abs().max() < TOLERANCE


def test_classes_by_index_by_name_and_as_predicted() -> None:
    model = made("bert", id2label={i: f"class {i}" for i in range(CLASSES)})
    with torch.no_grad():
        logits = torch.stack([model(input_ids=torch.tensor([row])).logits[0] for row in ROWS])
    best = tokens(model, ROWS, method="random", quiet=True)
    assert best.target.tolist() == [[int(i), -1] for i in logits.argmax(1)]
    assert best.target_tokens == [f"class {int(i)}" for i in logits.argmax(1)]
    assert (best.logits - logits.max(1).values).abs().max() < TOLERANCE
    forms: list[tuple[Any, list[list[int]]]] = [
        (3, [[3, -1]] * 4),
        ("class 3", [[3, -1]] * 4),
        ((3, "class 0"), [[3, 0]] * 4),
        ([0, "class 1", (2, 3), ("class 4", 0)], [[0, -1], [1, -1], [2, 3], [4, 0]]),
        (torch.tensor([4, 3, 2, 1]), [[4, -1], [3, -1], [2, -1], [1, -1]]),
    ]
    for target, expected in forms:
        found = scored(model, "random", target=target)
        assert found.target.tolist() == expected
    assert found.tokens == [[str(i) for i in row] for row in ROWS]
    assert scored(model, "random", target=(3, 0)).target_tokens == ["class 3 - class 0"] * 4


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (CLASSES, "target of input 0 must be a class from 0 to 4 or its name .*LABEL_0, LABEL_1.*; got 5"),
        (-1, "target of input 0 must be a class .*-1"),
        (True, "target of input 0 must be a class .*True"),
        ("good", "target of input 0 must be a class .*'good'"),
        (1.0, "target must be one class, a pair"),
        ([0, 1], "target must be one class.* each of the 4 inputs; got 2 entries"),
        ((0, 1, 2), r"target of input 0 must be a class or a pair .*\(0, 1, 2\)"),
        ((2, 2), "target contrasts a class with itself"),
    ],
)
def test_bad_targets_are_refused(target: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scored("bert", "random", target=target)


# ---- strings


def test_strings_get_special_tokens_and_are_never_cut() -> None:
    words = word_tokenizer()
    found = scored("bert", "gradient-x-input", ["a b c a b c", "c"], tokenizer=words)
    assert found.tokens == [["[CLS]", "a", "b", "c", "a", "b", "c", "[SEP]"], ["[CLS]", "c", "[SEP]"]]
    by_ids = scored("bert", "gradient-x-input", [[2, 5, 6, 7, 5, 6, 7, 3], [2, 7, 3]], tokenizer=words)
    assert torch.equal(found.values, by_ids.values)
    assert by_ids.tokens == found.tokens
    assert scored("bert", "random", "", 0, tokenizer=words).tokens == [["[CLS]", "[SEP]"]]
    assert "c" in scored("bert", "gradient-x-input", "c", 0, tokenizer=words)._repr_html_()


def test_baselines_by_name_are_the_tokenizers() -> None:
    words = word_tokenizer()
    for name, token in (("unk", 0), ("pad", PAD), ("mask", 4)):
        by_name, by_id = (
            scored("bert", "feature-ablation", "a b", 1, tokenizer=words, baseline=baseline)
            for baseline in (name, token)
        )
        assert torch.equal(by_name.values, by_id.values)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_may_be_as_long_as_the_models_positions(name: str) -> None:
    found = scored(name, "gradient-x-input", [[5] * POSITIONS], 0)
    with torch.no_grad():
        theirs = model_of(name)(input_ids=torch.tensor([[5] * POSITIONS])).logits
    assert abs(float(found.logits[0] - theirs[0, 0])) < TOLERANCE
    with pytest.raises(InputError, match=f"input 1: {POSITIONS + 1} tokens are too long: the model reads {POSITIONS}"):
        scored(name, "random", [[5], [5] * (POSITIONS + 1)], 0)


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": "a b"}, "inputs are strings, and a classifier has no tokenizer; give tokenizer="),
        ({"tokenizer": "bert"}, "tokenizer is a str, not a transformers tokenizer"),
        ({"inputs": "far", "tokenizer": word_tokenizer()}, f"input 0 must be .* from 0 to {VOCAB - 1}"),
        ({"inputs": "a", "attention_mask": [[1]], "tokenizer": word_tokenizer()}, "attention_mask goes with token ids"),
        ({"inputs": " ".join("a" * 19), "tokenizer": word_tokenizer()}, "input 0: 21 tokens are too long"),
        ({"inputs": [[]]}, "input 0 must be .* at least one token id"),
        ({"inputs": [[1, VOCAB]]}, "input 0 must be"),
        ({"prepend_bos": True}, "prepend_bos is for language models"),
        ({"method": "reagent", "proposer": None}, "needs proposer=, a masked language model"),
        ({"method": "reagent", "proposer": 3}, "proposer must be"),
        ({"method": "reagent", "target": (0, 1)}, "explains one class's probability; give target as a single class"),
        ({"method": "occlusion", "baseline": "bos"}, "baseline='bos' is unknown.*zero, mean, pad, mask, unk"),
        ({"method": "occlusion", "baseline": "mask"}, "baseline='mask', but the model's tokenizer has no such token"),
        ({"method": "occlusion", "baseline": VOCAB}, f"baseline={VOCAB} is no token id"),
        ({"method": "occlusion", "rules": "relp"}, "rules is no setting of method='occlusion'"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"memory": 5}, "memory=5 must be a whole number of at least 1048576"),
    ],
)
def test_bad_input_is_refused(settings: dict[str, Any], message: str) -> None:
    settings = {"inputs": ROWS, "target": 0, "method": "random", **settings}
    inputs, target, method = (settings.pop(name) for name in ("inputs", "target", "method"))
    with pytest.raises(InputError, match=message):
        scored("bert", method, inputs, target, **settings)


def test_methods_that_change_the_backward_pass_are_refused_and_others_named() -> None:
    for method in RULED:
        with pytest.raises(
            InputError, match=f"'{method}'.* language models alone; methods for a classifier are: "
        ) as e:
            scored("bert", method)
        assert all(name in str(e.value) for name in METHODS)
        assert not any(f", {name}" in str(e.value) for name in RULED)
    for rules in ("relp", rule_set("cp-lrp")):
        with pytest.raises(InputError, match="language models alone"):
            scored("bert", "gradient-x-input", rules=rules)
    with pytest.raises(InputError, match="rules='lrp' is unknown"):
        scored("bert", "gradient-x-input", rules="lrp")
    plain = scored("bert", "gradient-x-input")
    for none in ("gradient", RuleSet.of(name="mine")):
        assert torch.equal(scored("bert", "gradient-x-input", rules=none).values, plain.values)


def test_other_models_are_refused() -> None:
    from attribution.inputs.classifier import ClassifierExplained
    from tests.tiny import tiny

    def refused(model: Any, message: str, **more: Any) -> None:
        with pytest.raises(InputError, match=message):
            scored(model, "random", [[2, 3]], 0, **more)

    refused(made("bert", num_labels=1), "BertForSequenceClassification has 1 labels")
    refused(made("bert", problem_type="multi_label_classification"), "problem_type='multi_label_classification'")
    refused(made("bert", is_decoder=True), "no bidirectional encoder")
    decoder = transformers.GPT2ForSequenceClassification(tiny_module("gpt2", torch.float32).config)
    refused(decoder, "GPT2ForSequenceClassification is no bidirectional encoder")
    refused(made("bert").bert, "model is a BertModel; give what interp.load_model returns")
    refused(tiny("gpt2"), "tokenizer goes with a sequence classifier", tokenizer=word_tokenizer())

    class IdsAlone(transformers.BertForSequenceClassification):
        def forward(self, input_ids: Any = None, attention_mask: Any = None) -> Any:
            return super().forward(input_ids, attention_mask)

    class Scaled(transformers.BertForSequenceClassification):
        def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **more: Any) -> Any:
            if inputs_embeds is not None:
                return super().forward(inputs_embeds=2 * inputs_embeds, **more)
            return super().forward(input_ids, **more)

    config = transformers.BertConfig(**_SIZES)
    refused(IdsAlone(config), "IdsAlone takes no inputs_embeds")
    refused(Scaled(config), "Scaled is not understood: from word embeddings it gives other logits")
    assert ClassifierExplained.of(made("bert")).anatomy.max_positions == POSITIONS


# ---- nothing is left behind


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_nothing_is_left_behind(name: str, method: str) -> None:
    """A model in training mode, dropout and all, with a hook of the user's and one part in eval mode."""
    model = made(name).train()
    encoder = getattr(model, name)
    encoder.encoder.layer[1].eval()
    model.classifier.register_forward_hook(lambda module, args, output: None)
    assert model.config._attn_implementation == "sdpa"

    def state() -> tuple[Any, ...]:
        hooks = [(list(part._forward_hooks), list(part._backward_hooks), part.training) for part in model.modules()]
        own = [sorted(part.__dict__) for part in model.modules()]
        grads = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        numbers = (torch.get_rng_state().tolist(), random.getstate(), kind, list(keys), rest)
        return hooks, own, grads, numbers, torch.is_grad_enabled(), str(model.config.__dict__)

    weights = {key: value.clone() for key, value in model.state_dict().items()}
    before = state()
    found = scored(model, method)
    assert state() == before
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not found.values.requires_grad
    assert not found.logits.requires_grad
    assert torch.equal(found.values, known(name, method).values)  # no dropout
    with torch.no_grad():
        assert torch.equal(scored(model, method).values, found.values)
    assert state() == before


def test_attention_is_told_before_and_after_a_rollout() -> None:
    """transformers puts hooks on a model that is asked for its patterns; taken off, it can put them on again."""
    model = made("bert")
    first = scored(model, "attention-rollout").values
    model.set_attn_implementation("eager")
    asked = model(input_ids=torch.tensor([ROWS[0]]), output_attentions=True).attentions
    assert len(asked) == 3
    assert torch.equal(scored(model, "attention-rollout").values, first)
    assert model.config._attn_implementation == "eager"
    again = model(input_ids=torch.tensor([ROWS[0]]), output_attentions=True).attentions
    assert len(again) == 3
    assert all(torch.equal(one, other) for one, other in zip(asked, again, strict=True))


def test_a_run_that_fails_leaves_nothing_either() -> None:
    model = made("bert").train()

    def fail(module: Any, args: Any) -> None:
        if module.training is False and model.config._attn_implementation == "eager":
            raise RuntimeError("failed")

    handle = model.bert.encoder.layer[2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="failed"):
        scored(model, "attention-rollout")
    handle.remove()
    assert all(part.training for part in model.modules())
    assert model.config._attn_implementation == "sdpa"
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("method", METHODS)
def test_models_in_half_precision_are_scored_in_float32(method: str) -> None:
    found, rough = (scored(made("bert", dtype), method) for dtype in (torch.float32, torch.bfloat16))
    assert rough.values.dtype == rough.logits.dtype == torch.float32
    assert rough.values.isfinite().all()
    if method not in ("reagent", "integrated-gradients"):  # whose coarse steps from zero differ by more
        assert error(rough.values, found.values) < 0.2
