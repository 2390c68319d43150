"""Running circuits of features: against hooks on the transformers module that decode what is left of each place."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch

from interp import InputError, Run, Setting
from interp.dictionaries import Dictionary
from interp.dictionaries.sets import ERRORS, DictionarySet
from interp.kernels.ablation import ABLATIONS
from interp.kernels.unit_constants import UnitConstants
from interp.node_mask import NodeMask
from tests.dictionaries import random_dictionary
from tests.dictionaries_hooked import HOOKED, hooked
from tests.oracle import TOLERANCE, error, logit_difference, mixed_task, model_of
from tests.tiny import D_MODEL, tiny_task

EMBEDDING = ("llama", "embedding", "embed_tokens", "")
CASES = {name: [case for case in (EMBEDDING, *HOOKED) if case[0] == name] for name in ("llama", "gemma2")}
WIDTHS = (20, 11, 20, 14)  # dictionaries of unequal width


def dictionaries_of(name: str) -> list[Dictionary]:
    found = []
    for (_, place, _, _), width in zip(CASES[name], WIDTHS, strict=False):
        whole = random_dictionary(place, D_MODEL, skip=place == "transcoder")
        weights = {"W_enc": whole.W_enc[:width], "b_enc": whole.b_enc[:width], "W_dec": whole.W_dec[:width]}
        limits = whole.coder.threshold
        changes = {} if limits is None else {"threshold": limits[:width]}
        found.append(random_dictionary(place, D_MODEL, skip=place == "transcoder", **weights, **changes))
    return found


def setting_of(name, ablation="patch", errors="kept", task=None, **run):
    model = model_of(name)
    features = DictionarySet(tuple(dictionaries_of(name)), errors)
    return Setting(model, task or mixed_task(model), ablation, run=Run(quiet=True, **run), features=features)


def random_masks(full, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(full.shape, generator=generator) < p) & full for p in (0.3, 0.8)[:count]]


# ---- the oracle: each place's output is decoded anew from what is left of its features


def run_module(model, name, dictionaries, tokens, change):
    """Logits of the transformers module where `change(index, features, error)` gives what each place is made of."""
    with contextlib.ExitStack() as stack:
        for index, (one, case) in enumerate(zip(dictionaries, CASES[name], strict=True)):

            def replace(read, out, index=index, one=one):
                features = one.encode(read)
                features, rest = change(index, features, out - one.decode(features, read))
                return one.decode(features, read) + rest

            stack.enter_context(hooked(model.original_model.model, *case[1:], replace))
        return model.original_model(tokens).logits


def parts_of(model, name, dictionaries, tokens):
    seen = {}

    def keep(index, features, rest):
        seen[index] = features, rest
        return features, rest

    run_module(model, name, dictionaries, tokens, keep)
    return [seen[index] for index in range(len(dictionaries))]


@torch.no_grad()
def by_hooks(model, name, dictionaries, prompts, mask, ablation, errors):
    """The objective when features (errors) outside of `mask` [dictionary, pos or 1, feature] are as when ablated."""
    others = parts_of(model, name, dictionaries, prompts.corrupted if ablation == "patch" else prompts.clean)
    if not isinstance(ablation, str):  # constants: of each dictionary features and errors [2, ...]
        length = prompts.clean.shape[1]
        others = [tuple(torch.cat((two[:1], two[1:].expand(length - 1, -1))) for two in parts) for parts in ablation]
    elif ablation == "zero":
        others = [tuple(torch.zeros_like(part) for part in parts) for parts in others]
    elif ablation != "patch":
        real, over = prompts.mask[..., None], 0 if ablation == "mean-positional" else (0, 1)
        others = [
            tuple((x * real).sum(over, keepdim=True) / real.sum(over, keepdim=True) for x in parts) for parts in others
        ]

    def change(index, features, rest):
        keep = mask[index]
        features = torch.where(keep[..., : features.shape[-1]], features, others[index][0])
        if errors == "ablated":
            rest = others[index][1].expand_as(rest)
        elif errors == "nodes":
            rest = torch.where(keep[..., -1:], rest, others[index][1])
        return features, rest

    return logit_difference(run_module(model, name, dictionaries, prompts.clean, change), prompts)[0]


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("name", CASES)
def test_features_outside_are_what_hooks_on_the_module_make_of_them(name, ablation):
    """Several dictionaries at once, each downstream of the ablations of those before it."""
    for errors in ERRORS:
        setting = setting_of(name, ablation, errors)
        full = setting.nodes("feature").full
        masks = random_masks(full)
        found = setting.measure([NodeMask(mask, "feature") for mask in masks])
        nothing = torch.zeros_like(full)
        told = setting.model, name, setting.features.dictionaries, setting.prompts
        for got, mask in ((found.circuits[0], masks[0]), (found.circuits[1], masks[1]), (found.empty, nothing)):
            want = by_hooks(*told, mask[:, None], ablation, errors)
            assert error(got, want) < TOLERANCE, errors
        assert float((found.empty - found.clean).abs().max()) > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_constants_are_what_features_outside_give(name):
    generator = torch.Generator().manual_seed(0)
    for errors in ERRORS:
        setting = setting_of(name, errors=errors)
        digests, known = setting.features.digests, setting.anatomy
        units = torch.randn(2, len(digests), max(WIDTHS[: len(digests)]), generator=generator, dtype=torch.float64)
        rest = torch.randn(2, len(digests), D_MODEL, generator=generator, dtype=torch.float64)
        about = torch.zeros(2, 1), known.name, tuple(known.weights_digest()), digests
        under = setting.under(ablation="optimal", constants=UnitConstants(units, rest, *about))
        mask, _ = random_masks(setting.nodes("feature").full)
        found = under.measure([NodeMask(mask, "feature")]).circuits[0]
        widths = [one.n_features for one in setting.features.dictionaries]
        given = [(units[:, i, :n], rest[:, i]) for i, n in enumerate(widths)]
        told = setting.model, name, setting.features.dictionaries, setting.prompts
        assert error(found, by_hooks(*told, mask[:, None], given, errors)) < TOLERANCE, errors


@pytest.mark.parametrize(("name", "ablation"), [("llama", "patch"), ("gemma2", "mean"), ("llama", "zero")])
def test_positions_are_told_apart(name, ablation):
    task = tiny_task(model_of(name))
    for errors in ERRORS:
        setting = setting_of(name, ablation, errors, task)
        spans, length = (2, 6, 4), setting.prompts.clean.shape[1]
        full = setting.nodes("feature", spans).full
        (mask,) = random_masks(full, 1)
        by_position = torch.zeros(len(full), length, full.shape[-1], dtype=torch.bool)
        by_position[:, list(spans)] = mask
        got = setting.measure([NodeMask(mask, "feature", spans)]).circuits[0]
        told = setting.model, name, setting.features.dictionaries, setting.prompts
        assert error(got, by_hooks(*told, by_position, ablation, errors)) < TOLERANCE, errors


@pytest.mark.parametrize("name", CASES)
def test_all_features_are_the_model_unless_errors_are_lost(name):
    for errors in ERRORS:
        setting = setting_of(name, "zero", errors)
        found = setting.measure([NodeMask(setting.nodes("feature").full, "feature")])
        gap = error(found.circuits[0], found.clean)
        assert gap < TOLERANCE if errors != "ablated" else gap > 1e-3


def test_a_stream_whose_features_and_error_are_ablated_is_the_corrupted_run():
    model = model_of("llama")
    one = random_dictionary("residual", D_MODEL, layer=2)
    setting = Setting(model, mixed_task(model), run=Run(quiet=True), features=DictionarySet((one,), "ablated"))
    nothing = setting.measure([NodeMask(torch.zeros(1, one.n_features, dtype=torch.bool), "feature")]).circuits[0]
    assert error(nothing, setting.measure(setting.graph.edge_mask[None] & False).empty) < TOLERANCE


def test_batches_change_nothing_and_weights_have_the_gradient_of_finite_differences():
    setting = setting_of("llama", errors="nodes")
    full = setting.nodes("feature").full
    masks = [NodeMask(mask, "feature") for mask in random_masks(full)]
    whole = setting.measure(masks).circuits
    assert error(setting_of("llama", errors="nodes", batch_size=1).measure(masks).circuits, whole) < TOLERANCE
    (batch,) = setting.meter._batches(1 << 30)
    runner = setting.nodes("feature").runner(batch)
    generator = torch.Generator().manual_seed(1)
    weights, direction = (torch.rand(full.shape, generator=generator, dtype=torch.float64) for _ in range(2))

    def value(w):
        return setting.goal(runner.logits(w[None])[0], batch.prompts, None).sum()

    own = weights.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(own), own)
    with torch.no_grad():
        slope = (value(weights + 1e-5 * direction) - value(weights - 1e-5 * direction)) / 2e-5
    assert abs(float((gradient * direction).sum() - slope)) < 1e-6 * max(1.0, abs(float(slope)))


@pytest.mark.parametrize(("name", "ablation"), [("llama", "patch"), ("gemma2", "mean-positional"), ("gemma2", "zero")])
def test_norms_are_those_of_what_each_feature_writes(name, ablation):
    """A feature is exchanged alone in the clean run of the module, and its place's output moves by so much."""
    setting = setting_of(name, ablation, "nodes")
    model, prompts = setting.model, setting.prompts
    found, real = setting.node_norms("feature"), prompts.mask
    dictionaries = setting.features.dictionaries
    with torch.no_grad():
        clean = parts_of(model, name, dictionaries, prompts.clean)
        others = parts_of(model, name, dictionaries, prompts.corrupted)
    for index, one in enumerate(dictionaries):
        if one.coder.normalization != "none":
            continue  # the scale of each x is not seen from here
        other = others[index]
        if ablation == "zero":
            other = tuple(torch.zeros_like(part) for part in other)
        elif ablation != "patch":
            other = tuple((x * real[..., None]).sum(0) / real.sum(0)[:, None] for x in clean[index])
        changes = [(own - ablated).square() * real[..., None] for own, ablated in zip(clean[index], other, strict=True)]
        want = (changes[0].sum((0, 1)) / real.sum()).sqrt() * one.W_dec.norm(dim=1)
        assert error(found[index, : one.n_features], want) < 1e-9
        assert error(found[index, -1], (changes[1].sum() / real.sum()).sqrt()) < 1e-9
        assert not found[index, one.n_features : -1].any()


def test_weights_that_are_edited_are_run_as_they_are_now():
    from tests.tiny import tiny

    model, one = tiny("llama"), random_dictionary("residual", D_MODEL)
    setting = Setting(model, mixed_task(model), run=Run(quiet=True), features=DictionarySet((one,)))
    mask = NodeMask(torch.zeros(1, one.n_features, dtype=torch.bool), "feature")
    before = setting.measure([mask])
    with torch.no_grad():
        model.original_model.lm_head.weight.mul_(2)
    assert error(setting.measure([mask]).circuits, 2 * before.circuits) < TOLERANCE


def test_digests_tell_dictionaries_apart_and_not_precisions():
    one = random_dictionary("residual", D_MODEL)
    again = random_dictionary("residual", D_MODEL)
    assert one.digest == again.digest
    single = one.to(torch.zeros(1, dtype=torch.float32))
    assert single.digest == single.to(torch.zeros(1, dtype=torch.float64)).digest
    changed = [
        random_dictionary("residual", D_MODEL, **changes)
        for changes in ({"layer": 1}, {"threshold": 0.3}, {"threshold": None}, {"b_dec": None}, {"site": "attention"})
    ]
    digests = [one.digest, *(other.digest for other in changed)]
    assert len(set(digests)) == len(digests)


def test_what_does_not_fit_is_refused_in_a_sentence():
    setting = setting_of("llama")
    full = setting.nodes("feature").full
    with pytest.raises(InputError, match="with these dictionaries and errors"):
        setting.measure([NodeMask(torch.ones(len(full), 21, dtype=torch.bool), "feature")])
    with pytest.raises(InputError, match="needs dictionaries="):
        setting.under(features=None).measure([NodeMask(full, "feature")])
    with pytest.raises(InputError, match="errors"):
        DictionarySet(tuple(dictionaries_of("llama")), "lost")
    with pytest.raises(InputError, match="must be a Dictionary or a list of them"):
        DictionarySet(())
    twice = DictionarySet((random_dictionary("residual", D_MODEL),) * 2)
    with pytest.raises(InputError, match="two of one place"):
        setting.under(features=twice).nodes("feature")
    with pytest.raises(InputError, match="unequal lengths"):
        setting.nodes("feature", (1,))


def test_digests_of_a_record_must_be_those_given():
    one, two, other = (random_dictionary(place, D_MODEL) for place in ("residual", "attention", "mlp"))
    known = DictionarySet((one, two)).digests
    DictionarySet((one, two)).check_digests(known)
    for given, message in (((two, one), "another order"), ((one,), "1 of them"), ((one, other), "number 1")):
        with pytest.raises(InputError, match=message):
            DictionarySet(given).check_digests(known)
    assert len(set(itertools.chain(known))) == 2
