"""ReAGent: against a slow reference, on prompts whose answer is known, and what may be handed to it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import TokenAttributions, tokens
from attribution.inputs.explained import Explained
from attribution.inputs.proposals import as_proposer
from interp.errors import InputError
from interp.models import load_model
from tests.oracle import model_of
from tests.tiny import VOCAB, tiny, tiny_module, word_tokenizer

BOS = 2  # of the word tokenizer
ROW = [3, 9, 27, 14, 5, 44, 8]
WITH_BOS = [BOS, 9, 27, 14, 5, 44, 8]
Proposer = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def reagent(model: Any, rows: Any, target: Any = None, **settings: Any) -> TokenAttributions:
    return tokens(model, rows, target, "reagent", quiet=True, **settings)


@functools.cache
def worded() -> Any:
    """A tiny model whose tokenizer has a BOS token."""
    return load_model(tiny_module("gpt2", torch.float32), tokenizer=word_tokenizer())


def always(token: int) -> Proposer:
    """Every place gets the same token: nothing is drawn."""
    return lambda ids, places, generator: ids.masked_fill(places, token)


def uniform(ids: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(places, torch.randint(VOCAB, ids.shape, generator=generator), ids)


class Spy:
    """A proposer that keeps what it is asked."""

    def __init__(self, proposer: Proposer) -> None:
        self.proposer = proposer
        self.ids: list[Tensor] = []
        self.places: list[Tensor] = []

    def __call__(self, ids: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        self.ids.append(ids.clone())
        self.places.append(places.clone())
        return self.proposer(ids, places, generator)


def chances(model: Any, row: list[int]) -> Tensor:
    """The next token's probabilities, from the bridge."""
    return _chances(model, tuple(row))


@functools.cache
def _chances(model: Any, row: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([row]))[0, -1].double().softmax(-1)


# ---- the slow reference: one run, one row, one token at a time


def slow(
    model: Any, row: list[int], y: int, other: int, *, runs: int, max_steps: int, change: str, seed: int
) -> tuple[list[list[float]], list[bool]]:
    """Shares in each run and whether it converged, with `always(other)` as proposer and shares of 0.3.

    Random numbers come in this order: L of all runs, then in each step one number a token, of runs still going.
    """
    n = len(row)
    count = max(1, round(0.3 * n))
    clean = chances(model, row)
    generator = torch.Generator().manual_seed(seed)
    importance = torch.randn(runs, n, generator=generator, dtype=torch.float64).tolist()
    done = [False] * runs
    for _ in range(max_steps):
        going = [run for run in range(runs) if not done[run]]
        if not going:
            break
        draws = torch.rand(len(going), n, generator=generator).tolist()
        for run, draw in zip(going, draws, strict=True):
            replaced = sorted(range(n), key=lambda i: -draw[i])[:count]
            after = chances(model, [other if i in replaced else token for i, token in enumerate(row)])
            if change == "target":
                c = float(clean[y] - after[y])
            else:  # the Hellinger distance
                c = math.sqrt(sum((math.sqrt(p) - math.sqrt(q)) ** 2 for p, q in zip(clean, after, strict=True)) / 2)
                assert 0 <= c <= 1
            for i in range(n):
                share = (c + 1) / 2 if i in replaced else (1 - c) / 2
                importance[run][i] += math.log(share / (1 - share))
            kept = sorted(range(n), key=lambda i: -importance[run][i])[:count]
            after = chances(model, [token if i in kept else other for i, token in enumerate(row)])
            done[run] = y in after.topk(3).indices.tolist()
    return torch.tensor(importance, dtype=torch.float64).softmax(1).tolist(), done


@pytest.mark.parametrize("change", ["target", "distribution"])
@pytest.mark.parametrize(("runs", "max_steps"), [(1, 1), (3, 6)])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_it_does_what_the_paper_says(name: str, runs: int, max_steps: int, change: str) -> None:
    model, seen = model_of(name), set()
    for seed in range(4):
        for row in (ROW, [30, 2, 7, 19]):
            y = int(chances(model, row).topk(5).indices[seed])  # the fifth need not stay among three
            shares, done = slow(model, row, y, 1, runs=runs, max_steps=max_steps, change=change, seed=seed)
            settings = {"runs": runs, "max_steps": max_steps, "change": change, "seed": seed}
            found = reagent(model, [row], y, proposer=always(1), **settings)
            chosen = [share for share, converged in zip(shares, done, strict=True) if converged] or shares
            expected = torch.tensor(chosen, dtype=torch.float64).mean(0)
            assert (found.values[0] - expected).abs().max() < 1e-9
            assert found.converged is not None
            assert found.converged.tolist() == [any(done)]
            seen |= set(done)
    assert runs == 1 or seen == {True, False}


# ---- prompts whose answer is known


@functools.cache
def one_layer() -> Any:
    return tiny("llama", num_hidden_layers=1)


def spoiling(model: Any, row: list[int], place: int) -> tuple[int, int]:
    """A target, and the token that throws it out of the best three when it stands at one place."""
    y = int(chances(model, row).argmax())
    for token in range(VOCAB):
        after = chances(model, [*row[:place], token, *row[place + 1 :]])
        if y not in after.topk(3).indices:
            return y, token
    raise AssertionError("no token spoils the target there")


@pytest.mark.parametrize("change", ["target", "distribution"])
@pytest.mark.parametrize("place", [1, 4, 6])
def test_the_one_token_that_matters_comes_first(place: int, change: str) -> None:
    model = one_layer()
    y, token = spoiling(model, ROW, place)

    def there_alone(ids: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        proposed = ids.clone()  # all other tokens are "replaced" by themselves
        proposed[places[:, place], place] = token
        return proposed

    tops = []
    for seed in range(10):
        found = reagent(model, [ROW], y, proposer=there_alone, kept=0.1, change=change, seed=seed)
        assert found.converged is not None
        assert found.converged.all()
        tops.append(int(found.values[0].argmax()))
    assert tops.count(place) >= 9


def test_without_attention_only_the_last_token_matters() -> None:
    module: Any = tiny_module("llama")
    for layer in module.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    model = load_model(module)
    best = torch.stack([chances(model, [token]) for token in range(VOCAB)]).topk(3).indices
    rare = [int((best == best[token, 0]).sum()) for token in range(VOCAB)]
    last = min(range(VOCAB), key=lambda token: rare[token])  # hardly another token has its target among the best
    row = [*ROW[:-1], last]
    found = [reagent(model, [row], int(best[last, 0]), proposer=uniform, kept=0.1, seed=seed) for seed in range(10)]
    assert sum(int(one.values[0].argmax()) == len(row) - 1 for one in found) >= 9


# ---- distributions, seeds, short inputs


def test_a_target_that_never_gets_on_top_is_said_and_scored_all_the_same() -> None:
    model = model_of("gpt2")
    rows = [ROW, [30, 2, 7]]
    worst = [int(chances(model, row).argmin()) for row in rows]
    found = reagent(model, rows, worst, proposer=always(rows[0][-1]), max_steps=5)
    assert found.converged is not None
    assert found.converged.tolist() == [False, False]
    assert "2 did not converge" in repr(found)
    assert found.values.isfinite().all()
    assert (found.values >= 0).all()
    assert found.values.sum(1).tolist() == pytest.approx([1.0, 1.0])
    assert not found.values[1, 3:].any()


@pytest.mark.parametrize("proposer", [None, uniform], ids=["itself", "a function"])
def test_seeds_decide_and_the_batch_does_not(proposer: Any) -> None:
    model, rows = model_of("llama"), [ROW, [30, 2, 7], [11, 12, 13, 40, 6]]
    settings = {"proposer": proposer, "max_steps": 8, "target": 7}
    found = reagent(model, rows, seed=1, **settings)
    assert torch.equal(found.values, reagent(model, rows, seed=1, **settings).values)
    assert not torch.allclose(found.values, reagent(model, rows, seed=2, **settings).values)
    assert found.values.sum(1).tolist() == pytest.approx([1.0] * 3)
    for batch_size in (1, 2):
        batched = reagent(model, rows, seed=1, batch_size=batch_size, **settings)
        assert (batched.values - found.values).abs().max() < 1e-9
    alone = reagent(model, rows[:1], seed=1, **settings)
    assert (alone.values[0] - found.values[0]).abs().max() < 1e-9
    others = reagent(model, [[4, 4], *rows[1:]], seed=1, **settings)
    assert (others.values[1:, :5] - found.values[1:, :5]).abs().max() < 1e-9


def test_short_inputs() -> None:
    spy = Spy(always(1))
    alone = reagent(model_of("gpt2"), [[5], ROW], 7, proposer=spy, max_steps=3)
    assert alone.values[0].isfinite().all()
    assert ((alone.values[0] >= 0) & (alone.values[0] <= 1)).all()
    assert alone.converged is not None
    assert not alone.converged[0]
    assert all(ids.shape[1] == len(ROW) for ids in spy.ids)  # there is nothing to compare one token with
    beside_bos = reagent(worded(), [[BOS, 5]], 7, proposer=always(1), max_steps=3)
    assert beside_bos.values.isfinite().all()
    assert beside_bos.values[0, 0] == 0
    for model, row in ((model_of("gpt2"), [5, 9]), (worded(), [BOS, 5, 9])):
        spy = Spy(always(1))
        found = reagent(model, [row], 7, proposer=spy, max_steps=3)
        assert float(found.values.sum()) == pytest.approx(1)
        assert all((places.sum(1) == 1).all() for places in spy.places)  # at least one token each time


# ---- what is replaced


@pytest.mark.parametrize(("share", "kept"), [(0.3, 0.3), (0.1, 0.5), (0.6, 0.05)])
def test_shares_of_the_tokens_are_replaced_and_bos_never(share: float, kept: float) -> None:
    spy = Spy(always(1))
    settings = {"share": share, "kept": kept, "runs": 3, "max_steps": 6}
    y = int(chances(worded(), WITH_BOS).argmin())
    found = reagent(worded(), [WITH_BOS, [BOS, 4, 5]], y, proposer=spy, **settings)
    assert not found.values[:, 0].any()
    assert found.values.sum(1).tolist() == pytest.approx([1.0, 1.0])
    calls = [(ids, places) for ids, places in zip(spy.ids, spy.places, strict=True) if ids.shape[1] == 7]
    assert len(calls) == 12  # no run converges: in each step one call to explore, one to test
    for i, (ids, places) in enumerate(calls):
        assert ids.tolist() == [WITH_BOS] * 3  # always the prompt itself, not what it became
        assert not places[:, 0].any()
        count = max(1, round(share * 6)) if i % 2 == 0 else 6 - max(1, round(kept * 6))
        assert places.sum(1).tolist() == [count] * 3
    explored = torch.cat([places for _, places in calls[::2]])
    assert len(explored.unique(dim=0)) > 1


def in_place(ids: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
    ids[places] = 1
    return ids


def everywhere(ids: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
    return torch.full_like(ids, 1)


@pytest.mark.parametrize("proposer", [in_place, everywhere])
def test_only_the_places_asked_for_are_replaced_whatever_a_function_does(proposer: Proposer) -> None:
    careful = reagent(worded(), [WITH_BOS], 7, proposer=always(1), max_steps=6)
    found = reagent(worded(), [WITH_BOS], 7, proposer=proposer, max_steps=6)
    assert torch.equal(found.values, careful.values)


# ---- language models as proposers


def sharp(module: Any, norm: Any) -> Any:
    """A language model that is sure of its word: what it draws is its best."""
    norm.weight.data *= 1e4
    if getattr(norm, "bias", None) is not None:
        norm.bias.data *= 1e4
    return module.eval()


def masked_model(mask: int | None = 3, vocab_size: int = VOCAB) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32,
    )  # fmt: skip
    if mask is not None:
        config.mask_token_id = mask
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForMaskedLM(config)


def causal_best(logits: Callable[[Tensor], Tensor]) -> Proposer:
    """At each place the best token after those before it, in the prompt as it is."""

    def propose(ids: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            best = logits(ids).argmax(-1)
        return torch.where(places, best.roll(1, 1), ids)

    return propose


def masked_best(model: Any) -> Proposer:
    def propose(ids: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            best = model(input_ids=torch.where(places, 3, ids)).logits.argmax(-1)
        return torch.where(places, best, ids)

    return propose


def test_language_models_propose_what_they_would_write() -> None:
    causal: Any = tiny_module("gpt2", torch.float32, seed=4)
    sharp(causal, causal.transformer.ln_f)
    masked = masked_model()
    sharp(masked, masked.cls.predictions.transform.LayerNorm)
    itself: Any = tiny_module("gpt2", torch.float32)
    sharp(itself, itself.transformer.ln_f)
    sure = load_model(itself, tokenizer=word_tokenizer())
    cases = [
        (worded(), causal, causal_best(lambda ids: causal(ids).logits)),
        (worded(), masked, masked_best(masked)),
        (sure, None, causal_best(lambda ids: sure(ids))),
    ]
    for model, proposer, by_hand in cases:
        found, expected, others = (
            # one step of one run: what is drawn later cannot differ
            [reagent(model, [WITH_BOS], proposer=p, runs=1, max_steps=1, share=0.6, seed=i).values for i in range(5)]
            for p in (proposer, by_hand, always(1))
        )
        assert torch.equal(torch.cat(found), torch.cat(expected))
        assert not torch.equal(torch.cat(found), torch.cat(others))


def test_proposals_follow_the_models_chances() -> None:
    causal: Any = tiny_module("llama", torch.float32)
    causal.lm_head = torch.nn.Linear(16, VOCAB)
    causal.lm_head.weight.data.zero_()
    causal.lm_head.bias.data.fill_(-100.0)
    causal.lm_head.bias.data[[20, 21]] = torch.tensor([0.0, 2.0])  # 12 % and 88 %, whatever comes before
    propose = as_proposer(causal, Explained.of(worded()))
    ids = torch.tensor([WITH_BOS] * 300)
    places = torch.tensor([False, False, True, True, True, False, False]).expand_as(ids)
    with torch.no_grad():
        proposed = propose(ids, places, torch.Generator().manual_seed(0))
    assert torch.equal(proposed[~places], ids[~places])
    assert set(proposed[places].tolist()) == {20, 21}
    assert float((proposed[places] == 21).float().mean()) == pytest.approx(1 / (1 + math.exp(-2)), abs=0.05)


@pytest.mark.parametrize("make", [masked_model, lambda: tiny_module("gpt2", torch.float32, seed=4)])
def test_a_proposer_is_left_as_it_was_and_its_dropout_stays_out(make: Callable[[], Any]) -> None:
    proposer = make().train()  # as transformers makes models from a configuration
    before = torch.get_rng_state()
    first, second = (reagent(worded(), [WITH_BOS], 7, proposer=proposer, max_steps=5) for _ in range(2))
    assert torch.equal(first.values, second.values)
    assert torch.equal(torch.get_rng_state(), before)
    assert proposer.training
    assert all(parameter.grad is None for parameter in proposer.parameters())


BAD_PROPOSERS: list[tuple[Any, str]] = [
    (3, "proposer must be None .* or a function .*got int"),
    ("roberta-base", "proposer must be .*got str"),
    (lambda: model_of("gpt2"), "proposer must be .*got TransformerBridge"),  # None says the same
    (lambda: masked_model(mask=None), "proposer=BertForMaskedLM has no mask_token_id"),
    (lambda: masked_model(vocab_size=60), f"proposer=BertForMaskedLM has a vocabulary of 60, .* of {VOCAB}"),
    (lambda: tiny_module("gpt2", vocab_size=99), f"proposer=GPT2LMHeadModel has a vocabulary of 99, .* of {VOCAB}"),
]


@pytest.mark.parametrize(("make", "message"), BAD_PROPOSERS, ids=[message[:40] for _, message in BAD_PROPOSERS])
def test_bad_proposers_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reagent(model_of("gpt2"), [ROW], proposer=make() if callable(make) else make)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ids, places, generator: ids + VOCAB,
        lambda ids, places, generator: ids[:, :2],
        lambda ids, places, generator: ids.float(),
        lambda ids, places, generator: None,
    ],
    ids=["unknown ids", "another shape", "floats", "nothing"],
)
def test_what_a_function_proposes_is_checked(wrong: Proposer) -> None:
    with pytest.raises(InputError, match="proposer"):
        reagent(model_of("gpt2"), [ROW], proposer=wrong)
