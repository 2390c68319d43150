"""`masked_heads`: a model without some of its heads, for everything that runs its transformers module."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attribution.heads.explain import read_head
from interp.architectures import read_anatomy
from interp.errors import InputError, choose
from interp.inputs import encode_inputs
from interp.running import alone, door, of_this_thread

WAYS = ("zero", "mean", "uniform")
_MASKED = float(torch.finfo(torch.float16).min) / 2  # no score that a query sees is as low, whatever the dtype


@dataclass(frozen=True, eq=False)
class HeadMask:
    """What stands in the place of some heads' outputs.

    Attributes:
        model: what `interp.load_model` returns.
        heads: of each layer that has some, their numbers.
        how: `zero`, `mean` or `uniform`.
        d_head: width of a head's output.
        means: float [layer, head * d_head] for `mean`.
    """

    model: Any
    heads: dict[int, list[int]]
    how: str
    d_head: int
    means: Float[Tensor, "layer z"] | None = None

    @classmethod
    def of(cls, model: Any, heads: Sequence[str], how: str = "zero", reference: Any = None) -> HeadMask:
        """From names of heads; arguments and errors of `masked_heads`."""
        anatomy = read_anatomy(model)
        choose("how", how, WAYS)
        if isinstance(heads, str) or not isinstance(heads, Sequence) or not heads:
            raise InputError(f"heads={heads!r} must be names of heads, such as ['a3.h0', 'a5.h2']")
        if (reference is None) == (how == "mean"):
            raise InputError(f"reference is the prompts that how='mean' takes means over; got {reference!r}")
        by_layer = defaultdict(list)
        for layer, head in dict.fromkeys(read_head(anatomy, head) for head in heads):
            by_layer[layer].append(head)
        if how == "uniform" and type(model.blocks[0].attn).__name__ == "AttentionBridge":
            raise InputError(
                f"how='uniform' changes scores, and the attention of model={anatomy.name!r} gives no access to them; "
                "take 'zero' or 'mean'"
            )
        means = head_means(model, reference) if how == "mean" else None
        return cls(model, dict(by_layer), how, anatomy.d_head, means)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """With the heads masked, for this thread."""
        with alone(self.model), contextlib.ExitStack() as stack:
            for layer, heads in self.heads.items():
                attention = self.model.blocks[layer].attn
                if self.how == "uniform":
                    hook = attention.hook_attn_scores.register_forward_hook(of_this_thread(_levelled(heads)))
                else:
                    hook = attention.o.register_forward_pre_hook(of_this_thread(self._replaced(layer, heads)))
                stack.callback(hook.remove)
            yield

    def _replaced(self, layer: int, heads: list[int]) -> Any:
        columns = torch.tensor(heads, device="cpu")[:, None] * self.d_head + torch.arange(self.d_head, device="cpu")
        columns = columns.flatten()
        constants = None if self.means is None else self.means[layer, columns]

        def replace(part: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            z = given[0].clone()
            flat = z.flatten(2)  # the bridge may hand heads over on an axis of their own
            flat[..., columns.to(z.device)] = 0 if constants is None else constants.to(z)
            return (flat.view_as(z), *given[1:])

        return replace


def _levelled(heads: list[int]) -> Any:
    """Equal scores for all positions that a query sees: the causal mask, windows and padding stay."""

    def level(part: Any, given: Any, scores: Tensor) -> Tensor:
        scores = scores.clone()
        own = scores[:, heads]
        scores[:, heads] = own.where(own < _MASKED, 0)
        return scores

    return level


@contextlib.contextmanager
def masked_heads(model: Any, heads: Sequence[str], how: str = "zero", reference: Any = None) -> Iterator[None]:
    """Run a model without some of its heads while the block lasts, in this thread.

    The heads are masked in the transformers module itself: `model(ids)`, `model.original_model(ids)` and
    `model.original_model.generate(...)` with its cache of keys and values all run without them. Scores and circuits are
    not made inside the block: they read the model's parts, and refuse one with hooks. Blocks may be nested.

    Args:
        model: what `interp.load_model` returns.
        heads: names such as `["a3.h0", "a5.h2"]`.
        how: `zero`: the heads write nothing; `mean`: what they write on average over the tokens of `reference`;
            `uniform`: they look at all positions that they may see alike (their causal mask, window and padding hold).
        reference: prompts for `mean`, as strings or token ids [n, pos].

    Raises:
        InputError: an unknown head or way, a reference that is missing or not wanted, `uniform` for models whose
            attention TransformerLens runs as a whole (GPT-J, OPT).
    """
    with HeadMask.of(model, heads, how, reference).applied():
        yield


@door
@torch.no_grad()
def head_means(model: Any, reference: Any) -> Float[Tensor, "layer z"]:
    """What heads give their output matrix on average over all tokens of some prompts: [layer, head * d_head]."""
    inputs = encode_inputs(model, reference)
    sums: dict[int, Tensor] = {}
    with alone(model), contextlib.ExitStack() as stack:
        for layer, block in enumerate(model.blocks):

            def add(part: Any, given: tuple[Any, ...], layer: int = layer) -> None:
                z = given[0].flatten(2)[0].double().sum(0).cpu()
                sums[layer] = sums.get(layer, 0) + z

            stack.callback(block.attn.o.register_forward_pre_hook(of_this_thread(add)).remove)
        device = next(model.original_model.parameters()).device
        for ids, length in zip(inputs.ids, inputs.lengths.tolist(), strict=True):
            model.original_model(ids[None, :length].to(device), use_cache=False)
    return torch.stack([sums[layer] for layer in range(len(sums))]) / int(inputs.lengths.sum())
