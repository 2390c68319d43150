"""A model run with dictionaries in the place of what they reconstruct."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arrays import as_tensor
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.sites import Parts, SiteRecorder, check_dictionaries, run_sites, split
from interp.errors import InputError, refused, short
from interp.inspection import anatomy_of
from interp.kernels.forward import Residual, prepare, unembed
from interp.parts import working
from interp.running import door


@dataclass(frozen=True)
class Spliced:
    """What a run with dictionaries gave.

    Attributes:
        logits: `[n, pos, vocabulary]`.
        dictionaries: as they were given.
        features: of each dictionary its activations `[n, pos, feature]`.
        errors: of each dictionary what it leaves of its output, `[n, pos, d_model]`.
    """

    logits: Float[Tensor, "n pos d_vocab"]
    dictionaries: list[Dictionary]
    features: list[Float[Tensor, "n pos feature"]]
    errors: list[Float[Tensor, "n pos d_model"]]


@door
@torch.no_grad()
def splice(model: Any, tokens: Any, dictionaries: Any, errors: bool = True) -> Spliced:
    """Run a model with dictionaries in the place of what they reconstruct.

        output = decode(encode(input)) + error

    With the errors the logits are the model's own; without them what the dictionaries lose is lost, in every place one
    after the other.

    Args:
        model: what `interp.load_model` returns.
        tokens: token ids `[n, pos]`, without padding.
        dictionaries: a `Dictionary` or several, of different places.
        errors: whether each dictionary's error is added to what it decodes.

    Returns:
        `Spliced`: logits, and of each dictionary features and errors as they were in this run.

    Cost: one forward pass. Raises `InputError` for dictionaries of another model, and for tokens that are none.
    """
    anatomy = anatomy_of(model)
    found = check_dictionaries(dictionaries, anatomy)
    ids = ids_of(tokens, anatomy.d_vocab).to(anatomy.device)
    lengths = torch.full((len(ids),), ids.shape[1], device=anatomy.device)
    frame = prepare(anatomy, ids, 0, lengths)
    seen: dict[int, Parts] = {}

    def visit(index: int, read: Residual, written: Residual) -> Residual:
        one, parts = found[index], split(found[index], read, written)
        seen[index] = parts
        out = one.decode(parts.features, working(read))
        return (out + parts.error if errors else out).to(written.dtype)

    x = run_sites(frame, anatomy.embed(ids, frame.positions), SiteRecorder(anatomy, found, visit))
    parts = [seen[index] for index in range(len(found))]
    return Spliced(unembed(anatomy, x), found, [one.features for one in parts], [one.error for one in parts])


def ids_of(tokens: Any, d_vocab: int) -> Tensor:
    """Token ids [n, pos]; raises `InputError` for what is none."""
    with refused(f"tokens={short(tokens)} must be token ids [n, pos]"):
        ids = as_tensor(tokens)
    if ids.ndim != 2 or not ids.numel() or ids.is_floating_point():
        raise InputError(f"tokens must be whole numbers [n, pos]; got {ids.dtype} of shape {list(ids.shape)}")
    if int(ids.min()) < 0 or int(ids.max()) >= d_vocab:
        raise InputError(
            f"tokens holds ids from {int(ids.min())} to {int(ids.max())}; the model's are 0 to {d_vocab - 1}"
        )
    return ids.long()
