"""`Dictionary`: a sparse autoencoder or a transcoder, and the place of a model that it belongs to."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal, TypedDict, Unpack, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from interp import numbers
from interp.anatomy import Anatomy
from interp.dictionaries.coder import Coder, Features, Normalization, Values
from interp.dictionaries.loading import members, read_files
from interp.dictionaries.weights import decoders, matrix, vector
from interp.errors import InputError, choose
from interp.inspection import anatomy_of
from interp.keywords import check_keywords
from interp.running import door

Site = Literal["embedding", "residual", "attention", "mlp", "transcoder"]
Reads = Literal["normed", "normalized", "stream"]
Writes = Literal["mlp_out", "added"]
SITES: tuple[str, ...] = get_args(Site)


class PlaceKeywords(TypedDict, total=False):
    """Where a dictionary reads and writes, and of which model, as far as layer and site do not say it."""

    reads: Reads
    writes: Writes
    model: str | None


class DictionaryKeywords(PlaceKeywords, total=False):
    """What a dictionary may have beside encoder and decoder."""

    W_skip: Any
    W_later: Any
    threshold: Any
    k: int | None
    normalization: Normalization
    subtracts_b_dec: bool


@dataclass(frozen=True, eq=False, repr=False)
class Dictionary:
    """A sparse autoencoder or a transcoder of one site of one layer; made by `from_tensors` or `load`.

    Attributes:
        layer: the layer; the residual stream is that behind it.
        site: `embedding`, `residual` (behind a layer), `attention` (what it adds), `mlp` (what it writes) or
            `transcoder` (from the MLP's input to its output).
        coder: the weights, `interp.dictionaries.coder.Coder`; also `.W_enc`, `.b_enc`, `.W_dec`, `.b_dec`, `.W_skip`.
        reads: a transcoder's input: `normed`, behind the norm's gain, `normalized`, in front of it, or `stream`, the
            residual stream in front of the norm.
        writes: of MLPs and transcoders: `mlp_out`, or `added`, behind a norm that follows the MLP.
        model: the name of the model that it was trained on, where that is known.
        W_later: `[later layer, feature, d_model]` of one layer of a cross-layer transcoder: what its features write to
            the MLPs of the layers behind it. `circuits.trace` alone runs these.
    """

    layer: int
    site: Site
    coder: Coder
    reads: Reads = "normed"
    writes: Writes = "mlp_out"
    model: str | None = None
    W_later: Float[Tensor, "later feature d_model"] | None = None

    @classmethod
    @numbers.checked(layer=numbers.FROM_ZERO)
    def from_tensors(
        cls,
        layer: int,
        site: Site,
        W_enc: Any,
        b_enc: Any,
        W_dec: Any,
        b_dec: Any,
        **keywords: Unpack[DictionaryKeywords],
    ) -> Dictionary:
        """A dictionary of weights that are there.

            f = act(W_enc x + b_enc),    x_hat = f W_dec + b_dec (+ W_skip x)

        Args:
            layer: the layer that it is at.
            site: `embedding`, `residual`, `attention`, `mlp` or `transcoder`.
            W_enc, W_dec: encoder and decoder, both `[feature, d_model]`, from any library.
            b_enc, b_dec: biases `[feature]` and `[d_model]`; None: none.
            **keywords: `W_skip` `[d_model out, d_model in]` of a transcoder; `W_later` `[later layer, feature,
                d_model]` of a cross-layer one; `threshold` `[feature]`, or one number,
                for JumpReLU; `k` for TopK; `reads` (`normed`, `normalized` as Gemma Scope, or `stream`), `writes`
                (`mlp_out`, or `added` behind a norm that follows the MLP); `normalization` of each x (`layer_norm`,
                `constant_norm_rescale`); `subtracts_b_dec`: the encoder reads x - b_dec; `model`: the name of the model
                that it belongs to.

        Raises:
            InputError: shapes that do not fit each other, NaN, unknown sites and keywords, JumpReLU and TopK at once.

        >>> import torch
        >>> eye = torch.eye(4)
        >>> d = Dictionary.from_tensors(0, "mlp", W_enc=eye, b_enc=None, W_dec=eye, b_dec=None, threshold=0.5)
        >>> d.encode(torch.tensor([1.0, 0.4, -3.0, 2.0])).tolist()
        [1.0, 0.0, 0.0, 2.0]
        """
        check_keywords("Dictionary.from_tensors", keywords, DictionaryKeywords)
        axes = "[feature, d_model]"
        encoder, decoder = matrix("W_enc", W_enc, axes), matrix("W_dec", W_dec, axes)
        n_features, width = encoder.shape
        if decoder.shape != encoder.shape:
            turned = "; one of them is transposed" if decoder.shape == encoder.shape[::-1] else ""
            raise InputError(
                f"W_enc has shape {list(encoder.shape)} and W_dec {list(decoder.shape)}; both must be {axes}{turned}"
            )
        bias = vector("b_enc", b_enc, n_features, "feature", encoder)
        out = vector("b_dec", b_dec, width, "d_model", encoder)
        if keywords.get("subtracts_b_dec"):
            bias = bias - encoder @ out
        skip, limits, later = (keywords.get(name) for name in ("W_skip", "threshold", "W_later"))
        coder = Coder(
            W_enc=encoder,
            b_enc=bias,
            W_dec=decoder.to(encoder),
            b_dec=out,
            W_skip=None if skip is None else matrix("W_skip", skip, "[d_model out, d_model in]").to(encoder),
            threshold=None if limits is None else vector("threshold", limits, n_features, "feature", encoder),
            k=keywords.get("k"),
            normalization=keywords.get("normalization", "none"),
        )
        return cls(
            layer=layer,
            site=site,
            coder=coder,
            reads=keywords.get("reads", "normed"),
            writes=keywords.get("writes", "mlp_out"),
            model=keywords.get("model"),
            W_later=None if later is None else decoders("W_later", later, encoder),
        )

    @classmethod
    @numbers.checked(layer=numbers.FROM_ZERO)
    def load(
        cls,
        path: str | os.PathLike[str],
        layer: int | None = None,
        site: Site | None = None,
        *,
        scaling: float | None = None,
        **keywords: Unpack[PlaceKeywords],
    ) -> Dictionary:
        """A dictionary from a file or folder of SAELens, eai-sparsify, Gemma Scope or circuit-tracer.

        Nothing is downloaded, and nothing unpickled.

        Args:
            path: a folder of SAELens (`cfg.json`, `sae_weights.safetensors`; standard, TopK, JumpReLU, gated,
                transcoders) or of eai-sparsify (`cfg.json`, `sae.safetensors`), Gemma Scope's `params.npz`, or a
                transcoder set of circuit-tracer (`config.yaml`, `layer_0.safetensors`, ..., or of a cross-layer
                transcoder `W_enc_0.safetensors`, `W_dec_0.safetensors`, ...), with `layer`.
            layer, site: where it is at, for files that do not say it; what is given goes before what they say.
            scaling: of SAELens' files with `expected_average_only_in`, the factor of their inputs.
            **keywords: `reads`, `writes` and `model`, which go before what files say, too; `model=None`: any model.

        Raises:
            InputError: missing, damaged and pickled files; unknown formats and architectures; places where dictionaries
                are not run.
        """
        check_keywords("Dictionary.load", keywords, PlaceKeywords)
        return cls.from_tensors(**{**read_files(path, layer, site, scaling), **keywords})

    @classmethod
    def load_all(cls, path: str | os.PathLike[str], **keywords: Unpack[PlaceKeywords]) -> list[Dictionary]:
        """All dictionaries of a folder, by layer: a transcoder set, or folders of dictionaries beside each other.

        The keywords are those of `load`. Raises `InputError` where there are none, and as `load` does.
        """
        found = [cls.load(one, layer, **keywords) for one, layer in members(path)]
        return sorted(found, key=lambda one: (one.layer, SITES.index(one.site)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", numbers.whole("layer", self.layer, numbers.FROM_ZERO))
        choose("site", self.site, SITES)
        choose("reads", self.reads, get_args(Reads))
        choose("writes", self.writes, get_args(Writes))
        if self.site == "embedding" and self.layer:
            raise InputError(f"layer={self.layer} of an embedding: it stands in front of layer 0; give layer=0")
        of_transcoders = {"W_skip": self.coder.W_skip is not None, "W_later": self.W_later is not None}
        of_transcoders[f"reads={self.reads!r}"] = self.reads != "normed"
        if self.site != "transcoder" and any(of_transcoders.values()):
            what = next(name for name, given in of_transcoders.items() if given)
            raise InputError(f"{what} is for transcoders; a dictionary with site={self.site!r} reads what it writes")
        if self.site not in ("mlp", "transcoder") and self.writes != "mlp_out":
            raise InputError(f"writes={self.writes!r} is for MLPs and transcoders; site={self.site!r} has one output")

    @property
    def W_enc(self) -> Float[Tensor, "feature d_model"]:
        """The encoder, with all that can be folded into it."""
        return self.coder.W_enc

    @property
    def b_enc(self) -> Float[Tensor, " feature"]:
        """The encoder's bias, with all that can be folded into it."""
        return self.coder.b_enc

    @property
    def W_dec(self) -> Float[Tensor, "feature d_model"]:
        """The decoder."""
        return self.coder.W_dec

    @property
    def b_dec(self) -> Float[Tensor, " d_model"]:
        """The decoder's bias."""
        return self.coder.b_dec

    @property
    def W_skip(self) -> Float[Tensor, "d_model d_model"] | None:
        """A transcoder's linear path `[d_model out, d_model in]`, or None."""
        return self.coder.W_skip

    @property
    def n_later(self) -> int:
        """To how many layers behind its own a cross-layer transcoder's features write."""
        return 0 if self.W_later is None else len(self.W_later)

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return self.coder.n_features

    @property
    def d_model(self) -> int:
        """The width of what is read and written."""
        return self.coder.d_model

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of the weights and of the place: what tells it from other dictionaries."""
        settings = (self.layer, self.site, self.reads, self.writes, *self.coder.settings)
        found = hashlib.sha256(repr(settings).encode())
        for tensor in [*self.coder.tensors, *([] if self.W_later is None else [self.W_later])]:
            found.update(tensor.detach().to("cpu", torch.float64).numpy().tobytes())
        return found.hexdigest()

    def encode(self, x: Values) -> Features:
        """Activations of all features, `[..., feature]`, in the precision of `x`; gradients pass where one is active.

        Raises `InputError` for another width.
        """
        _check_width("x", x, self.d_model, "d_model")
        return self.coder.activate(self.coder.pre_activations(x))

    def decode(self, f: Features, x: Values | None = None) -> Values:
        """What features write: `f W_dec + b_dec`, and `W_skip x` where there is a skip, `[..., d_model]`.

        `x`: what was encoded, for a skip or a norm of each x. Raises `InputError` for another width, and without an `x`
        that is needed.
        """
        _check_width("f", f, self.n_features, "feature")
        if x is None and (what := self.coder.needs_input):
            raise InputError(f"a dictionary with {what} needs what was encoded, too: decode(f, x)")
        return self.coder.decode(f, x)

    def to(self, like: Tensor) -> Dictionary:
        """The same with weights of the device and the dtype of `like`."""
        return replace(self, coder=self.coder.to(like), W_later=None if self.W_later is None else self.W_later.to(like))

    @door
    def check(self, model: Any) -> Anatomy:
        """The model's anatomy; raises `InputError` where this dictionary does not belong to the model."""
        anatomy = model if isinstance(model, Anatomy) else anatomy_of(model)
        if self.d_model != anatomy.d_model:
            raise InputError(
                f"{self!r} reads {self.d_model} numbers, and the residual stream of {anatomy.name} has "
                f"{anatomy.d_model}: it belongs to another model"
            )
        if self.layer >= anatomy.n_layers:
            raise InputError(
                f"{self!r} is at layer {self.layer}; {anatomy.name} has layers 0 to {anatomy.n_layers - 1}"
            )
        if self.layer + self.n_later >= anatomy.n_layers:
            raise InputError(
                f"{self!r} writes to {self.n_later} layers behind its own; {anatomy.name} has layers 0 to "
                f"{anatomy.n_layers - 1}: it belongs to another model"
            )
        if self.model is not None and _another(self.model, anatomy.name):
            raise InputError(
                f"{self!r} was trained on {self.model!r}, and the model is {anatomy.name!r}; where these are one, make "
                "the dictionary with model=None"
            )
        return anatomy

    def __repr__(self) -> str:
        parts = [self.coder.activation, "skip" if self.W_skip is not None else ""]
        parts += [self.coder.normalization if self.coder.normalization != "none" else ""]
        parts += [f"and {self.n_later} later layers" if self.n_later else ""]
        parts += [f"{self.reads} -> {self.writes}" if self.site == "transcoder" else ""]
        where = self.site if self.site == "embedding" else f"{self.site} of layer {self.layer}"
        return f"Dictionary({where}, {self.n_features:,} features of {self.d_model}, {', '.join(filter(None, parts))})"


def _check_width(name: str, x: Any, width: int, axis: str) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.ndim or x.shape[-1] != width:
        given = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} must be a tensor of floats [..., {axis}={width}]; got {given}")


def _another(trained_on: str, model: str) -> bool:
    """Whether two names are those of two models: neither, without owner and punctuation, is a part of the other.

    Names of classes, which models have that were handed in as modules, tell of no model.
    """
    if model.endswith(("LMHeadModel", "ForCausalLM")):
        return False
    names = [PurePosixPath(name.replace("\\", "/")).name.lower() for name in (trained_on, model)]
    first, second = ("".join(filter(str.isalnum, name)) for name in names)
    return first not in second and second not in first
