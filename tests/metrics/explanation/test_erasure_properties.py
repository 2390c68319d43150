"""What erasing tokens and pixels promises, with a model or with models that are trained anew, on what hypothesis draws.

The model adds up its inputs, which are positive: whatever is removed, its second class becomes less likely.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from metrics.explanation.curves import removal_curves
from metrics.explanation.erasure import decision_flips, erasure
from metrics.explanation.measurable import erasure_curve
from metrics.explanation.roar import recursive_roar
from metrics.explanation.roar_data import counts, mask_top

QUIET = {"quiet": True, "resamples": 20}
TOKENS, PIXELS = ((5,), (1,)), ((2, 2, 3), (3, 4, 2))  # pixels lose all channels together
SHAPES = (*TOKENS, (2, 3), *PIXELS)


class Data(NamedTuple):
    """Inputs [n, ...], all above 0, scores without ties, which elements there are [n, element...], and an order."""

    inputs: torch.Tensor
    scores: torch.Tensor
    real: torch.Tensor
    order: torch.Tensor

    @property
    def reordered(self) -> Data:
        return Data(*(part[self.order] for part in self[:3]), self.order)


@st.composite
def data(draw: Any, shapes: Any = SHAPES) -> Data:
    generator = np.random.default_rng(draw(st.integers(0, 2**20)))
    n, shape = draw(st.integers(1, 4)), draw(st.sampled_from(shapes))
    inputs = torch.from_numpy(generator.integers(1, 9, (n, *shape)))
    elements = shape[1:] if len(shape) == 3 else shape
    count = int(np.prod(elements))
    scores = generator.permuted(np.tile(np.arange(count) - count // 2, (n, 1)), axis=1).reshape(n, *elements)
    real = generator.random((n, count)) < draw(st.sampled_from([0.5, 1.0]))
    real[np.arange(n), generator.integers(count, size=n)] = True
    return Data(
        inputs if shape in TOKENS else inputs.double() / 8,
        torch.from_numpy(scores).double(),
        torch.from_numpy(real.reshape(n, *elements)),
        torch.from_numpy(generator.permutation(n)),
    )


def predict(inputs: Any) -> torch.Tensor:
    return logits(None, inputs).softmax(1)


def logits(model: Any, inputs: Any) -> torch.Tensor:
    total = torch.as_tensor(inputs).double().flatten(1).sum(1) / 16
    return torch.stack((torch.full_like(total, 0.25), total), 1)


def falls(values: Any) -> bool:
    """Along the last axis, but for rounding."""
    return bool((np.diff(values, axis=-1) <= 1e-12).all())


# ---- which elements go


@given(drawn=data(), share=st.floats(0, 1), number=st.integers(1, 7), seed=st.integers(0, 99))
def test_so_many_go_as_were_asked_for_and_they_are_the_best_of_those_that_may(
    drawn: Data, share: float, number: int, seed: int
) -> None:
    nothing = torch.zeros_like(drawn.real)
    for step in (share, number):
        gone = mask_top(drawn.scores, drawn.real, nothing, step, seed)
        assert not (gone & ~drawn.real).any()
        assert gone.flatten(1).sum(1).tolist() == counts(drawn.real, step).tolist()
        for scores, mine, there in zip(drawn.scores, gone, drawn.real, strict=True):
            if mine.any() and (there & ~mine).any():
                assert scores[mine].min() > scores[there & ~mine].max()
        assert torch.equal(mask_top(drawn.scores**3 - 5, drawn.real, nothing, step, seed), gone)
    assert not mask_top(drawn.scores, drawn.real, nothing, 0.0, seed).any()
    assert torch.equal(mask_top(drawn.scores, drawn.real, nothing, 1.0, seed), drawn.real)


@given(drawn=data(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0, 99), ties=st.booleans())
def test_what_is_gone_stays_gone_whatever_the_scores_say_later(drawn: Data, shares: Any, seed: int, ties: bool) -> None:
    scores = torch.zeros_like(drawn.scores) if ties else drawn.scores
    nothing = torch.zeros_like(drawn.real)
    few, many = sorted(shares)
    first = mask_top(scores, drawn.real, nothing, few, seed)
    for later in (scores, -scores):
        then = mask_top(later, drawn.real, first, many, seed)
        assert not (first & ~then).any()
        assert then.flatten(1).sum(1).tolist() == counts(drawn.real, many).tolist()
    assert not (first & ~mask_top(scores, drawn.real, nothing, many, seed)).any()  # one order, ties too


@given(drawn=data(), share=st.floats(0, 1))
def test_samples_in_another_order_lose_the_same(drawn: Data, share: float) -> None:
    nothing, other = torch.zeros_like(drawn.real), drawn.reordered
    gone = mask_top(drawn.scores, drawn.real, nothing, share, 0)
    assert torch.equal(mask_top(other.scores, other.real, nothing, share, 0), gone[drawn.order])


# ---- one model


@given(drawn=data((*TOKENS, *PIXELS)))
def test_shares_of_elements_cost_more_the_larger_they_are_and_all_leave_nothing(drawn: Data) -> None:
    args = (predict, drawn.inputs, drawn.scores)
    told = {**QUIET, "baseline": "zero" if drawn.inputs.is_floating_point() else 0, "real": drawn.real}
    found = erasure(*args, target=1, shares=(1e-6, 0.3, 0.6, 1.0), **told).by_share
    clean, empty = predict(drawn.inputs)[:, 1], predict(without(drawn, drawn.real))[:, 1]
    assert falls(-found["comprehensiveness"])
    assert falls(found["sufficiency"])
    assert falls(found["log_odds"])
    np.testing.assert_array_equal(found["sufficiency"][:, -1], 0)
    np.testing.assert_allclose(found["comprehensiveness"][:, -1], clean - empty, atol=1e-12)
    np.testing.assert_allclose(found["log_odds"][:, -1], (empty / clean).log(), atol=1e-12)
    curves = removal_curves(*args, target=1, fractions=[0, 0.3, 0.6, 1], **told).curves
    for name in ("morf", "lerf"):
        assert falls(curves[name])
        np.testing.assert_array_equal(curves[name][:, 0], clean)
        np.testing.assert_allclose(curves[name][:, -1], empty, atol=1e-12)
    assert falls(-curves["insertion"])
    np.testing.assert_array_equal(curves["insertion"][:, -1], clean)
    flips = decision_flips(*args, **told).columns
    assert ((flips["fraction"] > 0) & (flips["fraction"] <= 1)).all()
    single = drawn.real.flatten(1).sum(1).numpy() == 1
    turned = predict(drawn.inputs).argmax(1).numpy() != predict(without(drawn, drawn.real)).argmax(1).numpy()
    np.testing.assert_array_equal(flips["first"][single], turned[single])  # all of one is the first
    assert (flips["fraction"][~turned] == 1).all()  # what falls on the way down does not come back


def without(drawn: Data, gone: torch.Tensor) -> torch.Tensor:
    """Inputs whose removed elements are 0, in all channels."""
    return drawn.inputs * ~(gone[:, None] if drawn.inputs.ndim == 4 else gone)


@given(drawn=data(), recursive=st.booleans(), ratios=st.sampled_from([(0.25, 0.5, 1.0), (1, 3, 8)]))
def test_the_curve_without_retraining_goes_from_the_model_to_nothing_and_knows_no_order_of_samples(
    drawn: Data, recursive: bool, ratios: Any
) -> None:
    def curve(own: Data) -> Any:
        labels = torch.ones(len(own.inputs), dtype=torch.long)
        explain = {"own": lambda *given: own.scores}
        return erasure_curve(
            None, (own.inputs, labels, own.real), explain, mask=0, predict=logits, performance="probability",
            ratios=ratios, recursive=recursive, clip=True, n_random=2, **QUIET,
        )  # fmt: skip

    assume(drawn.real.sum() > len(drawn.real))  # of one element there is no order to judge
    found = curve(drawn)
    clean, empty = predict(drawn.inputs)[:, 1], predict(without(drawn, drawn.real))[:, 1]
    for values in found.values.values():
        assert values.shape == (len(found.ratios), len(drawn.inputs))
        np.testing.assert_array_equal(values[0], clean)
        np.testing.assert_allclose(values[-1], empty, atol=1e-12)
        assert falls(values.T)
    assert -1 <= found.racu["own"].value <= 1
    np.testing.assert_allclose(
        curve(drawn.reordered).values["own"], found.values["own"][:, drawn.order.numpy()], atol=1e-12
    )


# ---- models that are trained anew


@settings(max_examples=10)
@given(drawn=data(), recursive=st.booleans(), whole=st.booleans())
def test_each_training_sees_its_share_masked_and_what_the_one_before_did_not_see(
    drawn: Data, recursive: bool, whole: bool
) -> None:
    assume(drawn.real.sum() > len(drawn.real))
    seen: list[torch.Tensor] = []

    def train(train: Any, validation: Any, seed: int) -> None:
        seen.append(train[0] == 0)
        assert torch.equal(train[0][train[0] != 0], drawn.inputs[train[0] != 0])

    def predict(model: Any, inputs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(inputs), 2)

    labels = torch.zeros(len(drawn.inputs), dtype=torch.long)
    ratios = (1, 2, 5) if whole else (0.2, 0.5, 0.8, 1.0)
    recursive_roar(
        train, dict.fromkeys(("train", "validation", "test"), (drawn.inputs, labels, drawn.real)),
        {"own": lambda *given: drawn.scores, "reversed": lambda *given: -drawn.scores}, predict=predict, mask=0,
        ratios=ratios, recursive=recursive, seeds=1, **QUIET,
    )  # fmt: skip
    steps = [ratio for ratio in ratios if whole or ratio < 1]
    unmasked, everything, *rest = [one.any(1) if one.ndim == 4 else one for one in seen]
    assert not unmasked.any()
    assert torch.equal(everything, drawn.real)
    assert len(rest) == 3 * len(steps)
    at_random, later = rest[: len(steps)], rest[len(steps) :]  # both measures of a share come before the next share
    for masked in (at_random, later[::2], later[1::2]):
        before = unmasked
        for ratio, gone in zip(steps, masked, strict=True):
            assert not (before & ~gone).any()
            assert not (gone & ~drawn.real).any()
            assert gone.flatten(1).sum(1).tolist() == counts(drawn.real, ratio).tolist()
            before = gone
    own = mask_top(drawn.scores, drawn.real, unmasked, steps[0], 0)
    assert torch.equal(later[0], own)
