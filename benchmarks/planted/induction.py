"""Induction by hand: a previous-token head and two induction heads in two layers, among heads and MLPs that do else."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.planted.writing import Stream, Writer, gpt2_config
from circuits.planted.models import FOLDER, save
from circuits.planted.programs import PROGRAMS

LAYERS, HEADS, INNER = 2, 4, 32
PREVIOUS, INDUCTION = 12.0, 9.0  # how sharply the heads attend
SHARES = {1: 1.0, 3: 0.5}  # what each induction head adds to the answer

EDGES = (
    "input->a0.h0<v>",
    "a0.h0->a1.h1<k>", "input->a1.h1<q>", "input->a1.h1<v>", "a1.h1->logits",
    "a0.h0->a1.h3<k>", "input->a1.h3<q>", "input->a1.h3<v>", "a1.h3->logits",
)  # fmt: skip

DESCRIPTION = (
    "a0.h0 writes each position's previous token; a1.h1 and, half as strongly, a1.h3 look for the position whose "
    "previous token is the last one and copy its token. Positions carry no information that differs, so that q and k "
    "of a0.h0 are not in the circuit. The other heads and the MLPs fetch the third letter, look for it, mix tokens at "
    "random, shift all logits alike, and compute an absolute value that is always 1."
)


def build() -> tuple[nn.Module, dict[str, Any]]:
    """The model and its configuration."""
    program = PROGRAMS["induction"]
    v, p = len(program.words), program.length
    stream = Stream(token=v, position=p, previous=v, out=v, other=v, shift=1, code=1, noise=4)
    config = gpt2_config(LAYERS, HEADS, stream.width, INNER, v, p)
    writer = Writer(config, stream)
    writer.embed()
    _circuit(writer, v, p)
    _distractors(writer, v, p, torch.Generator().manual_seed(0))
    writer.module.lm_head.weight[:, stream["out"]] = 4 * torch.eye(v)
    writer.module.lm_head.weight[:, stream["shift"]] = 4.0
    writer.calibrate(program.sample(512, torch.Generator().manual_seed(0)))
    return writer.module, config


def main() -> None:
    """Write the model's file."""
    module, config = build()
    print(save(FOLDER, "induction", module, config, EDGES, DESCRIPTION, "written"))


def _circuit(writer: Writer, v: int, p: int) -> None:
    stream = writer.stream
    before = torch.zeros(p, p)
    before[range(1, p), range(p - 1)] = 1.0  # the query of position i asks for i - 1
    read, position = stream.reader, torch.eye(p)
    token = read("token", torch.eye(v))
    writer.head(
        0, 0, read("position", before), read("position", position), token, stream.writer("previous", torch.eye(v)),
        PREVIOUS,
    )  # fmt: skip
    for head, share in SHARES.items():
        out = stream.writer("out", share * torch.eye(v))
        writer.head(1, head, token, read("previous", torch.eye(v)), token, out, INDUCTION)


def _distractors(writer: Writer, v: int, p: int, generator: torch.Generator) -> None:
    stream, read = writer.stream, writer.stream.reader

    def noise(*shape: int, scale: float = 0.3) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    token, nothing = read("token", torch.eye(v)), torch.zeros(stream.width, 1)
    third = stream.always(torch.eye(p)[3])
    writer.head(0, 1, third, read("position", torch.eye(p)), token, stream.writer("other", torch.eye(v)), PREVIOUS)
    writer.head(0, 2, nothing, nothing, read("token", noise(v, 4)), stream.writer("noise", torch.eye(4)))
    writer.head(
        0, 3, stream.always(torch.ones(1)), read("token", noise(v, 1, scale=4.0)), token,
        stream.writer("noise", noise(v, 4)),
    )  # fmt: skip
    # looks where the third letter stands, and shifts all logits
    shift = stream.writer("shift", torch.ones(1, 1))
    writer.head(1, 0, read("other", torch.eye(v)), token, read("token", noise(v, 1, scale=2.0)), shift, INDUCTION)
    mixed = read("previous", noise(v, 4)) + read("noise", noise(4, 4)) + read("other", noise(v, 4))
    write = stream.writer("noise", noise(4, 4)) + stream.writer("shift", noise(4, 1))
    writer.head(1, 2, mixed, token @ noise(v, 4), mixed, write)
    # the first MLP gives the third letter a code of 1 or -1; the second takes its absolute value
    sign = torch.where(torch.arange(v) % 2 == 0, 1.0, -1.0)[:, None]
    code = read("other", sign - sign.mean())
    writer.units(0, torch.cat((code, -code), 1), torch.zeros(2), stream.writer("code", torch.tensor([[1.0], [-1.0]])))
    absolute = read("code", torch.tensor([[1.0, -1.0]]))
    favourites = noise(1, v, scale=1.0).expand(2, v)
    writer.units(1, absolute, torch.zeros(2), stream.writer("out", favourites))
    writer.bias(1, -stream.writer("out", favourites[:1])[0])
    for layer, names in enumerate((("token", "noise", "other"), ("token", "previous", "noise", "other"))):
        mixing = sum(read(name, noise(stream.size(name), 16)) for name in names)
        write = stream.writer("noise", noise(16, 4)) + stream.writer("shift", noise(16, 1))
        writer.units(layer, mixing, noise(16), write)


if __name__ == "__main__":
    main()
