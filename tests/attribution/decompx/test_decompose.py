"""DecompX of tiny models: sums, slow references for the held network, what must not change it, what is refused.

The references here are the transformers modules, and gradients of a bridge in which everything held is a constant; the
method's formulas, one position and one source at a time, are in `test_decompose_by_hand`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from attribution import Decomposition, decompose, tokens
from attribution.decompx import carry, propagate
from attribution.decompx import decompose as module
from interp.errors import InputError
from tests.attribution.decompx.test_decompose_edges import HELD, HeldGates
from tests.attribution.inputs.test_token_classifiers import CLASSES, made, word_tokenizer
from tests.attribution.inputs.test_token_classifiers import model_of as encoder_of
from tests.oracle import error
from tests.oracle import model_of as decoder_of
from tests.rule_oracle import Ruled, Rules
from tests.tiny import LAYERS, MLP, mostly_slow, shared, stay_in_float64, tiny, tiny_module

DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "opt")
GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")
ENCODERS = ("bert", "roberta")
BIASES = ("absdot", "cosine", "norm", "equal", "first", "separate")
ACTIVATIONS = ("zero-origin", "tangent", "relu")
ROWS = [[2, 9, 27, 14, 5, 44, 3], [2, 7, 3], [11], [2, 12, 13, 40, 3]]
TARGETS: list[Any] = [(7, 20), 33, 9, (4, 5)]
TOLERANCE = 1e-10
TANGENT = Rules(norm=True, routing=True, attention="held")


def model_of(name: str) -> Any:
    return encoder_of(name) if name in ENCODERS else decoder_of(name)


def split(name: str, rows: Any = None, target: Any = None, **settings: Any) -> Decomposition:
    rows = ROWS if rows is None else rows
    target = TARGETS[: len(rows)] if target is None and name not in ENCODERS else target
    return decompose(model_of(name), rows, target, quiet=True, **settings)


@torch.no_grad()
def models_own(model: Any, row: list[int], target: Any = None) -> Tensor:
    """The logits of the classes, or [1] the explained one, by the model's own forward."""
    if target is None:
        return model(input_ids=torch.tensor([row])).logits[0]
    last = model(torch.tensor([row]))[0, -1]
    return (last[target] if isinstance(target, int) else last[target[0]] - last[target[1]])[None]


# ---- sums


ENDS = [ROWS[0], ROWS[2]]  # for sums, the longest and the shortest


@functools.cache
def sums_of(name: str) -> list[Tensor]:
    """What contributions of `ENDS` must add up to."""
    targets = [TARGETS[0], TARGETS[2]] if name in DECODERS else [None] * 2
    return [models_own(model_of(name), row, target) for row, target in zip(ENDS, targets, strict=True)]


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", mostly_slow([*DECODERS, *ENCODERS], {"gpt2", "gemma2", "opt", "roberta"}.__contains__))
def test_contributions_sum_to_the_models_own_logits_whatever_the_options(name: str, bias: str) -> None:
    expected, targets = sums_of(name), None if name in ENCODERS else [TARGETS[0], TARGETS[2]]
    for gate in ("held", "halves") if name in GATED else ("held",):
        for activation in ACTIVATIONS:
            found = split(name, ENDS, targets, bias=bias, activation=activation, gate=gate)
            sums = found.logits.sum(1) + found.bias
            off = max(float((ours - theirs).abs().max()) for ours, theirs in zip(sums, expected, strict=True))
            # ReLU's mask is not the activation, unless it is never asked for
            exact = activation != "relu" or name == "opt" or (name in GATED and gate == "held" and name != "gemma2")
            assert off < TOLERANCE if exact else off > 1e-3, (gate, activation)
            assert found.error == pytest.approx(off, abs=1e-12)
            if activation == "zero-origin":  # tangents have intercepts
                assert found.bias.any() == (bias == "separate" and name in ("gpt2", "opt", "qwen2", *ENCODERS))
            assert (found.model_logits - torch.stack(expected)).abs().max() < TOLERANCE


@functools.cache
def single(name: str) -> Any:
    return made(name, torch.float32) if name in ENCODERS else shared(name, torch.float32)


@pytest.mark.parametrize("name", mostly_slow([*DECODERS, *ENCODERS], {"gpt2", "roberta"}.__contains__))
def test_sums_in_float32(name: str) -> None:
    with torch.no_grad():  # of decoders, the most likely token
        expected = [
            models_own(single(name), row) if name in ENCODERS else single(name)(torch.tensor([row]))[0, -1].max()[None]
            for row in ROWS
        ]
    for bias in ("absdot", "cosine", "separate"):
        for activation in ("zero-origin", "tangent"):
            found = decompose(single(name), ROWS, bias=bias, activation=activation, quiet=True)
            assert found.logits.dtype == torch.float32
            for ours, bias_of, logits in zip(found.logits, found.bias, expected, strict=True):
                assert (ours.sum(0) + bias_of - logits).abs().max() < 1e-4


def test_kept_value_biases_of_the_first_layer_stay_exact() -> None:
    for name in ("bert", "gpt2", "qwen2"):
        for bias in BIASES[:-1]:
            found = split(name, ROWS[:2], bias=bias, first_value_bias="kept")
            assert found.error < TOLERANCE
            assert error(split(name, ROWS[:2], bias=bias).logits, found.logits) > 1e-4


@functools.cache
def module_of(name: str) -> Any:
    """The transformers module alone, with patterns to be had."""
    module: Any = made(name) if name in ENCODERS else tiny_module(name)
    if name in ENCODERS:
        module.set_attn_implementation("eager")
    else:
        stay_in_float64(module)
    return module


@functools.cache
@torch.no_grad()
def hidden_states(name: str) -> list[Tensor]:
    """By input: the hidden states [layer, pos, d_model] behind every layer, as the transformers module gives them."""
    outputs = [module_of(name)(torch.tensor([row]), output_hidden_states=True) for row in ROWS]
    return [torch.cat(output.hidden_states)[1:] for output in outputs]


@pytest.mark.parametrize("bias", ["absdot", "equal", "separate"])
@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_states_sum_to_hidden_states_of_the_transformers_module(name: str, bias: str) -> None:
    found = split(name, bias=bias, states=True)
    apart = int(bias == "separate")
    assert found.states is not None
    assert found.norms is not None
    assert found.norms.shape == (LAYERS, 4, 7, 7)
    for i, row in enumerate(ROWS):
        hidden, states = hidden_states(name)[i], found.states[i]
        assert states.shape == (LAYERS, len(row), len(row) + apart, 16)
        sums = states.sum(2)
        if name in DECODERS:  # transformers gives the last one behind the final norm
            places = r"(ln_f|decoder\.final_layer_norm|model\.norm)"
            (final,) = [part for key, part in module_of(name).named_modules() if re.search(f"{places}$", key)]
            with torch.no_grad():
                sums = torch.cat((sums[:-1], final(sums[-1:])))
        assert error(sums, hidden) < TOLERANCE
        tokens_alone = states[:, :, apart:]
        assert error(found.norms[:, i, : len(row), : len(row)], tokens_alone.norm(dim=-1)) < TOLERANCE
        if name in DECODERS:  # nothing comes from what stands behind
            assert not tokens_alone[:, *torch.ones(len(row), len(row)).triu(1).nonzero().T].any()


# ---- decoders against gradients of a bridge in which everything held is a constant


def held(name: str, gate: str, activation: str) -> Ruled:
    if activation == "tangent":
        return Ruled(decoder_of(name), TANGENT.but(product=gate == "halves"))
    rules = HELD.but(product=gate == "halves")
    return Ruled(decoder_of(name), rules) if gate == "halves" else HeldGates(decoder_of(name), HELD)


CASES = [
    *((name, "held", "zero-origin") for name in DECODERS),
    *((name, "halves", how) for name in GATED for how in ("zero-origin", "tangent")),
    ("gpt2", "held", "tangent"),
    ("opt", "held", "tangent"),
]


@pytest.mark.parametrize(("name", "gate", "activation"), CASES)
def test_tokens_of_decoders_are_embedding_times_gradient_of_the_held_model(
    name: str, gate: str, activation: str
) -> None:
    found = split(name, bias="separate", activation=activation, gate=gate, states=True)
    assert found.states is not None
    ruled = held(name, gate, activation)
    for i, (row, target) in enumerate(zip(ROWS, TARGETS, strict=True)):
        seen: dict[str, Tensor] = {}
        hooks = [
            ("blocks.0.hook_in", lambda x, hook, seen=seen: seen.setdefault("leaf", x.detach().requires_grad_())),
            ("blocks.1.hook_out", lambda x, hook, seen=seen: seen.setdefault("middle", x)),
        ]
        last: Tensor = ruled.run_with_hooks(torch.tensor([row]), hooks)[0, -1]
        leaf, middle = seen["leaf"], seen["middle"]
        value = last[target] if isinstance(target, int) else last[target[0]] - last[target[1]]
        (slope,) = torch.autograd.grad(value, leaf, retain_graph=True)
        assert error(found.logits[i, : len(row), 0], (leaf * slope).detach().sum(-1)[0]) < TOLERANCE
        # D_ij of a layer in the middle: the Jacobian at the embedding of j, along a direction at i
        direction = torch.randn(16, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        for position in range(len(row)):
            (slope,) = torch.autograd.grad(middle[0, position] @ direction, leaf, retain_graph=True)
            ours = found.states[i][1, position, 1:] @ direction
            assert error(ours, (leaf * slope).detach().sum(-1)[0]) < TOLERANCE


@pytest.mark.parametrize("name", DECODERS)
def test_tokens_of_decoders_are_those_of_the_backward_rules(name: str) -> None:
    settings: Any
    for gate, settings in (
        ("halves", {"method": "cp-lrp"}),
        ("held", {"method": "gradient-x-input", "rules": "decompx"}),
    ):
        rules: Any = tokens(decoder_of(name), ROWS, TARGETS, quiet=True, **settings)
        found = split(name, bias="separate", gate=gate)
        assert error(found.logits[..., 0], rules.values) < TOLERANCE, gate


# ---- what must not change it


TWO = [ROWS[3], ROWS[1]]  # chunks and groups are taken input by input


def same(a: Decomposition, b: Decomposition, tolerance: float = TOLERANCE) -> None:
    assert error(a.logits, b.logits) < tolerance
    assert (a.bias - b.bias).abs().max() < tolerance
    assert a.norms is not None
    assert b.norms is not None
    assert error(a.norms, b.norms) < tolerance
    assert a.states is not None
    assert b.states is not None
    assert all(error(x, y) < tolerance for x, y in zip(a.states, b.states, strict=True))


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize(
    "name", mostly_slow(["gpt2", "llama", "gemma3", "opt", "roberta"], {"gemma3", "roberta"}.__contains__)
)
def test_chunks_change_nothing(name: str, bias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = split(name, TWO, bias=bias, activation="tangent", gate="halves", states=True)
    lean = split(name, TWO, bias=bias, activation="tangent", gate="halves", matrices=False)
    assert lean.norms is lean.states is None
    assert error(lean.logits, whole.logits) < TOLERANCE
    for size in (1, MLP * 20, 16 * 5 * 4 * 3):  # one at a time, and a few
        monkeypatch.setattr(propagate, "_CHUNK", size)
        same(split(name, TWO, bias=bias, activation="tangent", gate="halves", states=True), whole)
        lean = split(name, TWO, bias=bias, activation="tangent", gate="halves", matrices=False)
        assert error(lean.logits, whole.logits) < TOLERANCE


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    "name", mostly_slow(["gpt2", "llama", "gemma3", "opt", "bert"], {"gemma3", "bert"}.__contains__)
)
def test_groups_of_sources_change_nothing_where_biases_are_apart(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(explained: Any, length: int, options: Any, memory: Any) -> list[range]:
        return [range(first, min(length + 1, first + size)) for first in range(0, length + 1, size)]

    whole = split(name, TWO, bias="separate", states=True)
    lean = split(name, TWO, bias="separate", matrices=False)
    monkeypatch.setattr(module, "groups_of_sources", few)
    same(split(name, TWO, bias="separate", states=True), whole)
    assert error(split(name, TWO, bias="separate", matrices=False).logits, lean.logits) < TOLERANCE
    monkeypatch.setattr(propagate, "_CHUNK", 16 * 9)
    same(split(name, TWO, bias="separate", states=True), whole)


LONG = [[(7 * i) % 40 + 5 for i in range(120)]]


@functools.cache
def long_model(name: str) -> Any:
    sizes: Any = {"gpt2": {"n_positions": 150}, "bert": {"max_position_embeddings": 150}}[name]
    return made(name, **sizes) if name in ENCODERS else tiny(name, **sizes)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_small_budget_takes_sources_in_groups_where_biases_are_apart(name: str) -> None:
    model = long_model(name)
    whole = decompose(model, LONG, bias="separate", quiet=True)
    # 120 places of 16 numbers of 8 bytes twice: 30 KiB a source, 34 of 121 in a MiB
    tight = decompose(model, LONG, bias="separate", memory=1 << 20, quiet=True)
    assert error(tight.logits, whole.logits) < TOLERANCE
    assert tight.norms is not None
    assert whole.norms is not None
    assert error(tight.norms, whole.norms) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_too_little_memory_is_refused_with_the_figure_before_anything_runs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = long_model(name)
    ran: list[Any] = []
    decompose(model, [[5, 6]], quiet=True)

    def note(*args: Any) -> Any:
        ran.append(args)
        raise AssertionError

    for place in (module, carry):
        monkeypatch.setattr(place, "held_run", note)
    message = r"memory=1 MiB .* 120 tokens.* take 4 MiB.*bias='separate'"  # 3.5
    with pytest.raises(InputError, match=message):
        decompose(model, [[5, 6], *LONG], memory=1 << 20, quiet=True)
    with pytest.raises(InputError, match="memory=5 must be a whole number of at least 1048576"):
        decompose(model, LONG, memory=5, quiet=True)
    assert not ran
    with pytest.raises(InputError, match=message):  # not only when the long one's turn comes
        tokens(model, [[5, 6], *LONG], 0, "decompx", memory=1 << 20, quiet=True)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "bert", "roberta"])
def test_inputs_of_different_length_are_as_they_are_alone(name: str) -> None:
    together = split(name, states=True)
    assert together.mask.sum(1).tolist() == [len(row) for row in ROWS]
    assert not together.logits[~together.mask].any()
    assert together.norms is not None
    assert together.states is not None
    targets = TARGETS if name in DECODERS else [None] * 4
    for i, (row, target) in enumerate(zip(ROWS, targets, strict=True)):
        alone = split(name, [row], target, states=True)
        assert alone.norms is not None
        assert alone.states is not None
        assert error(together.logits[i, : len(row)], alone.logits[0]) < TOLERANCE
        assert error(together.norms[:, i, : len(row), : len(row)], alone.norms[:, 0]) < TOLERANCE
        assert error(together.states[i], alone.states[0]) < TOLERANCE
        assert not together.norms[:, i, len(row) :].any()
        assert not together.norms[:, i, :, len(row) :].any()
    padded = torch.zeros(4, 7, dtype=torch.long)
    for i, row in enumerate(ROWS):
        padded[i, 7 - len(row) :] = torch.tensor(row)
    masks = torch.arange(7) >= 7 - torch.tensor([[len(row)] for row in ROWS])
    masked = split(name, padded, None if name in ENCODERS else TARGETS, attention_mask=masks)
    assert error(masked.logits, together.logits) < TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2"])
def test_causal_models_never_see_later_tokens(name: str) -> None:
    long, short = split(name, [ROWS[0]], 7, states=True), split(name, [ROWS[0][:4]], 7, states=True)
    assert long.states is not None
    assert short.states is not None
    assert error(long.states[0][:, :4, :4], short.states[0]) < TOLERANCE
    assert not long.states[0][:, :4, 4:].any()


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_it_is_a_method_of_tokens(name: str) -> None:
    settings: Any
    for settings in ({}, {"bias": "separate", "activation": "tangent", "gate": "halves"}):
        found = split(name, **settings)
        if name in DECODERS:
            scores = tokens(decoder_of(name), ROWS, TARGETS, "decompx", quiet=True, **settings)
            assert error(scores.values, found.logits[..., 0]) < TOLERANCE
        else:
            scores = tokens(encoder_of(name), ROWS, [0, 1, 2, 3], "decompx", quiet=True, **settings)
            assert error(scores.values, torch.stack([found.logits[i, :, i] for i in range(4)])) < TOLERANCE
            contrast = tokens(encoder_of(name), ROWS, (4, 1), "decompx", quiet=True, **settings)
            assert error(contrast.values, found.logits[..., 4] - found.logits[..., 1]) < TOLERANCE


def test_targets() -> None:
    model = decoder_of("llama")
    none = decompose(model, ROWS[:2], quiet=True)
    with torch.no_grad():
        best = [model(torch.tensor([row]))[0, -1].max() for row in ROWS[:2]]
    assert none.model_logits[:, 0].tolist() == pytest.approx([float(b) for b in best], abs=1e-10)
    one, other, both = (split("llama", ROWS[:2], target, bias="separate") for target in (4, 9, (4, 9)))
    assert error(both.logits, one.logits - other.logits) < TOLERANCE
    assert both.logits.shape == (2, 7, 1)
    with pytest.raises(InputError, match="target is for language models"):
        decompose(encoder_of("bert"), ROWS, 1, quiet=True)
    with pytest.raises(InputError, match="itself"):
        split("llama", ROWS[:2], (4, 4))


# ---- what it leaves behind, and what it says


@pytest.mark.parametrize("kind", [*ENCODERS, "gpt2", "llama"])
def test_the_model_is_left_as_it_was(kind: str) -> None:
    model = made(kind) if kind in ENCODERS else tiny(kind)
    expected = split(kind, ROWS[:2])
    if kind in ENCODERS:
        model.train()  # all but the encoder
        next(model.children()).eval()
    else:
        decompose(model, [[5]], quiet=True)  # a bridge is validated at its first use
    before = {key: part.training for key, part in model.named_modules()}
    implementation = model.config._attn_implementation if kind in ENCODERS else None
    trainable = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    hooks = {key: (len(part._forward_hooks), len(part._forward_pre_hooks)) for key, part in model.named_modules()}
    found = decompose(model, ROWS[:2], TARGETS[:2] if kind in DECODERS else None, states=True, quiet=True)
    assert error(found.logits, expected.logits) < TOLERANCE
    assert {key: part.training for key, part in model.named_modules()} == before
    assert {k: (len(p._forward_hooks), len(p._forward_pre_hooks)) for k, p in model.named_modules()} == hooks
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert {key: parameter.requires_grad for key, parameter in model.named_parameters()} == trainable
    assert all(parameter.grad is None for parameter in model.parameters())
    assert implementation is None or model.config._attn_implementation == implementation
    assert torch.is_grad_enabled()
    assert found.norms is not None
    assert found.states is not None
    assert not any(x.requires_grad for x in (found.logits, found.bias, found.model_logits, found.norms, *found.states))


def test_a_transformers_language_model_may_be_given_itself() -> None:
    module = tiny_module("llama")
    found = decompose(module, ROWS, TARGETS, quiet=True)
    expected = split("llama")
    assert (found.logits - expected.logits).abs().max() < 1e-5  # norms of the module itself round to float32
    assert found.classes == expected.classes


def test_strings_and_everything_that_is_shown_is_escaped(tmp_path: Path) -> None:
    model = made("bert", vocab_size=60)
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<script>"])
    model.config.id2label = {i: f"<script>{i}" for i in range(CLASSES)}
    found = decompose(model, ["a <script> b", "a"], tokenizer=tokenizer, quiet=True)
    assert found.tokens == [["[CLS]", "a", "<script>", "b", "[SEP]"], ["[CLS]", "a", "[SEP]"]]
    path = found.to_html(tmp_path / "page.html")
    for text in (path.read_text("utf-8"), found._repr_html_(), found.figure().to_json()):
        assert "<script>" not in text.replace("\\u003c", "<")
    assert "&lt;script&gt;" in found._repr_html_()
    with pytest.raises(InputError, match="strings"):
        decompose(model, ["a b"], quiet=True)


def test_a_frame_holds_every_contribution_once() -> None:
    for bias in ("absdot", "separate"):
        found = split("bert", ROWS[:2], bias=bias)
        frame: Any = found.to_frame()
        assert frame.columns.tolist() == ["input", "position", "token", "class", "contribution"]
        assert len(frame) == (7 + 3 + 2 * (bias == "separate")) * CLASSES
        for (n, label), part in frame.groupby(["input", "class"]):
            logit = models_own(encoder_of("bert"), ROWS[n])[found.classes[n].index(label)]
            assert part["contribution"].sum() == pytest.approx(float(logit), abs=1e-10)
        for row in frame[frame["position"] >= 0].itertuples():
            place = (row.input, row.position, found.classes[row.input].index(row._4))
            assert row.contribution == float(found.logits[place])
        assert (frame["position"] == -1).any() == (bias == "separate")


def test_a_representation_and_a_figure() -> None:
    found = split("bert")
    assert re.fullmatch(
        r"Decomposition: 4 inputs, 16 tokens, 5 classes, .*, sums to the logits within \d\.\de-1\d, .* s", repr(found)
    )
    picture = found.figure(1, 0)
    assert len(picture.data[0].z) == len(picture.data[0].z[0]) == 3
    assert found.norms is not None
    lengths = found.norms[0, 1, :3, :3]
    shares = lengths / lengths.sum(1, keepdim=True)
    assert error(torch.tensor(picture.data[0].z, dtype=torch.float64), shares) < TOLERANCE
    for settings, message in (((4, 0), "input=4"), ((-1, 0), "input=-1"), ((0, 3), "layer=3"), ((0, -4), "layer=-4")):
        with pytest.raises(InputError, match=message):
            found.figure(*settings)
    with pytest.raises(InputError, match="matrices=True"):
        split("bert", matrices=False).figure()


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bias": "absdots"}, "bias='absdots' is unknown; did you mean 'absdot'"),
        ({"activation": "gelu"}, "activation='gelu' is unknown"),
        ({"gate": "half"}, "gate='half' is unknown"),
        ({"first_value_bias": "both"}, "first_value_bias='both' is unknown"),
        ({"first_value_bias": "kept", "bias": "separate"}, "first_value_bias='kept'"),
        ({"tokenizer": 3}, "tokenizer"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_options_that_cannot_be_right_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(name, **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: decoder_of("mixtral"), "mixture of experts"),
        (lambda: decoder_of("gptj"), "parallel"),
        (lambda: decoder_of("gpt_neox"), "parallel"),
        (lambda: encoder_of("distilbert"), "DistilBertForSequenceClassification is built otherwise"),
        (lambda: encoder_of("electra"), "decompx"),
        (lambda: made("bert", is_decoder=True), "no bidirectional encoder"),
        (lambda: torch.nn.Linear(2, 2), "Linear"),
    ],
)
def test_other_models_are_refused_in_one_sentence(make: Callable[[], Any], message: str) -> None:
    for call in (lambda: decompose(make(), ROWS, quiet=True), lambda: tokens(make(), ROWS, 1, "decompx", quiet=True)):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "settings"),
    [
        ("RoFormer", {"hidden_act": "tanh"}),  # rotary positions between queries and keys
        ("RemBert", {"input_embedding_size": 16}),  # a projection between embeddings and the first layer
        ("RemBert", {"input_embedding_size": 8}),
        ("Xmod", {"default_language": "en_XX", "languages": ["en_XX"]}),  # adapters behind every layer
    ],
)
def test_classifiers_that_merely_look_like_bert_are_refused_not_explained_wrongly(
    prefix: str, settings: dict[str, Any]
) -> None:
    sizes = {
        "vocab_size": 47, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24,
        "max_position_embeddings": 24, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "num_labels": 3,
    }  # fmt: skip
    config = getattr(transformers, f"{prefix}Config")(**sizes, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{prefix}ForSequenceClassification")(config)
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * 0.3
    with pytest.raises(InputError, match="decompx"):
        decompose(model.double().eval(), [[5, 6, 7, 8]], quiet=True)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_half_precision_is_decomposed_or_refused_in_one_sentence(name: str) -> None:
    model = made(name, torch.bfloat16) if name in ENCODERS else shared(name, torch.bfloat16)
    try:
        found = decompose(model, ROWS, quiet=True)
    except InputError as refusal:
        assert "bfloat16" in str(refusal) or "precision" in str(refusal)  # noqa: PT017
    else:
        assert found.error < 0.1 * float(found.model_logits.abs().max())
