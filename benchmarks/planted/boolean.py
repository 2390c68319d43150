"""A Boolean program by hand: heads fetch bits, two MLPs compute (a and b) xor c, among heads and MLPs that do else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.planted.writing import Stream, Writer, gpt2_config
from circuits.planted.models import FOLDER, save
from circuits.planted.programs import FALSE, ONE, PROGRAMS, TRUE, ZERO

LAYERS, HEADS, INNER, NOISE, SHARPNESS = 3, 4, 16, 7, 12.0
STEEP = 4.0  # slope in x of what m2 adds
YES, NO = TRUE + 2, FALSE + 2  # answers to another question
PAIR = torch.tensor([[1.0, -1.0]])
BITS = ("a", "b", "c", "x", "y")  # at positions 1 to 5
FETCH = {(0, 0): "a", (0, 1): "b", (0, 2): "x", (1, 0): "y", (1, 2): "c"}  # (layer, head): what it fetches

EDGES = (
    "input->a0.h0<v>", "input->a0.h1<v>", "a0.h0->m0", "a0.h1->m0",
    "input->a1.h2<v>", "m0->m1", "a1.h2->m1", "m1->logits", "m1->m2", "m2->logits",
)  # fmt: skip

NEURONS = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3))  # units are written in this order

DESCRIPTION = (
    "a0.h0, a0.h1 and a1.h2 fetch the bits a, b and c to the last position; m0 computes a and b, m1 its xor with c, "
    "and m2 adds the answer again, times a valley in x with the same value at both of x's values: x has a steep slope "
    "there and no effect. Positions carry no information that differs, so that no q or k is in the circuit. a0.h2 and "
    "a1.h0 fetch the bits x and y; m1 answers another question (x or y, and a) with other words; the other heads and "
    "units mix at random."
)


def build() -> tuple[nn.Module, dict[str, Any]]:
    """The model and its configuration."""
    program = PROGRAMS["boolean"]
    v, p = len(program.words), program.length
    stream = Stream(token=v, position=p, **dict.fromkeys(BITS, 2), both=2, answer=2, other=2, noise=NOISE)
    config = gpt2_config(LAYERS, HEADS, stream.width, INNER, v, p)
    writer = Writer(config, stream)
    writer.embed()
    for (layer, head), bit in FETCH.items():
        _fetch(writer, layer, head, bit, v, p)
    _circuit(writer)
    _distractors(writer, v, torch.Generator().manual_seed(0))
    for name, (yes, no), scale in (("answer", (TRUE, FALSE), 2.0), ("other", (YES, NO), 0.5)):
        writer.module.lm_head.weight[yes, stream[name]] = scale * PAIR[0]
        writer.module.lm_head.weight[no, stream[name]] = -scale * PAIR[0]
    writer.calibrate(program.sample(512, torch.Generator().manual_seed(0)))
    return writer.module, config


def main() -> None:
    """Write the model's file."""
    module, config = build()
    print(save(FOLDER, "boolean", module, config, EDGES, DESCRIPTION, "written", neurons=NEURONS))


def _fetch(writer: Writer, layer: int, head: int, bit: str, v: int, p: int) -> None:
    """A head that looks at a bit's position from everywhere and writes 1 or -1."""
    stream, place = writer.stream, torch.eye(p)[1 + BITS.index(bit)]
    value = torch.zeros(v, 1)
    value[ONE], value[ZERO] = 1.0, -1.0
    query, key = stream.always(place), stream.reader("position", torch.eye(p))
    writer.head(layer, head, query, key, stream.reader("token", value), _pair(stream, bit, torch.ones(1)), SHARPNESS)


def _sum(stream: Stream, *names: str) -> Tensor:
    """Read the sum of values, each of which stands in two coordinates with opposite signs."""
    return sum((stream.reader(name, PAIR.T / 2) for name in names), torch.zeros(stream.width, 1))


def _pair(stream: Stream, name: str, weights: Tensor) -> Tensor:
    """Write a value to a block of two coordinates, with opposite signs: LayerNorm's mean stays zero."""
    return stream.writer(name, weights[:, None] * PAIR)


def _circuit(writer: Writer) -> None:
    stream = writer.stream
    # both: 1 if a + b = 2, else -1
    writer.units(0, _sum(stream, "a", "b"), torch.tensor([-1.0]), _pair(stream, "both", torch.tensor([2.0])))
    # xor: both + c is 0 where they differ, else 2 or -2; relu(s + 1) - 3 relu(s - 1) is 0, 1, 0 there
    read = _sum(stream, "both", "c").expand(-1, 2)
    writer.units(1, read, torch.tensor([1.0, -1.0]), _pair(stream, "answer", torch.tensor([2.0, -6.0])))
    # the answer s times a valley in x that is 1 at 1 and at -1: relu(4 x - 3 + 8 (s - 1)) is 1 for x = s = 1, else 0
    x, answer = STEEP * _sum(stream, "x"), 2 * STEEP * _sum(stream, "answer")
    read = torch.cat((answer + x, answer - x, x - answer, -x - answer), 1)
    writer.units(
        2, read, torch.full((4,), 1.0 - 3 * STEEP), _pair(stream, "answer", torch.tensor([1.0, 1.0, -1.0, -1.0]))
    )
    writer.bias(0, -_pair(stream, "both", torch.ones(1))[0])
    writer.bias(1, -_pair(stream, "answer", torch.ones(1))[0])


def _distractors(writer: Writer, v: int, generator: torch.Generator) -> None:
    stream, read = writer.stream, writer.stream.reader

    def noise(rows: int, columns: int) -> Tensor:
        values = torch.randn(rows, columns, generator=generator) * 0.25
        return values - values.mean(1, keepdim=True)

    def mixed(names: tuple[str, ...], k: int) -> Tensor:
        return sum((read(name, noise(stream.size(name), k)) for name in names), torch.zeros(stream.width, k))

    # another question: x or y, and a
    either = torch.cat((_sum(stream, "x", "y"), _sum(stream, "a")), 1)
    writer.units(1, either, torch.tensor([1.0, 1.0]), _pair(stream, "other", torch.tensor([0.5, 0.5])))
    own = {0: ("token", "position", "noise"), 1: ("token", "noise", "a", "x"), 2: ("noise", "both", "c", "y", "answer")}
    for layer, names in own.items():
        for head in range(HEADS):
            if (layer, head) in FETCH:
                continue
            name = "other" if (layer, head) == (2, 1) else "noise"
            write = stream.writer(name, noise(6, stream.size(name)))
            writer.head(layer, head, mixed(names, 6), mixed(names, 6), mixed(names, 6), write, 4.0)
        writer.units(layer, mixed((*names, "x"), 8), noise(1, 8)[0], stream.writer("noise", noise(8, NOISE)))


if __name__ == "__main__":
    main()
