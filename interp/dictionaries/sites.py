"""Running a model past its dictionaries: what each reads and writes, in the order in which a run comes by.

A dictionary sees `read`, what it encodes, and `written`, what it decodes to: one and the same for an autoencoder, an
MLP's input and output for a transcoder. With its error, written - decode(encode(read)), the model stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from interp.anatomy import Anatomy
from interp.dictionaries.coder import Features
from interp.dictionaries.dictionary import Dictionary
from interp.errors import InputError
from interp.kernels.forward import Recorder, Residual, run_blocks
from interp.kernels.frame import Frame
from interp.parts import Norm, working

Visit = Callable[[int, Residual, Residual], Residual]  # index, read, written -> what the run goes on with


def read_by(one: Dictionary, norm: Norm, x: Residual) -> Residual:
    """What a transcoder reads of the residual stream in front of the MLP's norm."""
    if one.reads == "normed":
        return norm(x)
    return working(x) if one.reads == "stream" else norm.centred(working(x)) / norm.divisor(x)


def run_order(one: Dictionary) -> tuple[int, int]:
    """What sorts dictionaries as a run comes by what they write."""
    if one.site == "embedding":
        return -1, 0
    within = {"attention": 0, "mlp_out": 1, "added": 2, "residual": 3}
    return one.layer, within[one.writes if one.site in ("mlp", "transcoder") else one.site]


def listed(dictionaries: object) -> list[Dictionary]:
    """Dictionaries as a list; raises `InputError` for what is none."""
    given = [dictionaries] if isinstance(dictionaries, Dictionary) else dictionaries
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InputError(f"dictionaries must be a Dictionary or a list of them; got {type(dictionaries).__name__}")
    for index, one in enumerate(given):
        if not isinstance(one, Dictionary):
            raise InputError(f"dictionaries[{index}] is a {type(one).__name__}; give Dictionary.load(path) or "
                             "Dictionary.from_tensors(...)")  # fmt: skip
    return list(given)


def check_dictionaries(dictionaries: object, anatomy: Anatomy) -> list[Dictionary]:
    """Dictionaries as a list, with weights where the model's are and in (at least float32 of) its dtype.

    Raises `InputError` for what is none, for dictionaries of another model, and for two of one place.
    """
    found: list[Dictionary] = []
    for one in listed(dictionaries):
        one.check(anatomy)
        if one.n_later:
            raise InputError(f"{one!r} is a layer of a cross-layer transcoder, which circuits.trace alone runs")
        found.append(one.to(working(anatomy.parameter()[:0])))
    for index, one in enumerate(found):
        for other in found[:index]:
            if (other.layer, other.site) == (one.layer, one.site):
                raise InputError(f"dictionaries hold two of one place: {other!r} and {one!r}; give one of them")
    return found


@dataclass(frozen=True)
class Parts:
    """What a dictionary makes of what it sees: features `[..., feature]`, and the error that it leaves."""

    features: Features
    error: Residual


def split(one: Dictionary, read: Residual, written: Residual) -> Parts:
    """Features and error, in at least float32; what a skip passes is neither."""
    read, written = working(read), working(written)
    features = one.encode(read)
    return Parts(features, written - one.decode(features, read))


class SiteRecorder(Recorder):
    """Shows what comes by to `visit`, dictionary by dictionary, and goes on with what that returns."""

    def __init__(self, anatomy: Anatomy, dictionaries: Sequence[Dictionary], visit: Visit) -> None:
        self.anatomy, self.dictionaries, self.visit = anatomy, dictionaries, visit
        self.reads: dict[int, Residual] = {}  # of the layer's transcoder

    def attention_output(self, layer: int, added: Residual) -> Residual:
        return self._visit(layer, "attention", added)

    def mlp_input(self, layer: int, x: Residual) -> Residual:
        for index, one in enumerate(self.dictionaries):
            if one.layer == layer and one.site == "transcoder":
                self.reads[index] = read_by(one, self.anatomy.blocks[layer].mlp_norm, x)
        return x

    def mlp_written(self, layer: int, out: Residual) -> Residual:
        return self._visit(layer, "mlp", self._visit(layer, "transcoder", out, "mlp_out"), "mlp_out")

    def mlp_output(self, layer: int, m: Residual) -> Residual:
        return self._visit(layer, "mlp", self._visit(layer, "transcoder", m, "added"), "added")

    def block_output(self, layer: int, x: Residual) -> Residual:
        return self._visit(layer, "residual", x)

    def begin_at(self, embedding: Residual) -> Residual:
        """The embedding, past a dictionary of it."""
        return self._visit(0, "embedding", embedding)

    def _visit(self, layer: int, site: str, written: Residual, writes: str = "mlp_out") -> Residual:
        for index, one in enumerate(self.dictionaries):
            if (one.layer, one.site, one.writes) == (layer, site, writes):
                return self.visit(index, self.reads.pop(index, written), written)
        return written


def run_sites(frame: Frame, embedding: Residual, recorder: SiteRecorder, last: int | None = None) -> Residual:
    """A run from the embedding on, whole or to the layer `last`; the residual stream behind it."""
    return run_blocks(frame, recorder.begin_at(embedding), recorder, last=last)


def run_from(
    frame: Frame, one: Dictionary, output: Residual, entering: Sequence[Residual], checkpointed: bool = False
) -> Residual:
    """The last residual stream where a dictionary's place writes `output`: stacked copies of the batch.

    `entering`: the residual stream that enters each layer. Nothing in front of the place is run again.
    """
    if one.site in ("embedding", "residual"):
        return run_blocks(
            frame, output, first=0 if one.site == "embedding" else one.layer + 1, checkpointed=checkpointed
        )
    start = entering[one.layer]
    copies = start.repeat(len(output) // len(start), 1, 1)
    recorder = SiteRecorder(frame.anatomy, [one], lambda index, read, written: output.to(written.dtype))
    return run_blocks(frame, copies, recorder, first=one.layer, checkpointed=checkpointed)


class Entering(Recorder):
    """Keeps the residual stream that enters each layer."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def attention_input(self, layer: int, x: Residual) -> None:
        self.kept.append(x)
