"""Masked fine-tuning: shares of the masks, what is kept, what is learnt, seeds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from interp.errors import InputError
from metrics.explanation.masked import mask_half, mask_random, masked_batches, masked_finetune, tokens_of

CLS, MASK, PAD = 1, 0, 2


class OneToken(nn.Module):
    """Adds up a score of each token; the label is told by whether token 3 or 4 is there."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.table = nn.Parameter(0.1 * torch.randn(12, 2, generator=torch.Generator().manual_seed(seed)))
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: Tensor, attention: Tensor) -> Tensor:
        return (self.dropout(self.table[ids]) * attention[:, :, None]).sum(1)


def stories(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """[CLS], then eight tokens; one of them is 3 (label 0) or 4 (label 1), the rest says nothing."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 12, (n, 9), generator=generator)
    labels = torch.randint(2, (n,), generator=generator)
    ids[torch.arange(n), torch.randint(1, 9, (n,), generator=generator)] = 3 + labels
    ids[:, 0] = CLS
    return ids, labels


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.05)


def test_shares_and_special_tokens() -> None:
    ids, labels = stories(4001, 0)
    ids[:, -1] = PAD
    tokens = tokens_of("data", (ids, labels, ids != PAD), [CLS])
    sizes, shares = [], []
    for batch in masked_batches(tokens, MASK, 16, torch.Generator().manual_seed(0)):
        changed = batch.tokens.ids == MASK
        assert not changed[:, [0, -1]].any()
        assert not changed[~batch.masked].any()
        sizes.append((len(changed), int(batch.masked.sum())))
        shares.append(changed[batch.masked].sum(1) / 7)
    assert sizes[:-1] == [(16, 8)] * 250
    assert sizes[-1] in [(1, 0), (1, 1)]
    share = torch.cat(shares)
    # a uniform ratio of 7 tokens, rounded: 1/14 none, 1/14 all, 1/7 each of the others
    expected = torch.tensor([1, *[2] * 6, 1]) / 14
    found = torch.bincount((share * 7).round().long(), minlength=8) / len(share)
    assert (found - expected).abs().max() < 0.03


def test_random_masks_have_the_share_asked_for() -> None:
    ids, _ = stories(50, 0)
    maskable = ids != CLS
    for ratio, count in ((0.0, 0), (0.5, 4), (1.0, 8)):
        masked = mask_random(ids, maskable, ratio, MASK, torch.Generator().manual_seed(0))
        assert ((masked == MASK).sum(1) == count).all()
        assert (masked[masked != MASK] == ids[masked != MASK]).all()


def test_finetuning_learns_both_halves_and_keeps_the_best() -> None:
    model = OneToken()
    before = torch.get_rng_state()
    found = masked_finetune(
        model, stories(400, 1), stories(200, 2), mask_id=MASK, special=[CLS], optimizer=sgd, epochs=8, patience=2
    )
    assert torch.equal(before, torch.get_rng_state())
    best = found.history.iloc[found.best_epoch]
    total = found.history["loss"] + found.history["masked_loss"]
    assert total.idxmin() == found.best_epoch
    assert len(found.history) <= 1 + 8
    assert best["accuracy"] > 0.98
    assert 0.65 < best["masked_accuracy"] < 0.9  # half of the tokens that tell are masked
    ids, labels = stories(200, 2)
    loss = nn.functional.cross_entropy(model(ids, torch.ones_like(ids)), labels)
    assert float(loss.detach()) == pytest.approx(best["loss"], rel=1e-5)
    assert not model.training


def test_stops_and_restores_when_nothing_gets_better() -> None:
    model = OneToken()
    before = model.table.detach().clone()
    found = masked_finetune(
        model, stories(40, 1), stories(40, 2), mask_id=MASK, patience=2,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=200.0),
    )  # fmt: skip
    assert found.best_epoch == 0
    assert len(found.history) == 3
    assert torch.equal(model.table, before)


def test_seeds_decide() -> None:
    def weights(seed: int) -> Tensor:
        model = OneToken()
        masked_finetune(
            model, stories(60, 1), stories(30, 2), mask_id=MASK, optimizer=sgd, epochs=2, seed=seed, special=[CLS]
        )
        return model.table.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_half_of_an_odd_number() -> None:
    tokens = tokens_of("data", stories(5, 0), [CLS])
    counts = {int(mask_half(tokens, MASK, torch.Generator().manual_seed(s)).masked.sum()) for s in range(20)}
    assert counts == {2, 3}


def test_refused() -> None:
    data = stories(10, 0)
    with pytest.raises(InputError, match="no token that may be masked"):
        masked_finetune(OneToken(), data, data, mask_id=MASK, special=range(12))
    with pytest.raises(InputError, match="ids must be whole numbers"):
        masked_finetune(OneToken(), (data[0].double(), data[1]), data, mask_id=MASK)
    with pytest.raises(InputError, match="logits"):
        masked_finetune(OneToken(), data, data, mask_id=MASK, forward=lambda ids, attention: ids.double().sum(1))
    with pytest.raises(InputError, match="classes 0 to 1"):
        masked_finetune(OneToken(), data, (data[0], data[1] + 5), mask_id=MASK)
    with pytest.raises(InputError, match="epochs"):
        masked_finetune(OneToken(), data, data, mask_id=MASK, epochs=0)
