"""A faithfulness-measurable classifier over the real MiniLM encoder: accuracy, MaSF and erasure under masks.

    python -m benchmarks.measurable_minilm [--seed 0]

Masked fine-tuning beside plain fine-tuning, from the same weights, of the last layers, the pooler and the head, on the
same short sentences. How well each classifies what is masked at random; whether its hidden states are then those that
it knows (MaSF); and the erasure curves of explanations of the masked one. Words are masked by [MASK]; [CLS], [SEP] and
padding stay. Random masks change at every step, so that the frozen layers below are run each time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor

import metrics
from benchmarks.models import minilm
from benchmarks.roar_minilm import data, gradient_x_input, integrated_gradients, predict
from metrics.explanation.masked import MaskedFineTuning, Tokens, mask_half, mask_random
from metrics.statistics import bootstrap

# one distribution; the reference is what MaSF learns from
SIZES = {"train": 480, "validation": 120, "reference": 500, "test": 200}
RATIOS = tuple(i / 10 for i in range(11))
ERASED = (0.2, 0.4, 0.6, 0.8, 1.0)
EXPLAINED = 120  # sentences of the test set that erasure curves are drawn on
SPECIAL = (minilm.PAD, 101, 102)  # padding, [CLS], [SEP]
FROZEN, RATE, BATCH, EPOCHS, PATIENCE = 4, 5e-4, 32, 12, 4

Data = Mapping[str, tuple[Tensor, Tensor, Tensor]]


def present(ids: Tensor) -> Tensor:
    """Attention mask [n, pos]."""
    return (ids != minilm.PAD).long()


def plain(sets: Data, seed: int, epochs: int = EPOCHS) -> Any:
    """Fine-tuned on sentences as they are."""
    model, _ = minilm.load(seed)
    ids, labels, _ = sets["train"]
    minilm.fine_tune(model, ids, labels, seed, frozen=FROZEN, epochs=epochs, batch_size=BATCH, rate=RATE)
    return model.requires_grad_(False)


def masked(sets: Data, seed: int, epochs: int = EPOCHS) -> tuple[Any, MaskedFineTuning]:
    """Fine-tuned on sentences of which half are masked, and how that went."""
    model, _ = minilm.load(seed)
    model.requires_grad_(False)
    for part in (*model.bert.encoder.layer[FROZEN:], model.bert.pooler, model.classifier):
        part.requires_grad_(True)
    for part in model.modules():  # no dropout, as in plain fine-tuning: the masks are the one difference
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    train, validation = ((ids, labels, present(ids)) for ids, labels, _ in (sets["train"], sets["validation"]))
    tuned = metrics.masked_finetune(
        model, train, validation, mask_id=minilm.MASK, special=SPECIAL, batch_size=BATCH, epochs=epochs,
        patience=PATIENCE, seed=seed, quiet=True,
        forward=lambda ids, attention: model(input_ids=ids, attention_mask=attention.long()).logits,
        optimizer=lambda weights: one_cycle(weights, epochs * -(-len(train[0]) // BATCH)),
    )  # fmt: skip
    return model.requires_grad_(False), tuned


def one_cycle(weights: Any, steps: int) -> torch.optim.Optimizer:
    """AdamW whose rate rises and falls over all steps, as in plain fine-tuning."""
    optimiser = torch.optim.AdamW(weights, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    optimiser.register_step_post_hook(lambda *_: schedule.step())
    return optimiser


def accuracy(models: Mapping[str, Any], sets: Data, seed: int, ratios: Sequence[float] = RATIOS) -> pd.DataFrame:
    """Accuracy of two models on the same randomly masked sentences, and the second's less the first's; by ratio."""
    ids, labels, maskable = sets["test"]
    rows = []
    for ratio in ratios:
        hidden = mask_random(ids, maskable, ratio, minilm.MASK, torch.Generator().manual_seed(seed))
        right = torch.stack([predict(model, hidden).argmax(1) == labels for model in models.values()]).double()
        found = bootstrap(right, lambda means: means[:, 1:] - means[:, :1], seed=seed)
        rows.append((ratio, *bootstrap(right, lambda means: means, seed=seed), *found))
    return pd.DataFrame(rows, columns=["ratio", *models, "difference"])


def states(model: Any) -> Callable[[Tensor, Tensor], Sequence[Tensor]]:
    """What MaSF looks at: the hidden states behind each layer, the frozen ones too."""

    def run(ids: Tensor, attention: Tensor) -> Sequence[Tensor]:
        found = model.bert(input_ids=ids, attention_mask=attention.long(), output_hidden_states=True)
        return tuple(found.hidden_states[1:])

    return run


def learned(model: Any, sets: Data, seed: int, *, masked: bool) -> metrics.MaSF:
    """MaSF of a model; `masked`: half of the reference is masked, as in masked fine-tuning."""
    ids = sets["reference"][0]
    return metrics.MaSF.fit(
        states(model), ids, present(ids), mask_id=minilm.MASK, special=SPECIAL, masked=masked, seed=seed, quiet=True
    )


def outliers(
    known: metrics.MaSF, sets: Data, seed: int, scores: Tensor | None = None, ratios: Sequence[float] = RATIOS
) -> pd.DataFrame:
    """Share of the test sentences with p < .05, by ratio."""
    ids = sets["test"][0]
    return known.in_distribution(ids, present(ids), ratios=ratios, scores=scores, seed=seed).to_frame()


def calibration(known: metrics.MaSF, sets: Data, seed: int) -> str:
    """The same share of test sentences of which half are masked, as the reference is: 5 % of these by construction."""
    ids, labels, maskable = sets["test"]
    half = mask_half(
        Tokens(ids, labels, present(ids).bool(), maskable), minilm.MASK, torch.Generator().manual_seed(seed)
    )
    found = binomtest(int((known.p_values(half.tokens.ids, present(ids)) < 0.05).sum()), len(ids))
    interval = found.proportion_ci(method="wilson")
    return f"{found.statistic:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


@torch.no_grad()
def occlusion(model: Any, ids: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Fall of the predicted class's probability without a word; nothing for what is masked already or special."""
    clean, target = predict(model, ids).softmax(1).max(1)
    row, column = (~torch.isin(ids, torch.tensor([*SPECIAL, minilm.MASK]))).nonzero(as_tuple=True)
    without = ids[row]
    without[torch.arange(len(row)), column] = minilm.MASK
    falls = torch.zeros(ids.shape)
    if len(row):
        falls[row, column] = clean[row] - predict(model, without).softmax(1).gather(1, target[row, None])[:, 0]
    return falls


def chance(model: Any, ids: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Random scores: a control whose curve is one more draw of the baseline."""
    return torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed))


EXPLAINERS: dict[str, Callable[..., Tensor]] = {
    "gradient x input": gradient_x_input,
    "integrated gradients": lambda *given: integrated_gradients(*given, steps=2),
    "occlusion": occlusion,
    "random scores": chance,
    "inverted occlusion": lambda *given: -occlusion(*given),
}


def erasure(
    model: Any, sets: Data, seed: int, n: int = EXPLAINED, ratios: Sequence[float] = ERASED
) -> metrics.ErasureCurve:
    """Recursive erasure curves of all explanations on the first `n` test sentences."""
    return metrics.erasure_curve(
        model, [part[:n] for part in sets["test"]], EXPLAINERS, mask=minilm.MASK, ratios=ratios, predict=predict,
        n_random=4, seed=seed, quiet=True,
    )  # fmt: skip


def main() -> None:
    """Train both, and print accuracy, outliers by MaSF, erasure curves and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed, started = parser.parse_args().seed, time.perf_counter()

    def tell(title: str, what: Any) -> None:
        text = what.to_string(index=False, float_format="{:.3f}".format) if isinstance(what, pd.DataFrame) else what
        print(f"\n{title} ({time.perf_counter() - started:.0f} s)\n{text}", flush=True)

    sets = data(SIZES)
    first, (second, tuned) = plain(sets, seed), masked(sets, seed)
    tell(f"masked fine-tuning, seed {seed}", tuned)
    tell("accuracy by share masked at random", accuracy({"plain": first, "masked": second}, sets, seed))
    knows = learned(second, sets, seed, masked=True)
    tell("MaSF, masked model, half masked as in training", calibration(knows, sets, seed))
    tell("MaSF, masked model, random masks", outliers(knows, sets, seed))
    pointed = occlusion(second, *sets["test"][:2], seed)
    tell("MaSF, masked model, masks where occlusion points", outliers(knows, sets, seed, pointed))
    tell("MaSF, plain model, random masks", outliers(learned(first, sets, seed, masked=False), sets, seed))
    other = learned(first, sets, seed, masked=True)
    tell("MaSF, plain model, random masks, masked reference", outliers(other, sets, seed))
    tell("erasure of the masked model", erasure(second, sets, seed))


if __name__ == "__main__":
    main()
