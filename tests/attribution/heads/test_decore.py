"""DeCoRe against loops without a cache, and against plain generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor

from attribution import DeCoRe
from attribution.heads.contrast import contrast, entropy
from interp.errors import InputError
from tests.tiny import HEADS, VOCAB, shared

OUT = ["a0.h1", "a2.h0", "a2.h3"]
PLACES = {0: [1], 2: [0, 3]}
IDS = torch.randint(2, VOCAB, (2, 6), generator=torch.Generator().manual_seed(1))
PLAIN = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}


def masked_logits(model: Any, ids: Tensor, first: int) -> Tensor:
    """Logits of a whole run in which the heads write nothing from position `first` on."""
    handles = []
    for layer, heads in PLACES.items():

        def silence(part: Any, given: Any, heads: Any = heads) -> Any:
            z = given[0].clone()
            z.unflatten(-1, (HEADS, -1))[:, first:, heads] = 0
            return (z,)

        handles.append(model.blocks[layer].attn.o.register_forward_pre_hook(silence))
    try:
        with torch.no_grad():
            return model.original_model(ids).logits
    finally:
        for handle in handles:
            handle.remove()


class WithoutCache(LogitsProcessor):  # type: ignore[misc]
    """The same contrast, each step by a run of everything."""

    def __init__(self, model: Any, first: int, alpha: Any) -> None:
        self.model, self.first, self.alpha = model, first, alpha

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        return contrast(scores, masked_logits(self.model, ids, self.first)[:, -1].to(scores), self.alpha)


def generate(model: Any, ids: Tensor, *processors: Any, **given: Any) -> Tensor:
    made: Tensor = model.original_model.generate(ids, logits_processor=list(processors), **{**PLAIN, **given})
    return made


def test_entropy_and_weights_by_hand() -> None:
    own = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    without = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    nats = 1.5 * torch.log(torch.tensor(2.0, dtype=torch.float64))
    assert entropy(own.log()) == pytest.approx(float(nats))
    assert entropy(torch.tensor([1.0, 0.0]).log()) == 0
    for alpha, weight in (("entropy", nats), (0.5, 0.5)):
        wanted = (1 + weight) * own.log() - weight * without.log()
        torch.testing.assert_close(contrast(own.log() + 3, without.log() - 1, alpha), wanted)


@pytest.mark.parametrize("alpha", ["entropy", 0.5])
@pytest.mark.parametrize("prefix", ["unmasked", "masked"])
def test_the_cache_changes_nothing(prefix: str, alpha: Any) -> None:
    model, first = shared("llama"), IDS.shape[1] - 1 if prefix == "unmasked" else 0
    processor = DeCoRe(model, OUT, alpha, prefix=prefix)
    for ids in (IDS, IDS[:1]):  # one processor for two generations
        ours = generate(model, ids, processor, output_logits=True, output_scores=True, return_dict_in_generate=True)
        brute = generate(
            model, ids, WithoutCache(model, first, alpha), output_scores=True, return_dict_in_generate=True
        )
        assert torch.equal(ours.sequences, brute.sequences)
        for one, other in zip(ours.scores, brute.scores, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
        both = zip(ours.scores, ours.logits, strict=True)
        assert not all(torch.allclose(score, own.log_softmax(-1), atol=0.1) for score, own in both)


def test_beams_take_their_cache_along() -> None:
    model, first = shared("llama"), IDS.shape[1] - 1
    ours = generate(model, IDS, DeCoRe(model, OUT, 0.5), num_beams=3)
    assert torch.equal(ours, generate(model, IDS, WithoutCache(model, first, 0.5), num_beams=3))


def test_prompts_that_are_padded_are_answered_as_they_are_alone() -> None:
    model = shared("llama")
    ids, mask = IDS.clone(), torch.ones_like(IDS)
    ids[1, :2], mask[1, :2] = 1, 0
    ours = generate(model, ids, DeCoRe(model, OUT, attention_mask=mask), attention_mask=mask)
    alone = generate(model, IDS[1:, 2:], DeCoRe(model, OUT))
    assert ours[1, 2:].tolist() == alone[0].tolist()
    assert ours[0].tolist() == generate(model, IDS[:1], DeCoRe(model, OUT))[0].tolist()


@pytest.mark.parametrize("how", ["zero", "uniform"])
def test_no_weight_is_plain_generation(how: str) -> None:
    model = shared("llama")
    assert torch.equal(generate(model, IDS, DeCoRe(model, OUT, 0, how=how)), generate(model, IDS))


@pytest.mark.parametrize("prefix", ["unmasked", "masked"])
def test_an_answer_is_scored_as_it_would_be_generated(prefix: str) -> None:
    model = shared("llama")
    processor = DeCoRe(model, OUT, prefix=prefix)
    made = generate(model, IDS[:1], processor, output_scores=True, return_dict_in_generate=True)
    answer = made.sequences[0, IDS.shape[1] :]
    wanted = torch.stack([score[0].log_softmax(-1)[token] for score, token in zip(made.scores, answer, strict=True)])
    found = processor.log_probabilities(IDS[0], answer)
    torch.testing.assert_close(found, wanted.to(found), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"alpha": "large"}, "alpha='large' is unknown"),
        ({"alpha": -1}, "alpha=-1"),
        ({"prefix": "both"}, "prefix='both' is unknown"),
        ({"heads": ["m0"]}, "is no head of model"),
    ],
)
def test_bad_input_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        DeCoRe(shared("llama"), **{"heads": OUT, **given})


def test_masks_and_answers_that_do_not_fit_are_refused() -> None:
    model = shared("llama")
    with pytest.raises(InputError, match="does not fit a batch of 2"):
        generate(model, IDS, DeCoRe(model, OUT, attention_mask=torch.ones(3, 6)))
    with pytest.raises(InputError, match="at least one token"):
        DeCoRe(model, OUT).log_probabilities(IDS[0], IDS[0, :0])
