"""Training a dictionary on activations: a short loop over eai-sparsify's `SparseCoder`.

TopK autoencoders and transcoders (Gao et al. 2024, arXiv:2406.04093; Dunefsky et al. 2024, arXiv:2406.11944): what is
minimised is the share of variance that the reconstruction leaves, plus what dead features could explain of it.
"""

from __future__ import annotations

import os
from typing import Any, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import numbers
from interp.dictionaries.dictionary import Dictionary, PlaceKeywords, Reads, Site, Writes
from interp.dictionaries.loop import Recipe, trained
from interp.dictionaries.sites import SiteRecorder, run_sites
from interp.dictionaries.spliced import ids_of
from interp.dictionaries.weights import matrix
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.forward import Residual, prepare
from interp.keywords import check_keywords, chosen
from interp.parts import working
from interp.running import door, settled


class TrainingKeywords(PlaceKeywords, total=False):
    """How a dictionary is trained, and what it is known by."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    skip: bool
    resume: str | os.PathLike[str] | None
    quiet: bool


@numbers.checked(n_features=numbers.COUNT, k=numbers.COUNT)
def train_dictionary(
    activations: Any,
    layer: int,
    site: Site,
    n_features: int,
    k: int,
    targets: Any = None,
    **keywords: Unpack[TrainingKeywords],
) -> Dictionary:
    """Train a TopK dictionary on activations.

        minimise |y - (f W_dec + b_dec (+ W_skip x))|^2 / |y - mean y|^2,    f = the k largest of relu(W_enc x + b_enc)

    with rows of the decoder of length 1 (arXiv:2406.04093), on shuffled batches, by Adam with a falling rate.

    Args:
        activations: what is read, `[n, d_model]`: of `capture_activations`, or your own.
        layer, site: where they are from.
        n_features, k: how many features there are, and how many are active at once.
        targets: of a transcoder what it is to write, `[n, d_model]`; an autoencoder writes what it reads.
        **keywords: `steps` (2000), `batch_size` (512), `learning_rate` (0.003), `seed` (0), `skip` (False: whether a
            transcoder gets a linear path), `resume` (a file that holds what is done so far: started again with it, an
            interrupted training goes on), `quiet`, and `reads`, `writes`, `model` of the `Dictionary`.

    Returns:
        A `Dictionary`. The same seed gives the same one.

    Cost: steps x batch_size x n_features x d_model multiplications, some six times.

    Raises:
        InputError: without eai-sparsify (`pip install faithful-circuits[dictionaries]`); for shapes that do not fit,
            NaN, activations that are all the same, and a damaged or foreign `resume`.
    """
    check_keywords("train_dictionary", keywords, TrainingKeywords)
    recipe = Recipe.of(n_features, k, site == "transcoder", keywords)
    x = matrix("activations", activations, "[n, d_model]").float()
    y = x if targets is None else matrix("targets", targets, "[n, d_model]").float()
    if y.shape != x.shape:
        raise InputError(
            f"targets has shape {list(y.shape)} and activations {list(x.shape)}; they must be of one shape"
        )
    if (targets is None) == (site == "transcoder"):
        raise InputError("targets belong to site='transcoder', and to no other: what the MLP gave for each activation")
    if recipe.skip and targets is None:
        raise InputError("skip=True is for transcoders; an autoencoder would copy what it reads")
    if not bool((y - y.mean(0)).any()):
        raise InputError(
            f"{'activations' if targets is None else 'targets'} hold one row {len(y):,} times; nothing varies"
        )
    if k > n_features:
        raise InputError(f"k={k} features cannot be active of n_features={n_features}")
    with settled(), torch.enable_grad():
        coder = trained(x, y, recipe, keywords.get("resume"), bool(keywords.get("quiet", False)))
    return Dictionary.from_tensors(
        layer, site, coder.encoder.weight, coder.encoder.bias, coder.W_dec, coder.b_dec, k=k, W_skip=coder.W_skip,
        subtracts_b_dec=site != "transcoder", **chosen(keywords, PlaceKeywords),
    )  # fmt: skip


@door
@torch.no_grad()
def capture_activations(
    model: Any,
    tokens: Int[Tensor, "n pos"],
    layer: int,
    site: Site,
    reads: Reads = "normed",
    writes: Writes = "mlp_out",
) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, "row d_model"]]:
    """What a dictionary at a place would read and what it would write, at every position, `[n x pos, d_model]` each.

    `tokens` without padding, in as many rows as fit into memory at once. Cost: a forward pass up to that layer. Raises
    `InputError` for tokens and places that are none.
    """
    anatomy = anatomy_of(model)
    nothing = torch.zeros(1, anatomy.d_model, device=anatomy.device, dtype=torch.float32)
    place = Dictionary.from_tensors(layer, site, nothing, None, nothing, None, reads=reads, writes=writes)
    place.check(anatomy)
    ids = ids_of(tokens, anatomy.d_vocab).to(anatomy.device)
    frame = prepare(anatomy, ids, 0, torch.full((len(ids),), ids.shape[1], device=anatomy.device))
    seen: list[Tensor] = []

    def visit(index: int, read: Residual, written: Residual) -> Residual:
        seen.extend(working(part).flatten(0, 1) for part in (read, written))
        return written

    run_sites(frame, anatomy.embed(ids, frame.positions), SiteRecorder(anatomy, [place], visit), layer)
    return seen[0], seen[1]
