"""Masked fine-tuning: a classifier that knows masked inputs, so that masking needs no retraining to be fair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from interp import numbers, theme
from interp.arrays import as_tensor
from interp.errors import InputError
from interp.fingerprint import refuse_inference
from interp.keywords import check_keywords, told
from interp.progress import progress
from interp.result import Result

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Forward = Callable[[Tensor, Tensor], Tensor]  # ids [b, pos] and attention mask [b, pos] -> logits [b, class]


class Tokens(NamedTuple):
    """Token ids [n, pos], labels [n], attention mask [n, pos], and which tokens may be masked [n, pos]."""

    ids: Int[Tensor, "n pos"]
    labels: Int[Tensor, " n"]
    attention: Bool[Tensor, "n pos"]
    maskable: Bool[Tensor, "n pos"]

    def rows(self, which: Any) -> Tokens:
        """Some of the samples."""
        return Tokens(*(part[which] for part in self))


class MaskedBatch(NamedTuple):
    """A batch, and which of its samples belong to the masked half [b]."""

    tokens: Tokens
    masked: Bool[Tensor, " b"]


def tokens_of(name: str, data: Sequence[Any], special: Sequence[int]) -> Tokens:
    """Check (ids, labels) or (ids, labels, attention mask); tokens in `special` and without attention are kept."""
    if not isinstance(data, Sequence) or isinstance(data, str) or len(data) not in (2, 3):
        raise InputError(f"{name} must be (ids, labels) or (ids, labels, attention mask); got {type(data).__name__}")
    ids, labels = as_tensor(data[0]).detach(), as_tensor(data[1]).detach()
    if ids.ndim != 2 or 0 in ids.shape or not _whole(ids):
        raise InputError(f"{name}: ids must be whole numbers [n, pos]; got {ids.dtype} {list(ids.shape)}")
    if labels.shape != ids.shape[:1] or not _whole(labels):
        raise InputError(f"{name}: labels must be {len(ids)} whole numbers; got {labels.dtype} {list(labels.shape)}")
    attention = torch.ones_like(ids) if len(data) == 2 else as_tensor(data[2]).detach()
    if attention.shape != ids.shape or not torch.isin(attention.cpu().long(), torch.tensor([0, 1], device="cpu")).all():
        raise InputError(f"{name}: the attention mask must be 0 or 1 for each of ids' {list(ids.shape)} tokens")
    attention = attention.to(ids.device).bool()
    kept = torch.isin(ids, torch.tensor(list(special), dtype=ids.dtype, device=ids.device))
    return Tokens(ids, labels, attention, attention & ~kept)


def mask_random(
    ids: Int[Tensor, "n pos"], maskable: Bool[Tensor, "n pos"], ratios: Any, mask_id: int, generator: torch.Generator
) -> Int[Tensor, "n pos"]:
    """Ids with a share of each sample's maskable tokens replaced by `mask_id`, drawn at random; halves round up.

    `ratios` is one share or [n] of them.
    """
    where = maskable.cpu()
    noise = torch.rand(where.shape, generator=generator, dtype=torch.float32, device="cpu").masked_fill(
        ~where, torch.inf
    )
    counts = torch.floor(as_tensor(ratios).double() * where.sum(1) + 0.5)
    chosen = (noise.argsort(1).argsort(1) < counts.reshape(-1, 1)).to(ids.device)
    return ids.masked_fill(chosen & maskable, mask_id)


def mask_half(tokens: Tokens, mask_id: int, generator: torch.Generator) -> MaskedBatch:
    """Half of the samples as they are, half masked at a ratio drawn uniformly from [0, 1) for each sample.

    Which samples are masked is random; of an odd number the one left over is masked half of the time.
    """
    n = len(tokens.ids)
    extra = int(torch.randint(2, (1,), generator=generator, device="cpu")) if n % 2 else 0
    masked = torch.zeros(n, dtype=torch.bool, device="cpu")
    masked[torch.randperm(n, generator=generator, device="cpu")[: n // 2 + extra]] = True
    ratios = torch.rand(n, generator=generator, dtype=torch.float64, device="cpu") * masked
    ids = mask_random(tokens.ids, tokens.maskable, ratios, mask_id, generator)
    return MaskedBatch(tokens._replace(ids=ids), masked)


def masked_batches(tokens: Tokens, mask_id: int, batch_size: int, generator: torch.Generator) -> Iterator[MaskedBatch]:
    """All samples once, in random order, in batches of which half is masked."""
    for rows in torch.randperm(len(tokens.ids), generator=generator, device="cpu").split(batch_size):
        yield mask_half(tokens.rows(rows.to(tokens.ids.device)), mask_id, generator)


class FineTuningKeywords(TypedDict, total=False):
    """The keywords of `FineTuning`, as public functions take them."""

    batch_size: int
    epochs: int
    patience: int
    seed: int
    optimizer: Callable[[Any], torch.optim.Optimizer] | None


@dataclass(frozen=True)
class FineTuning:
    """How masked fine-tuning trains.

    Attributes:
        batch_size: samples a step.
        epochs: the most there are.
        patience: epochs without progress before the end.
        seed: of order, masks and dropout. The global random state is left as it was.
        optimizer: parameters -> optimiser; None: AdamW with learning rate 1e-5, for a pretrained encoder.

    Raises `InputError` for numbers that cannot be.
    """

    batch_size: int = 16
    epochs: int = 20
    patience: int = 3
    seed: int = 0
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None

    def __post_init__(self) -> None:
        numbers.settle(self, epochs=numbers.COUNT, patience=numbers.COUNT)


@dataclass(frozen=True, repr=False)
class MaskedFineTuning(Result):
    """How masked fine-tuning went.

    Attributes:
        history: a data frame, one row an epoch (0: before the first): `train_loss`, and on the validation data as it
            is and masked `loss`, `masked_loss`, `accuracy`, `masked_accuracy`.
        best_epoch: whose weights the model has now: the least sum of the two validation losses.
    """

    history: pd.DataFrame
    best_epoch: int

    def to_frame(self) -> pd.DataFrame:
        """A copy of the history."""
        return self.history.copy()

    def headline(self) -> str:
        best = self.history.set_index("epoch").loc[self.best_epoch]
        return (
            f"weights of epoch {self.best_epoch} of {len(self.history) - 1}, accuracy {best['accuracy']:.3f}, masked "
            f"{best['masked_accuracy']:.3f}"
        )

    def figure(self) -> Figure:
        """Losses over epochs, the chosen one marked."""
        import plotly.graph_objects as go

        figure = go.Figure()
        lines = (("train_loss", theme.CONTROL), ("loss", theme.OWN), ("masked_loss", theme.GREEN))
        for name, colour in lines:
            figure.add_scatter(
                x=self.history["epoch"], y=self.history[name], name=name.replace("_", " "), mode="lines+markers",
                line={"color": colour},
            )  # fmt: skip
        figure.add_vline(x=self.best_epoch, line={"dash": "dot", "color": theme.DARK}, annotation_text="chosen")
        figure.update_xaxes(title="epoch")
        figure.update_yaxes(title="cross-entropy (nats)")
        return theme.styled(figure, "Masked fine-tuning: losses on all tokens and on masked inputs")


@numbers.checked(mask_id=numbers.FROM_ZERO, special=numbers.FROM_ZERO)
@torch.inference_mode(False)
def masked_finetune(
    model: nn.Module,
    train: Sequence[Any],
    validation: Sequence[Any],
    *,
    mask_id: int,
    special: Sequence[int] = (),
    forward: Forward | None = None,
    recipe: FineTuning | None = None,
    quiet: bool = False,
    **keywords: Unpack[FineTuningKeywords],
) -> MaskedFineTuning:
    """Masked fine-tuning (Madsen et al., ICML 2024, "Faithfulness Measurable Masked Language Models").

    Half of each batch is left as it is, half is masked at a ratio drawn uniformly from [0, 1) for each sample, so
    that masking of any share is in distribution afterwards (`MaSF` tests whether it is). Stops when the sum of the
    losses on the validation data, as it is and masked, has not fallen for `patience` epochs.

    Args:
        model: trained in place; afterwards it has the best epoch's weights and is in evaluation mode. Data lies on
            the model's device.
        train, validation: (ids [n, pos], labels [n]) or (ids, labels, attention mask [n, pos]).
        mask_id: the id of the mask token.
        special: ids of tokens that are never masked (such as [CLS], [SEP]); nor is what has no attention.
        forward: `forward(ids, attention) -> logits [b, class]`; None: `model` itself is called so.
        quiet: no progress bar.
        recipe: how it is trained; None: `FineTuning()`. Its fields may be given as keywords as well.
        batch_size, epochs, patience, seed, optimizer: see `FineTuning`.

    Returns:
        `MaskedFineTuning`: `history`, `best_epoch`, `figure()`.

    Raises:
        InputError: shapes that do not fit, nothing that may be masked, logits of another shape, a loss that is NaN,
            a model made in inference mode.
    """
    refuse_inference(model)
    check_keywords("masked_finetune", keywords, FineTuningKeywords)
    training = told(recipe or FineTuning(), keywords, FineTuningKeywords)
    data = {name: tokens_of(name, part, special) for name, part in (("train", train), ("validation", validation))}
    for name, tokens in data.items():
        if not tokens.maskable.any():
            raise InputError(f"{name} holds no token that may be masked; special={list(special)} keeps all of them")
    call = forward or model
    generator = torch.Generator().manual_seed(training.seed)
    clean = data["validation"]
    ratios = torch.rand(len(clean.ids), generator=generator, dtype=torch.float64, device="cpu")
    hidden = clean._replace(ids=mask_random(clean.ids, clean.maskable, ratios, mask_id, generator))

    def state(epoch: int, loss: float) -> dict[str, float]:
        model.eval()
        (own, right), (masked, masked_right) = (_evaluate(call, part, training.batch_size) for part in (clean, hidden))
        names = ("epoch", "train_loss", "loss", "masked_loss", "accuracy", "masked_accuracy")
        return dict(zip(names, (epoch, loss, own, masked, right, masked_right), strict=True))

    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), progress("masked fine-tuning", training.epochs, quiet) as bar:
        torch.manual_seed(training.seed)
        steps = (training.optimizer or _adamw)([p for p in model.parameters() if p.requires_grad])
        rows = [state(0, np.nan)]
        best, weights = 0, _copy(model)
        try:
            for epoch in range(1, training.epochs + 1):
                model.train()
                loss = _epoch(call, steps, masked_batches(data["train"], mask_id, training.batch_size, generator))
                rows.append(state(epoch, loss))
                bar.advance()
                if _total(rows[epoch]) < _total(rows[best]):
                    best, weights = epoch, _copy(model)
                elif epoch - best >= training.patience:
                    break
        finally:
            model.load_state_dict(weights)
            model.eval()
    return MaskedFineTuning(pd.DataFrame(rows).astype({"epoch": int}), best)


def checked_logits(logits: Any, n: int) -> Float[Tensor, "n classes"]:
    """Logits if they are one row for each of `n` inputs."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n:
        given = list(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"forward must return logits [{n}, class] for {n} inputs; got {given}")
    return logits


def _epoch(call: Forward, steps: torch.optim.Optimizer, batches: Iterator[MaskedBatch]) -> float:
    """One pass over the training data; its mean loss."""
    total, n = 0.0, 0
    for (ids, labels, attention, _), _ in batches:
        loss = cross_entropy(checked_logits(call(ids, attention), len(ids)), labels.to(torch.int64))
        if not loss.isfinite():
            raise InputError("the training loss is NaN or infinite; hand in an optimizer with a lower learning rate")
        steps.zero_grad()
        loss.backward()
        steps.step()
        total, n = total + float(loss.detach()) * len(ids), n + len(ids)
    return total / n


@torch.no_grad()
def _evaluate(call: Forward, tokens: Tokens, batch_size: int) -> tuple[float, float]:
    """Mean loss and accuracy."""
    parts = zip(tokens.ids.split(batch_size), tokens.attention.split(batch_size), strict=True)
    logits = torch.cat([checked_logits(call(ids, attention), len(ids)) for ids, attention in parts])
    labels = tokens.labels.to(logits.device, torch.int64)
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise InputError(f"labels must be classes 0 to {logits.shape[1] - 1}, as forward's logits have them")
    return float(cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


def _adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-5)


def _total(row: dict[str, float]) -> float:
    return row["loss"] + row["masked_loss"]


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _whole(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
