"""Training a dictionary on activations: a short loop over eai-sparsify's `SparseCoder`.

TopK autoencoders and transcoders (Gao et al. 2024, arXiv:2406.04093; Dunefsky et al. 2024, arXiv:2406.11944): what is
minimised is the share of variance that the reconstruction leaves, plus what dead features could explain of it.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, Unpack

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import numbers
from interp.dictionaries.dictionary import Dictionary, PlaceKeywords, Reads, Site, Writes
from interp.dictionaries.sites import SiteRecorder, run_sites
from interp.dictionaries.spliced import ids_of
from interp.dictionaries.weights import matrix
from interp.errors import InputError
from interp.inspection import anatomy_of
from interp.kernels.forward import Residual, prepare
from interp.keywords import check_keywords, chosen
from interp.parts import working
from interp.running import door, one_at_a_time, settled

_DEAD_AFTER = 100  # steps without being active


class TrainingKeywords(PlaceKeywords, total=False):
    """How a dictionary is trained, and what it is known by."""

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    skip: bool


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
            transcoder gets a linear path), and `reads`, `writes`, `model` of the `Dictionary`.

    Returns:
        A `Dictionary`. The same seed gives the same one.

    Cost: steps x batch_size x n_features x d_model multiplications, some six times.

    Raises:
        InputError: without eai-sparsify (`pip install faithful-circuits[dictionaries]`); for shapes that do not fit,
            NaN, and activations that are all the same.
    """
    check_keywords("train_dictionary", keywords, TrainingKeywords)
    settings = _settings(keywords)
    x = matrix("activations", activations, "[n, d_model]").float()
    y = x if targets is None else matrix("targets", targets, "[n, d_model]").float()
    if y.shape != x.shape:
        raise InputError(
            f"targets has shape {list(y.shape)} and activations {list(x.shape)}; they must be of one shape"
        )
    if (targets is None) == (site == "transcoder"):
        raise InputError("targets belong to site='transcoder', and to no other: what the MLP gave for each activation")
    if settings["skip"] and targets is None:
        raise InputError("skip=True is for transcoders; an autoencoder would copy what it reads")
    if not bool((y - y.mean(0)).any()):
        raise InputError(
            f"{'activations' if targets is None else 'targets'} hold one row {len(y):,} times; nothing varies"
        )
    if k > n_features:
        raise InputError(f"k={k} features cannot be active of n_features={n_features}")
    with settled(), torch.enable_grad():
        coder = _trained(x, y, n_features, k, site == "transcoder", settings)
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


def _settings(keywords: TrainingKeywords) -> dict[str, Any]:
    return {
        "steps": numbers.whole("steps", keywords.get("steps", 2000), numbers.COUNT),
        "batch_size": numbers.whole("batch_size", keywords.get("batch_size", 512), numbers.COUNT),
        "learning_rate": numbers.real("learning_rate", keywords.get("learning_rate", 3e-3), numbers.POSITIVE),
        "seed": numbers.seed(keywords.get("seed", 0)),
        "skip": bool(keywords.get("skip", False)),
    }


def _trained(x: Tensor, y: Tensor, n_features: int, k: int, transcode: bool, settings: dict[str, Any]) -> Any:
    generator = torch.Generator().manual_seed(settings["seed"])
    coder = _begun(x, y, n_features, k, transcode, settings["skip"], generator)
    optimizer = torch.optim.Adam(coder.parameters(), lr=settings["learning_rate"])
    steps = settings["steps"]
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / steps)))
    quiet_for = torch.zeros(n_features, dtype=torch.long, device=x.device)
    for _ in range(steps):
        chosen_rows = torch.randint(len(x), (settings["batch_size"],), generator=generator, device="cpu").to(x.device)
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x[chosen_rows], y[chosen_rows], dead_mask=quiet_for > _DEAD_AFTER)
        loss = out.fvu + out.auxk_loss / 32
        optimizer.zero_grad()
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        falling.step()
        quiet_for += 1
        quiet_for[out.latent_indices[out.latent_acts > 0].flatten()] = 0
    coder.set_decoder_norm_to_unit_norm()
    return coder


def _begun(
    x: Tensor, y: Tensor, n_features: int, k: int, transcode: bool, skip: bool, generator: torch.Generator
) -> Any:
    """A coder with random rows of length 1, whose bias is the mean of what it is to write."""
    sparse_coder = _sparsify()
    config = sparse_coder.SparseCoderConfig(num_latents=n_features, k=k, transcode=transcode, skip_connection=skip)
    with one_at_a_time(), torch.random.fork_rng(devices=[]):  # its own draws are replaced
        coder = sparse_coder.SparseCoder(x.shape[1], config, device=x.device, dtype=torch.float32)
    rows = torch.randn(n_features, x.shape[1], generator=generator, dtype=torch.float32, device="cpu").to(x.device)
    with torch.no_grad():
        coder.encoder.weight.copy_(rows / rows.norm(dim=1, keepdim=True))
        coder.encoder.bias.zero_()
        coder.W_dec.copy_(coder.encoder.weight)
        coder.b_dec.copy_(y.mean(0))
    return coder


def _sparsify() -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does without
            from sparsify import sparse_coder
    except ImportError as error:
        raise InputError(
            f"training needs eai-sparsify ({error}); install it with `pip install 'faithful-circuits[dictionaries]'`"
        ) from error
    return sparse_coder
