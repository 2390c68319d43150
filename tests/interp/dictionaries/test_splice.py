"""A model with dictionaries and their errors is the model; without errors it is what its own module gives, hooked."""

from __future__ import annotations

import pytest
import torch

from interp.dictionaries import splice
from interp.errors import InputError
from tests.dictionaries import of_all_places, random_dictionary
from tests.dictionaries_hooked import HOOKED, hooked
from tests.oracle import model_of
from tests.tiny import ARCHITECTURES, D_MODEL, VOCAB, mostly_slow, tiny

TOKENS = torch.randint(VOCAB, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", mostly_slow(ARCHITECTURES, lambda name: name in ("llama", "gemma2", "gpt_neox")))
def test_dictionaries_with_errors_give_the_models_own_logits(name: str) -> None:
    model = model_of(name)
    found = splice(model, TOKENS, of_all_places(D_MODEL))
    with torch.no_grad():
        own = model(TOKENS)
    assert (found.logits - own).abs().max() < 1e-12 * own.abs().max()
    assert [repr(one) for one in found.dictionaries] == [repr(one) for one in of_all_places(D_MODEL)]
    assert all((f != 0).any() and (f == 0).any() for f in found.features)
    assert all((error != 0).any() for error in found.errors)
    lost = splice(model, TOKENS, of_all_places(D_MODEL), errors=False)
    assert (lost.logits - own).abs().max() > 1e-3


def test_half_the_precision_keeps_the_logits_too() -> None:
    model = tiny("llama", torch.float32)
    found = splice(model, TOKENS, of_all_places(D_MODEL))
    with torch.no_grad():
        own = model(TOKENS)
    assert (found.logits - own).abs().max() < 1e-5 * own.abs().max()


@pytest.mark.parametrize(("name", "place", "writes", "reads"), HOOKED)
def test_each_place_is_the_transformers_modules_own(name: str, place: str, writes: str, reads: str) -> None:
    model, one = model_of(name), random_dictionary(place, D_MODEL)
    body = model.original_model.model
    with torch.no_grad(), hooked(body, place, writes, reads, lambda read, out: one.decode(one.encode(read), read)):
        want = model.original_model(TOKENS).logits
    got = splice(model_of(name), TOKENS, one, errors=False).logits
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_what_is_no_dictionary_of_the_model_is_refused() -> None:
    model, one = model_of("llama"), random_dictionary("residual", D_MODEL)
    for given, message in (
        ([], "dictionaries must be a Dictionary or a list of them; got list"),
        ("sae", "got str"),
        ([one, 3], r"dictionaries\[1\] is a int"),
        ([one, one], "hold two of one place"),
        (random_dictionary("residual", 5), "belongs to another model"),
    ):
        with pytest.raises(InputError, match=message):
            splice(model, TOKENS, given)
    for tokens, message in (
        (TOKENS[0], r"whole numbers \[n, pos\]"),
        (TOKENS.double(), "whole numbers"),
        (TOKENS + VOCAB, "the model's are 0 to 52"),
        ("text", "tokens='text' must be token ids"),
    ):
        with pytest.raises(InputError, match=message):
            splice(model, tokens, one)
