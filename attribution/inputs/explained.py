"""A model as input attribution sees it: from embeddings to the logit that is explained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from attribution.inputs.proposals import Proposer, as_proposer
from attribution.inputs.targets import Targets, explained_logit, resolve_targets, token_reader
from attribution.rules.sets import RuleSet, rule_set
from interp import numbers
from interp.anatomy import Anatomy
from interp.boot import own_special_id
from interp.errors import InputError, choose
from interp.inputs import Inputs, encode_inputs
from interp.inspection import anatomy_of
from interp.kernels.backward import PLAIN, Backward
from interp.kernels.batching import plan
from interp.kernels.forward import last_rows, prepare, run_blocks, unembed
from interp.rotary import as_new
from interp.run import Run
from interp.running import alone, of_this_thread
from interp.token_text import token_texts

Embeddings = Float[Tensor, "n pos d_model"]


class Explainable(ABC):
    """What the token methods ask of a model, of whichever kind; nothing of it is changed.

    `anatomy` has at least `name`, `d_vocab`, `device` and `dtype`.
    """

    model: Any
    anatomy: Any
    kind: ClassVar[str]  # what is explained: a token or a class
    takes_rules: ClassVar[bool] = True  # whether backward rules act on it
    baselines: ClassVar[tuple[str, ...]]  # the names that `baseline` takes

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The tokenizer, or None."""

    @abstractmethod
    def encode(self, inputs: Any, attention_mask: Any, prepend_bos: bool | None) -> Inputs:
        """Strings or ids as inputs of this model."""

    @abstractmethod
    def target_reader(self) -> Callable[[Any, int], int]:
        """What makes an id of a target given for an input (by its index); it raises `InputError`."""

    @abstractmethod
    def readable_target(self, target: int) -> str:
        """An output as people read it."""

    @abstractmethod
    def batch_size(self, inputs: Inputs, run: Run) -> int:
        """How many inputs a gradient pass takes within the budget, or the number asked for."""

    @abstractmethod
    def embed(self, ids: Int[Tensor, "n pos"]) -> Embeddings:
        """What tokens are embedded as."""

    @abstractmethod
    def logits(self, embeddings: Embeddings, lengths: Int[Tensor, " n"]) -> Float[Tensor, "n output"]:
        """The outputs; embeddings may be wider than the model (captum's are float32)."""

    @abstractmethod
    def patterns(self, inputs: Inputs) -> list[Float[Tensor, "n query key"]]:
        """Attention patterns of every layer, means over heads; from the model's own run."""

    @abstractmethod
    def read_positions(self, lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The position at which each input's output is read."""

    @abstractmethod
    def under(self, rules: str | RuleSet) -> tuple[Explainable, RuleSet]:
        """The model with gradients taken by rules, where it takes any, and the rules as fitted."""

    @abstractmethod
    def proposer(self, given: Any) -> Proposer:
        """What proposes replacement tokens; raises `InputError` where there is none."""

    def value(
        self,
        embeddings: Embeddings,
        lengths: Int[Tensor, " n"],
        positive: Int[Tensor, " n"],
        negative: Int[Tensor, " n"],
    ) -> Float[Tensor, " n"]:
        """The explained logit, or difference of two."""
        return explained_logit(self.logits(embeddings, lengths), positive, negative)

    def baseline(self, inputs: Inputs, baseline: str | int) -> Embeddings:
        """What an input is replaced by: zeros, the mean embedding, or a token's embedding at the same position.

        Raises `InputError` for an unknown name, a token that the tokenizer lacks, or an id out of range.
        """
        like = self.embed(inputs.ids)
        if baseline == "zero":
            return torch.zeros_like(like)
        if baseline == "mean":
            vocabulary = self.embed(torch.arange(self.anatomy.d_vocab, device="cpu")[:, None])
            first = torch.zeros_like(inputs.ids)
            return self.embed(first) + (vocabulary.mean(0) - vocabulary[0])
        token: Any = baseline
        if isinstance(baseline, str):
            token = own_special_id(self.tokenizer, choose("baseline", baseline, self.baselines))
            if token is None:
                raise InputError(f"baseline={baseline!r}, but the model's tokenizer has no such token; try 'zero'")
        token = numbers.read(token)
        if not isinstance(token, int) or not 0 <= token < self.anatomy.d_vocab:
            raise InputError(f"baseline={baseline!r} is no token id; the vocabulary has {self.anatomy.d_vocab}")
        return self.embed(torch.full_like(inputs.ids, token))

    def readable(self, ids: list[int]) -> list[str]:
        """Tokens as people read them; ids where there is no tokenizer."""
        return token_texts(self.tokenizer, ids)

    def readable_rows(self, inputs: Inputs) -> list[list[str]]:
        """The tokens of every input, without padding."""
        lengths = inputs.lengths.tolist()
        return [self.readable(row[:length]) for row, length in zip(inputs.ids.tolist(), lengths, strict=True)]


@dataclass(frozen=True)
class Explained(Explainable):
    """A causal language model, read part by part: the next token's logit is explained, at the last position.

    `backward` are the rules by which gradients are taken.
    """

    model: Any
    anatomy: Anatomy
    backward: Backward = PLAIN
    kind = "token"
    baselines = ("zero", "mean", "pad", "eos", "bos", "unk")

    @classmethod
    def of(cls, model: Any) -> Explained:
        """Raises `InputError` for a model that has no such parts."""
        return cls(model, anatomy_of(model))

    @property
    def tokenizer(self) -> Any:
        """The model's own tokenizer, or None."""
        return getattr(self.model, "tokenizer", None)

    def encode(self, inputs: Any, attention_mask: Any, prepend_bos: bool | None) -> Inputs:
        return encode_inputs(self.model, inputs, attention_mask, prepend_bos)

    def target_reader(self) -> Callable[[Any, int], int]:
        return token_reader(self.model)

    def readable_target(self, target: int) -> str:
        return self.readable([target])[0]

    def batch_size(self, inputs: Inputs, run: Run) -> int:
        n, length = inputs.ids.shape
        return max(1, plan(self.anatomy, n, length, batch_size=run.batch_size, memory=run.memory).batch_size)

    def embed(self, ids: Int[Tensor, "n pos"]) -> Embeddings:
        """Token embeddings, with those of positions where the model learned some."""
        ids = ids.to(self.anatomy.device)
        with torch.no_grad():
            return self.anatomy.embed(ids, torch.arange(ids.shape[1], device=ids.device))

    def logits(self, embeddings: Embeddings, lengths: Int[Tensor, " n"]) -> Float[Tensor, "n d_vocab"]:
        embeddings = embeddings.to(self.anatomy.dtype)
        # a frame without a prefix reads the shape of the ids alone
        ids = torch.zeros(embeddings.shape[:2], dtype=torch.long, device="cpu")
        frame = replace(prepare(self.anatomy, ids, 0, lengths), backward=self.backward)
        x = run_blocks(frame, embeddings)
        return unembed(self.anatomy, last_rows(x, frame, lengths.to(x.device)), self.backward)

    def patterns(self, inputs: Inputs) -> list[Float[Tensor, "n query key"]]:
        if self.anatomy.rotary is not None and self.anatomy.rotary.apart(inputs.lengths):
            rows = [self.patterns(inputs.select(slice(i, i + 1))) for i in range(len(inputs))]
            spare = [inputs.ids.shape[1] - n for n in inputs.lengths.tolist()]
            padded = [[F.pad(one, (0, n, 0, n)) for one in row] for row, n in zip(rows, spare, strict=True)]
            return [torch.cat(layer) for layer in zip(*padded, strict=True)]
        found: list[Tensor] = []

        def keep(pattern: Tensor, hook: Any) -> Tensor:
            found.append(pattern.detach().mean(1))
            return pattern

        own = of_this_thread(keep)
        hooks = [(f"blocks.{layer}.attn.hook_pattern", own) for layer in range(self.anatomy.n_layers)]
        with torch.no_grad(), alone(self.model), as_new(self.model.original_model):
            self.model.run_with_hooks(inputs.ids.to(self.anatomy.device), fwd_hooks=hooks)
        return found

    def read_positions(self, lengths: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        return lengths - 1

    def under(self, rules: str | RuleSet) -> tuple[Explained, RuleSet]:
        fitted = rule_set(rules, self.model)
        return replace(self, backward=fitted), fitted

    def proposer(self, given: Any) -> Proposer:
        return as_proposer(given, self)


def one_by_one(inputs: Inputs, targets: Targets, size: int) -> list[tuple[slice, Inputs, Targets]]:
    """The inputs in batches of `size`."""
    slices = [slice(first, min(len(inputs), first + size)) for first in range(0, len(inputs), size)]
    return [(chosen, inputs.select(chosen), targets.select(chosen)) for chosen in slices]


def find_targets(explained: Explainable, inputs: Inputs, target: Any, size: int) -> tuple[Targets, Float[Tensor, " n"]]:
    """The targets that `target` names (see `resolve_targets`), and the explained logits of the unchanged inputs."""
    first = torch.zeros(len(inputs), dtype=torch.long, device="cpu")
    placeholder = Targets(first, first - 1)
    with torch.no_grad():
        logits = torch.cat(
            [
                explained.logits(explained.embed(some.ids), some.lengths)
                for _, some, _ in one_by_one(inputs, placeholder, size)
            ]
        )
    targets = resolve_targets(target, len(inputs), logits.argmax(1), explained.target_reader(), explained.kind)
    return targets, explained_logit(logits, targets.positive, targets.negative).cpu()


def readable_targets(explained: Explainable, targets: Targets) -> list[str]:
    """Targets as people read them: ` Mary`, or ` Mary - John` for a contrast."""
    names = []
    for positive, negative in zip(targets.positive.tolist(), targets.negative.tolist(), strict=True):
        both = [positive] if negative < 0 else [positive, negative]
        names.append(" - ".join(map(explained.readable_target, both)))
    return names
