"""What `attribution.tokens` takes: inputs and targets in every form, and one clear sentence for everything else."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from attribution import TokenAttributions, tokens
from interp.errors import InputError
from interp.models import load_model
from tests.oracle import model_of
from tests.tiny import VOCAB, tiny, tiny_module, word_tokenizer

BOS, A, B, C = 2, 4, 5, 6  # of the word tokenizer
ROWS = [[3, 9, 27, 14, 5], [30, 2, 7]]
PADDED = torch.tensor([[3, 9, 27, 14, 5], [30, 2, 7, 1, 1]])
LEFT = torch.tensor([[3, 9, 27, 14, 5], [1, 1, 30, 2, 7]])


@functools.cache
def worded(bos: str | None = "<bos>") -> Any:
    """A tiny model that reads the words a, b and c."""
    return load_model(tiny_module("gpt2", torch.float32), tokenizer=word_tokenizer(bos))


def scored(
    inputs: Any, target: Any = None, model: Any = None, method: str = "random", **more: Any
) -> TokenAttributions:
    return tokens(model_of("gpt2") if model is None else model, inputs, target, method, quiet=True, **more)


def real_ids(result: TokenAttributions) -> list[list[int]]:
    return [row[real].tolist() for row, real in zip(result.ids, result.mask, strict=True)]


# ---- inputs


@pytest.mark.parametrize(
    "inputs",
    [ROWS, [tuple(row) for row in ROWS], tuple(ROWS)],
    ids=["lists", "tuples", "tuple of lists"],
)
def test_ids_of_different_length_are_padded_on_the_right(inputs: Any) -> None:
    result = scored(inputs)
    assert real_ids(result) == ROWS
    assert result.mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert result.tokens == [[str(i) for i in row] for row in ROWS]  # no tokenizer: ids as they are


@pytest.mark.parametrize("inputs", [[3, 9, 27], torch.tensor([3, 9, 27]), torch.tensor([[3, 9, 27]]).int()])
def test_one_input_needs_no_outer_list(inputs: Any) -> None:
    result = scored(inputs)
    assert result.values.shape == (1, 3)
    assert real_ids(result) == [[3, 9, 27]]


@pytest.mark.parametrize("kind", [torch.long, torch.bool, list])
@pytest.mark.parametrize("padded", [PADDED, LEFT], ids=["right", "left"])
def test_padded_ids_with_a_mask_are_the_inputs_without_padding(padded: torch.Tensor, kind: Any) -> None:
    real = padded != 1
    result = scored(padded, method="attnlrp", attention_mask=real.tolist() if kind is list else real.to(kind))
    plain = scored(ROWS, method="attnlrp")
    assert real_ids(result) == ROWS
    assert torch.allclose(result.values, plain.values, rtol=0, atol=1e-12)
    assert torch.equal(result.target, plain.target)


def test_one_row_of_ids_takes_one_row_of_mask() -> None:
    for inputs, mask in (([1, 3, 9], [0, 1, 1]), (torch.tensor([1, 3, 9]), torch.tensor([0, 1, 1]))):
        assert real_ids(scored(inputs, attention_mask=mask)) == [[3, 9]]


def test_what_is_given_is_not_changed() -> None:
    rows, padded, mask = [list(row) for row in ROWS], LEFT.clone(), (LEFT != 1).long()
    scored(rows)
    scored(padded, attention_mask=mask)
    assert rows == ROWS
    assert torch.equal(padded, LEFT)
    assert torch.equal(mask, (LEFT != 1).long())


def test_strings_get_bos_once() -> None:
    def ids(inputs: Any, bos: str | None = "<bos>", **more: Any) -> list[list[int]]:
        return real_ids(scored(inputs, model=worded(bos), **more))

    assert ids("a b c") == ids(["a b c"]) == [[BOS, A, B, C]]
    assert ids(["a", "b c"]) == [[BOS, A], [BOS, B, C]]
    assert ids("<bos> a") == [[BOS, A]]
    assert ids("a b", prepend_bos=True) == [[BOS, A, B]]
    assert ids("a b", prepend_bos=False) == [[A, B]]
    assert ids([[A, B]], prepend_bos=True) == [[A, B]]  # ids are taken as they are
    assert scored("a b", model=worded()).tokens == [["<bos>", "a", "b"]]


BAD_INPUTS: list[tuple[Any, str]] = [
    (torch.tensor([[1.0, 2.0]]), r"inputs as a tensor must be whole numbers.*float32"),
    (torch.zeros(1, 2, 3, dtype=torch.long), r"inputs as a tensor must be .*\[n, pos\].*\[1, 2, 3\]"),
    (torch.tensor(3), r"inputs as a tensor must be .*\[n, pos\]"),
    (torch.tensor([[True, False]]), r"must be whole numbers .*bool"),
    (torch.zeros(0, 3, dtype=torch.long), "inputs must be .* at least one"),
    ([], r"inputs must be .* at least one; got \[\]"),
    (None, "inputs must be strings or token ids .*None"),
    (5, "inputs must be strings or token ids .*5"),
    ({"input_ids": [[1]]}, "give its .input_ids."),
    ([[1, 2], []], r"input 1 must be .* at least one token id .*got \[\]"),
    ([[]], r"input 0 must be .* at least one token id .*got \[\]"),
    ([[1, 2], [3, VOCAB]], rf"input 1 must be .* from 0 to {VOCAB - 1}.*{VOCAB}"),
    ([[1, -1]], r"input 0 must be .* from 0 to .*-1"),
    ([True, False], r"input 0 must be .*True"),
    ([[1, True]], r"input 0 must be .*True"),
    ([[1, 2.0]], r"input 0 must be .*2\.0"),
    ([["a", "b"]], r"input 0 must be .*'a'"),
    (["a", [1]], r"input 0 must be .* one kind; got 'a'"),
    ([[1], "a"], r"input 1 must be .* one kind; got 'a'"),
    ([1, [2, 3]], r"input 0 must be .* one kind; got 1"),
    ([1.5, 2.0], r"input 0 must be .*1\.5"),
    ([None], r"input 0 must be .*None"),
]


@pytest.mark.parametrize(("inputs", "message"), BAD_INPUTS, ids=[repr(inputs)[:30] for inputs, _ in BAD_INPUTS])
def test_bad_inputs_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scored(inputs)


BAD_MASKS: list[tuple[Any, Any]] = [
    ([[1, 2, 3]], [[1, 1]]),
    ([[1, 2, 3]], [[1, 1, 1], [1, 1, 1]]),
    (ROWS, [[1] * 5, [1] * 5]),  # rows that are not padded
    ([[1, 2], [3]], [[1, 1], [1, 1, 1]]),
    ([[1, 2, 3]], "111"),
    ([[1, 2, 3]], [[1, 0, 1]]),  # a hole is no padding: the tokens around it would move together
    ([1, [2, 3]], [[1], [1, 1]]),
]


@pytest.mark.parametrize(("inputs", "mask"), BAD_MASKS, ids=[repr(mask) for _, mask in BAD_MASKS])
def test_bad_masks_are_refused(inputs: Any, mask: Any) -> None:
    with pytest.raises(InputError, match=r"attention_mask|input 0"):
        scored(inputs, attention_mask=mask)


def test_a_mask_of_another_shape_is_told_apart_from_the_right_one() -> None:
    with pytest.raises(InputError, match=r"attention_mask .*shape of inputs.*got"):
        scored([[1, 2, 3]], attention_mask=[[1, 1]])


def test_masks_and_strings_and_empty_rows() -> None:
    with pytest.raises(InputError, match="attention_mask goes with token ids"):
        scored("a b", model=worded(), attention_mask=[[1, 1]])
    with pytest.raises(InputError, match=r"input 1 must be .* at least one token id"):
        scored([[1, 2], [3, 4]], attention_mask=[[1, 1], [0, 0]])
    with pytest.raises(InputError, match=r"input 0 must be .* at least one token id"):
        scored("", model=worded(), prepend_bos=False)


def test_strings_need_a_tokenizer_and_asked_for_bos_a_bos() -> None:
    with pytest.raises(InputError, match="the model has no tokenizer"):
        scored("a b")
    with pytest.raises(InputError, match="the model has no tokenizer"):
        scored([[1, 2]], " a")
    model = load_model(tiny_module("llama", torch.float32), tokenizer=word_tokenizer())
    model.tokenizer.bos_token = None
    with pytest.raises(InputError, match="prepend_bos=True, but the tokenizer has no BOS"):
        scored("a b", model=model, prepend_bos=True)


def test_inputs_too_long_for_learned_positions_are_refused() -> None:
    with pytest.raises(InputError, match="33 tokens are too long"):
        scored([list(range(33))])


# ---- targets


def logits_of(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """At the last position of each row, one row at a time."""
    with torch.no_grad():
        return torch.stack([model(torch.tensor([row]))[0, -1] for row in rows])


def test_without_a_target_the_most_likely_token_is_explained() -> None:
    logits = logits_of(model_of("gpt2"), ROWS)
    result = scored(ROWS)
    assert result.target.tolist() == [[int(best), -1] for best in logits.argmax(1)]
    assert torch.allclose(result.logits, logits.max(1).values, atol=1e-12, rtol=0)


PAIRS = [(7, 9), (4, 8)]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (7, [[7, -1], [7, -1]]),
        (torch.tensor(7), [[7, -1], [7, -1]]),
        ([7, 4], [[7, -1], [4, -1]]),
        (torch.tensor([7, 4]), [[7, -1], [4, -1]]),
        ((7, 9), [[7, 9], [7, 9]]),
        (PAIRS, [[7, 9], [4, 8]]),
        ([list(pair) for pair in PAIRS], [[7, 9], [4, 8]]),
        (torch.tensor(PAIRS), [[7, 9], [4, 8]]),
        ([7, (4, 8)], [[7, -1], [4, 8]]),
        ([(7,), (4, 8)], [[7, -1], [4, 8]]),
    ],
    ids=repr,
)
def test_targets_in_every_form(target: Any, expected: list[list[int]]) -> None:
    result = scored(ROWS, target)
    assert result.target.tolist() == expected
    logits = logits_of(model_of("gpt2"), ROWS)
    for row, (this, that), found in zip(logits, expected, result.logits, strict=True):
        assert float(found) == pytest.approx(float(row[this] - (row[that] if that >= 0 else 0)), abs=1e-12)


def test_targets_by_name() -> None:
    def target(given: Any, inputs: Any = ("a b", "c")) -> list[list[int]]:
        return scored(list(inputs), given, worded()).target.tolist()

    assert target("a") == [[A, -1]] * 2
    assert target(("a", "b")) == [[A, B]] * 2
    assert target(["a", "c"]) == [[A, -1], [C, -1]]
    assert target(["a", ("b", C)]) == [[A, -1], [B, C]]
    assert target([["a", "b"], ["b", "c"]]) == [[A, B], [B, C]]
    assert scored("a b", ("a", "b"), worded()).target_tokens == ["a - b"]
    assert scored("a b", "c", worded()).target_tokens == ["c"]


BAD_TARGETS: list[tuple[Any, str]] = [
    (VOCAB, rf"target of input 0 must be a token id from 0 to {VOCAB - 1} or a string; got {VOCAB}"),
    (-1, "target of input 0 .*-1"),
    (True, "target of input 0 .*True"),
    ((7, True), "target of input 0 .*True"),
    ([7, None], "target of input 1 .*None"),
    (torch.tensor([7.0, 4.0]), r"target of input 0 .*7\.0"),
    (7.0, "target must be one token, a pair .*float"),
    ({"a": 1}, "target must be one token, a pair .*dict"),
    ([7], "target must be .* each of the 2 inputs; got 1 entries"),
    ([7, 4, 5], "target must be .* each of the 2 inputs; got 3 entries"),
    ([(7, 9)], "target must be .* each of the 2 inputs; got 1 entries"),
    ((7, 8, 9), r"target of input 0 must be a token or a pair .*\(7, 8, 9\)"),
    ((), "target of input 0 must be a token or a pair"),
    ([7, (4, 5, 6)], r"target of input 1 must be a token or a pair .*\(4, 5, 6\)"),
    ((7, 7), "target contrasts a token with itself"),
    ([(7, 8), (9, 9)], "target contrasts a token with itself"),
]


@pytest.mark.parametrize(("target", "message"), BAD_TARGETS, ids=[repr(target) for target, _ in BAD_TARGETS])
def test_bad_targets_are_refused(target: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scored(ROWS, target)


def test_targets_of_several_tokens_and_unknown_words_are_refused() -> None:
    for target, message in (
        ("a b", r"target.*'a b'.* is 2 tokens \('a', 'b'\)"),
        (("a", "b c"), r"target.*'b c'.* is 2 tokens"),
        ("", "target.* is 0 tokens"),
        ("zebra", "target.*'zebra'.* not in the tokenizer's vocabulary"),
    ):
        with pytest.raises(InputError, match=message):
            scored("a b", target, worded())


def test_a_word_that_the_model_has_no_row_for_is_refused() -> None:
    model = load_model(tiny_module("gpt2", torch.float32, vocab_size=6), tokenizer=word_tokenizer())
    assert scored("a b", "b", model).target.tolist() == [[B, -1]]
    with pytest.raises(InputError, match="target"):
        scored("a b", "c", model)
    with pytest.raises(InputError, match="input 0"):
        scored("a c", model=model)


# ---- methods and settings

BAD_SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    ("ig", {}, "method='ig' is unknown"),
    ("occlusion", {"steps": 3}, "steps is no setting of method='occlusion', which takes: baseline, window"),
    ("attnlrp", {"rules": "relp"}, "rules is no setting of method='attnlrp', which takes: none"),
    ("occlusion", {"windw": 3}, "keyword of tokens='windw' is unknown; did you mean 'window'"),
    ("integrated-gradients", {"steps": 0}, "steps=0 must be a whole number of at least 1"),
    ("integrated-gradients", {"steps": 2.5}, r"steps=2\.5 must be a whole number"),
    ("integrated-gradients", {"steps": True}, "steps=True must be a whole number"),
    ("gradient-shap", {"samples": 0}, "samples=0 must be"),
    ("occlusion", {"window": 0}, "window=0 must be"),
    ("gradient-shap", {"noise": -0.1}, r"noise=-0\.1 must be a number of at least 0"),
    ("gradient-shap", {"noise": float("nan")}, "noise=nan must be"),
    ("gradient-shap", {"noise": float("inf")}, "noise=inf must be"),
    ("gradient-shap", {"noise": "much"}, "noise='much' must be"),
    ("random", {"seed": "x"}, "seed='x' must be"),
    ("random", {"seed": 1.5}, r"seed=1\.5 must be"),
    ("reagent", {"share": 0.0}, r"share=0\.0 must be a number above 0 and below 1"),
    ("reagent", {"share": 1}, r"share=1\.0 must be a number above 0 and below 1"),
    ("reagent", {"kept": 1.5}, r"kept=1\.5 must be a number above 0 and below 1"),
    ("reagent", {"share": "half"}, "share='half' must be a number"),
    ("reagent", {"runs": 0}, "runs=0 must be a whole number"),
    ("reagent", {"runs": True}, "runs=True must be a whole number"),
    ("reagent", {"max_steps": 0}, "max_steps=0 must be a whole number"),
    ("reagent", {"change": "logit"}, "change='logit' is unknown.*target, distribution"),
    ("occlusion", {"baseline": "median"}, "baseline='median' is unknown.*zero, mean, pad"),
    ("occlusion", {"baseline": "pad"}, "baseline='pad', but the model's tokenizer has no such token; try 'zero'"),
    ("feature-ablation", {"baseline": VOCAB}, f"baseline={VOCAB} is no token id"),
    ("feature-ablation", {"baseline": -1}, "baseline=-1 is no token id"),
    ("integrated-gradients", {"baseline": True}, "baseline=True"),
    ("gradient-x-input", {"rules": "lrp"}, "rules='lrp' is unknown"),
    ("gradient-x-input", {"rules": 3}, "rules must be a name .* or a RuleSet; got int"),
    ("reagent", {"target": (7, 9)}, "method='reagent' explains one token's probability; give target as a single"),
    ("attnlrp", {"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
    ("attnlrp", {"memory": 5}, "memory=5 must be a whole number of at least 1048576"),
]


@pytest.mark.parametrize(("method", "settings", "message"), BAD_SETTINGS, ids=[f"{m}-{s}" for m, s, _ in BAD_SETTINGS])
def test_bad_settings_are_refused(method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scored(ROWS, method=method, **settings)


def test_a_baseline_that_the_tokenizer_has() -> None:
    for name, token in (("bos", BOS), ("eos", 1), ("unk", 0)):
        by_name, by_id = (scored("a b c", model=worded(), method="occlusion", baseline=b) for b in (name, token))
        assert torch.equal(by_name.values, by_id.values)


def test_only_models_with_an_anatomy_are_explained() -> None:
    with pytest.raises(InputError):
        tokens(torch.nn.Linear(2, 2), [[1, 2]], quiet=True)
    model = tiny("gpt2")
    model.add_hook("blocks.0.hook_in", lambda x, hook: x)  # a run of ours would not see it
    with pytest.raises(InputError, match="hook"):
        tokens(model, [[1, 2]], quiet=True)
