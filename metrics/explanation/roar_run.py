"""The trainings of Recursive ROAR; what is finished lies in a folder and is never done again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from interp.arrays import as_tensor
from interp.errors import InputError
from interp.files import make_folder, write_bytes, write_text
from metrics.explanation.roar_data import Remove, Split, counts, mask_top, removed_inputs
from metrics.explanation.roar_plan import RANDOM

Masks = dict[str, Tensor]  # for each split: removed elements, bool [n, element...]


def call_model(model: Any, inputs: Tensor) -> Any:
    """Class scores of a model that is called with inputs."""
    return model(inputs)


def scores_of(scores: Any) -> Tensor:
    """What a model returned, if it is an array at all."""
    try:
        return as_tensor(scores)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"the model must give an array of class scores [n, class]; got a {type(scores).__name__}. "
            "Use predict= to say how it is asked"
        ) from None


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of the labels that have the largest score."""
    return float((scores.argmax(1) == labels).double().mean())


def macro_f1(scores: Tensor, labels: Tensor) -> float:
    """F1 of each class that is a label or was predicted, averaged."""
    predicted = scores.argmax(1)
    classes = torch.cat((labels, predicted)).unique()[:, None]
    is_class, called = labels == classes, predicted == classes
    return float((2 * (is_class & called).sum(1).double() / (is_class.sum(1) + called.sum(1))).mean())


@dataclass(frozen=True)
class Job:
    """All that a training needs; checked by `recursive_roar`. Can be sent to another process."""

    train: Callable[..., Any]
    explain: Mapping[str, Callable[..., Any]]
    splits: Mapping[str, Split]
    remove: Remove
    predict: Callable[[Any, Tensor], Any]
    performance: Callable[[Tensor, Tensor], float]
    steps: tuple[float, ...]  # shares (floats) or numbers of elements (ints), short of everything
    recursive: bool
    batch_size: int
    folder: Path

    def record(self, seed: int, measure: str | None, step: int) -> Path:
        """The file that says that a training is done: step -1 of no measure masks nothing, step 0 everything."""
        if measure is None:
            return self.folder / f"seed-{seed}" / ("unmasked.json" if step < 0 else "everything.json")
        return self._measure(seed, measure) / f"step-{step}.json"

    def masks(self, seed: int, measure: str, step: int) -> Path:
        """The file of what a measure removes at a step."""
        return self._measure(seed, measure) / f"masks-{step}.safetensors"

    def _measure(self, seed: int, measure: str) -> Path:
        kind = RANDOM if measure == RANDOM else f"by-{quote(measure, safe='')}"
        return self.folder / f"seed-{seed}" / kind

    def records(self, seed: int) -> list[Path]:
        """The files of all trainings of a seed."""
        measured = [self.record(seed, m, i) for m in (RANDOM, *self.explain) for i in range(len(self.steps))]
        return [self.record(seed, None, -1), self.record(seed, None, 0), *measured]


def read_performance(path: Path) -> float:
    """What a finished training reached."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["performance"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"folder holds {str(path)!r}, which is damaged; remove it to train again ({error})") from None


@dataclass(frozen=True)
class Training:
    """One model that is trained, named as in `Job.record`."""

    seed: int
    measure: str | None
    step: int


def rounds(job: Job, seeds: Sequence[int]) -> list[list[Training]]:
    """All trainings, in groups whose trainings do not need each other, and need those of the groups before alone."""
    steps = range(len(job.steps))
    first = [
        [Training(seed, None, -1), Training(seed, None, 0), *(Training(seed, RANDOM, i) for i in steps)]
        for seed in seeds
    ]
    later = [[Training(seed, measure, i) for seed in seeds for measure in job.explain] for i in steps]
    found = [[one for group in first for one in group]]
    return found + (later if job.recursive else [[one for group in later for one in group]])


def run_training(job: Job, training: Training) -> None:
    """Train, measure and explain one model, unless the folder holds all that comes of it."""
    run = _Run(job, training.seed)
    if training.measure is None:
        return run.unmasked() if training.step < 0 else run.everything()
    return run.random(training.step) if training.measure == RANDOM else run.measure(training.measure, training.step)


class _Run:
    """The trainings of one seed."""

    def __init__(self, job: Job, seed: int) -> None:
        self.job, self.seed = job, seed

    def unmasked(self) -> None:
        """Train on everything; explain for the first step, or for all steps where nothing is recursive."""
        job = self.job
        first = range(1 if job.recursive else len(job.steps))
        lacking = [m for m in job.explain if not all(job.masks(self.seed, m, i).exists() for i in first)]
        path = job.record(self.seed, None, -1)
        if path.exists() and not lacking:
            return
        nothing = {name: torch.zeros_like(split.maskable) for name, split in job.splits.items()}

        def explain(model: Any) -> None:
            for measure in lacking:
                scores = self.scores(model, measure, nothing, -1)
                for i in first:
                    self.save_masks(measure, i, scores, nothing)

        self.train(path, nothing, explain)

    def everything(self) -> None:
        """Train with all that may be masked masked."""
        path = self.job.record(self.seed, None, 0)
        if not path.exists():
            self.train(path, {name: split.maskable for name, split in self.job.splits.items()})

    def random(self, step: int) -> None:
        """Train with random elements masked: the first ones of one random order."""
        path = self.job.record(self.seed, RANDOM, step)
        if path.exists():
            return
        masks = {
            name: mask_top(
                torch.zeros_like(split.maskable), split.maskable, torch.zeros_like(split.maskable),
                self.job.steps[step], derived_seed(self.seed, RANDOM, name),
            )
            for name, split in self.job.splits.items()
        }  # fmt: skip
        self.train(path, masks)

    def measure(self, measure: str, step: int) -> None:
        """Train with what a measure finds important masked, and let it explain the new model."""
        path = self.job.record(self.seed, measure, step)
        if path.exists():
            return
        masks = self.load_masks(measure, step)

        def explain(model: Any) -> None:
            if self.job.recursive and step + 1 < len(self.job.steps):
                self.save_masks(measure, step + 1, self.scores(model, measure, masks, step), masks)

        self.train(path, masks, explain)

    def train(self, path: Path, masks: Masks, then: Callable[[Any], None] = lambda model: None) -> None:
        """Train and measure on masked data; the record is written when all that follows from the model is, too."""
        started = time.perf_counter()
        sets = {name: (self.masked(name, masks), split.labels) for name, split in self.job.splits.items()}
        model = self.job.train(sets["train"], sets["validation"], self.seed)
        if isinstance(model, nn.Module):
            model.eval()
        performance = self.job.performance(self.predict(model, sets["test"][0]), sets["test"][1])
        if not isinstance(performance, int | float) or not np.isfinite(performance):
            raise InputError(f"performance must return a finite number; got {performance!r}")
        then(model)
        make_folder(path.parent)
        seconds = round(time.perf_counter() - started, 3)
        write_text(path, json.dumps({"performance": float(performance), "seconds": seconds}))

    def masked(self, name: str, masks: Masks) -> Tensor:
        """Inputs of a split without what is removed."""
        return removed_inputs(self.job.remove, self.job.splits[name].inputs, masks[name])

    @torch.no_grad()
    def predict(self, model: Any, inputs: Tensor) -> Tensor:
        """Class scores [n, class] on the CPU."""
        found = []
        for part in inputs.split(self.job.batch_size):
            scores = scores_of(self.job.predict(model, part))
            if scores.ndim != 2 or len(scores) != len(part):
                raise InputError(
                    f"the model must give class scores [{len(part)}, class] for {len(part)} inputs; "
                    f"got {tuple(scores.shape)}. Use predict= to say how it is asked"
                )
            found.append(scores.detach().cpu())
        return torch.cat(found)

    def scores(self, model: Any, measure: str, masks: Masks, step: int) -> dict[str, Tensor]:
        """What a measure finds important in each split, after what is masked so far."""
        result = {}
        for name, split in self.job.splits.items():
            seed = derived_seed(self.seed, measure, name, step)
            scores = self.job.explain[measure](model, self.masked(name, masks), split.labels, seed)
            result[name] = checked_scores(as_tensor(scores).detach().cpu(), split, f"explain[{measure!r}] on {name}")
        if step < 0 and all(constant(result[name], split.maskable) for name, split in self.job.splits.items()):
            raise InputError(f"explain[{measure!r}] gives every element of an input the same score: there is no order")
        return result

    def save_masks(self, measure: str, step: int, scores: dict[str, Tensor], masks: Masks) -> None:
        """Write what is removed at a step, eight elements a byte."""
        packed = {}
        for name, split in self.job.splits.items():
            seed = derived_seed(self.seed, measure, name, "ties")
            chosen = mask_top(scores[name], split.maskable, masks[name], self.job.steps[step], seed)
            packed[name] = torch.from_numpy(np.packbits(chosen.flatten(1).numpy(), axis=1))
        path = self.job.masks(self.seed, measure, step)
        make_folder(path.parent)
        write_bytes(path, save(packed))

    def load_masks(self, measure: str, step: int) -> Masks:
        """What `save_masks` wrote."""
        path = self.job.masks(self.seed, measure, step)
        try:
            packed = load_file(path)
            masks = {
                name: torch.from_numpy(
                    np.unpackbits(packed[name].numpy(), axis=1, count=split.maskable[0].numel()).astype(bool)
                ).reshape(split.maskable.shape)
                for name, split in self.job.splits.items()
            }
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
            raise InputError(f"folder: {str(path)!r} is missing or damaged; remove its folder ({error})") from None
        for name, split in self.job.splits.items():
            expected = counts(split.maskable, self.job.steps[step])
            if (masks[name].flatten(1).sum(1).numpy() != expected).any() or (masks[name] & ~split.maskable).any():
                raise InputError(f"folder: {str(path)!r} is damaged; remove its folder")
        return masks


def derived_seed(seed: int, *names: object) -> int:
    """A seed of its own for each use."""
    return int.from_bytes(hashlib.sha256(repr((seed, *names)).encode()).digest()[:4], "big")


def checked_scores(scores: Tensor, split: Split, who: str) -> Tensor:
    """Scores if there is a finite one for each element that may be masked."""
    if scores.shape != split.maskable.shape:
        raise InputError(
            f"{who} must give scores of shape {tuple(split.maskable.shape)}, one for each element; "
            f"got {tuple(scores.shape)}"
        )
    bad = int((~torch.isfinite(scores) & split.maskable).sum())
    if bad:
        raise InputError(f"{who} gives {bad} scores that are NaN or infinite and cannot be ranked")
    return scores


def constant(scores: Tensor, maskable: Tensor) -> bool:
    """Whether in every input all elements that may be masked have one score."""
    scores, maskable = scores.double().flatten(1), maskable.flatten(1)
    highest = scores.masked_fill(~maskable, -torch.inf).amax(1)
    return bool((highest == scores.masked_fill(~maskable, torch.inf).amin(1)).all())
