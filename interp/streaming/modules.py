"""A module of transformers whose large weights are read when somebody asks for them."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from interp import compat
from interp.errors import InputError
from interp.running import parts_of
from interp.streaming.checkpoint import Stored
from interp.streaming.reading import Reader
from interp.streaming.stream import Part, Stream
from interp.streaming.weights import Share, Weight

_IN_LAYER = re.compile(r"^(.*?\.\d+\.[^.]+)\.")  # model.layers.3.mlp.up_proj.weight -> model.layers.3.mlp


class Source:
    """Gives a module's weight; copies of the module share it."""

    def __init__(self, stream: Stream, weight: Weight | Share) -> None:
        self.stream, self.weight = stream, weight

    def __call__(self) -> Tensor:
        return self.stream.get(self.weight)

    @property
    def sample(self) -> Tensor:
        """An empty tensor of the dtype and on the device of the weight."""
        return torch.empty(0, dtype=self.stream.dtype, device=self.stream.device)

    def __deepcopy__(self, memo: Any) -> Source:
        return self


def empty_module(config: Any, dtype: torch.dtype) -> nn.Module:
    """A causal language model on the meta device, with those buffers filled that no checkpoint holds."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        module: Any = AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", dtype=dtype, trust_remote_code=False
        )
    module.tie_weights()
    for part in module.modules():
        buffers = compat.buffers_of(part)
        for name, buffer in buffers.items():
            if buffer is not None:
                buffers[name] = torch.empty_like(buffer, device="cpu")
        compat.fill_buffers(module, part)
    frozen: nn.Module = module.eval().requires_grad_(False)
    return frozen


def shapes_of(module: nn.Module) -> dict[str, Weight]:
    """The parameters of a module whose weights are nowhere: its vectors are zero, its matrices cannot be read."""
    weights: dict[int, Weight] = {}
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    return {name: weights.setdefault(id(value), Weight(name, value.shape, ())) for name, value in state.items()}


def weights_of(module: nn.Module, tensors: Mapping[str, Stored], where: str) -> dict[str, Weight]:
    """Where each parameter and buffer of a module comes from; tied ones come from one and the same.

    A matrix in the files may have more rows than the parameter. Raises `InputError` where something is missing or has
    another shape; `where` is what the message calls the checkpoint.
    """
    made_of = compat.made_of(module, tensors)
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    names_of: dict[int, list[str]] = {}
    for name, value in state.items():
        names_of.setdefault(id(value), []).append(name)
    weights: dict[str, Weight] = {}
    missing: list[str] = []
    for names in names_of.values():
        known = [one for one in names if one in made_of]
        if not known:
            missing.append(names[0])
            continue
        name = known[0]
        keys, build = made_of[name]
        weight = Weight(name, state[name].shape, tuple(tensors[key] for key in keys), build)
        if build is None:
            _check_shape(weight, where)
        weights |= dict.fromkeys(names, weight)
    if missing:
        raise InputError(
            f"{where!r} does not hold all the weights of a {type(module).__name__}: {missing[0]} is missing"
            + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    return weights


def _check_shape(weight: Weight, where: str) -> None:
    (stored,) = weight.stored
    rows, width = stored.shape[:1], stored.shape[1:]
    if width != tuple(weight.shape[1:]) or rows < tuple(weight.shape[:1]):
        raise InputError(
            f"{where!r} is damaged: {weight.name} has the shape {stored.shape}, and the configuration wants "
            f"{tuple(weight.shape)}"
        )


def stream_weights(module: nn.Module, weights: Mapping[str, Weight], device: torch.device, dtype: torch.dtype) -> None:
    """Read vectors and what belongs to no layer but the embeddings, in place; let a stream give the matrices."""
    kept, large = {}, dict[int, Weight]()
    hf: Any = module
    words: Any = hf.get_input_embeddings()
    always = {id(words.weight), id(hf.get_output_embeddings().weight)}
    for name, value in module.state_dict(keep_vars=True).items():
        if value.ndim > 1 and (_IN_LAYER.match(name) or id(value) in always):
            large[id(value)] = weights[name]
        elif name in weights:
            kept[id(value)] = weights[name]
    last = large[id(hf.get_output_embeddings().weight)]
    stream, reader = Stream(*_parts(list(dict.fromkeys(large.values())), last), device, dtype), Reader(device)
    read = {key: _read(reader, weight, dtype) for key, weight in kept.items()}
    for part in module.modules():
        parameters, buffers = compat.parameters_of(part), compat.buffers_of(part)
        for name, parameter in list(parameters.items()):
            if id(parameter) in read:
                parameters[name] = nn.Parameter(read[id(parameter)], requires_grad=False)
            elif id(parameter) in large:
                give(part, name, source := Source(stream, large[id(parameter)]))
                if parameter is not None and not parameter.is_meta:
                    parameters[name] = shell(source)
        for name, buffer in buffers.items():
            if buffer is not None:
                buffers[name] = read.get(id(buffer), buffer).to(device)
    _gather(words)


def _parts(weights: list[Weight], last: Weight) -> tuple[list[Part], int]:
    """The weights of a layer's attention, of its MLP and so on, in order, then `last`, the unembedding's.

    Other embeddings follow, which runs do not come to; with how many parts they do come to.
    """
    parts: dict[str, list[Weight]] = {}
    for weight in weights:
        if inside := _IN_LAYER.match(weight.name):
            parts.setdefault(inside[1], []).append(weight)
    others = [(weight,) for weight in weights if not _IN_LAYER.match(weight.name) and weight is not last]
    return [*map(tuple, parts.values()), (last,), *others], len(parts) + 1


def _read(reader: Reader, weight: Weight, dtype: torch.dtype) -> Tensor:
    if weight.held is not None:
        return weight.held().to(reader.device)
    if not weight.stored:
        return torch.zeros(weight.shape, dtype=dtype, device=reader.device)
    (stored,) = weight.stored
    kind = dtype if stored.dtype.is_floating_point else stored.dtype
    values = torch.empty(weight.shape, dtype=kind, device=reader.device)
    reader.read(stored, values)
    return values


def give(module: nn.Module, name: str, source: Source) -> None:
    """Let a module's parameter be what the source gives whenever it is asked for."""
    sources: dict[str, Source] = module.__dict__.setdefault("streamed", {})
    sources[name] = source
    base = type(module)
    if name not in vars(base):
        module.__class__ = _with_property(cast(Any, base), name)


def stream_of(model: Any) -> Stream:
    """The stream that gives a model's weights; raises `InputError` for a model whose weights are loaded."""
    for part in parts_of(model):
        for source in part.__dict__.get("streamed", {}).values():
            stream: Stream = source.stream
            return stream
    raise InputError("model holds its weights in memory; load it with weights='streamed'")


def shell(source: Source) -> nn.Parameter:
    """What stands in a module's table of parameters for a weight that a source gives."""
    empty = torch.empty(source.weight.shape, device="meta", dtype=source.stream.dtype)
    return nn.Parameter(empty, requires_grad=False)


def take_back(module: nn.Module, name: str) -> Source:
    """Let a module hold the parameter itself again."""
    module.__class__ = type(module).__mro__[1]
    source: Source = module.__dict__["streamed"].pop(name)
    return source


@functools.cache
def _with_property(base: Any, name: str) -> type[nn.Module]:
    def read(module: nn.Module) -> Tensor:
        source: Source = module.__dict__["streamed"][name]
        return source.sample.new_zeros(1).expand(source.weight.shape) if source.stream.asleep else source()

    return type(base.__name__, (base,), {name: property(read), "__module__": base.__module__})


def _gather(words: Any) -> None:
    """Let an embedding read the rows of the tokens that it is given, instead of all."""
    source: Source = words.__dict__["streamed"]["weight"]
    words.padding_idx = None  # it may lie beyond the rows that are there; it matters to gradients of the weight alone
    words.__class__ = _gathering(cast(Any, type(words)))
    words.__dict__["streamed"]["weight"] = _Rows(source)


class _Rows(Source):
    """A source that gives a few rows while its embedding runs."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.stream, source.weight)
        self.here = threading.local()

    def __call__(self) -> Tensor:
        rows: Tensor | None = getattr(self.here, "rows", None)
        return super().__call__() if rows is None else rows


@functools.cache
def _gathering(base: Any) -> type[nn.Module]:
    def forward(module: Any, ids: Tensor) -> Any:
        source: _Rows = module.__dict__["streamed"]["weight"]
        assert isinstance(source.weight, Weight)
        found, places = ids.unique(return_inverse=True)
        if len(found) and (found[0] < 0 or found[-1] >= source.weight.shape[0]):
            raise IndexError("index out of range in self")  # as torch says it
        source.here.rows = source.stream.rows(source.weight, found.tolist())
        try:
            return base.forward(module, places)
        finally:
            source.here.rows = None

    return type(base.__name__, (base,), {"forward": forward, "__module__": base.__module__})
