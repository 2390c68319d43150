"""Small programs of logic gates, and models whose weights compute them: written as the planted models are.

A program has some bits and one gate for each layer. A gate reads two values, bits or earlier gates; the last one is the
answer. Heads of the first layer fetch the bits to the last position, each layer's MLP computes its gate there. What no
way leads from to the answer is computed all the same: it must be found to do nothing. Every value is 1 or -1 in a place
of its own, so that norms divide by the same number whatever the prompt, and effects are known exactly.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks.planted.writing import Stream, Writer, gpt2_config
from circuits.planted.programs import Program

WORDS = ("<bos>", "0", "1", "=", "true", "false")
BOS, ZERO, ONE, ASK, TRUE, FALSE = range(6)
PAIR = torch.tensor([[1.0, -1.0]])
SCALE, SHARPNESS = 2.0, 12.0
GAP = 4 * SCALE  # by how much the logit of the right answer is above the other's

Edge = tuple[int, int]  # a gate, and which of its two arguments


@dataclass(frozen=True)
class Gate:
    """Two values, by number: bits first, then earlier gates; and for which of their four cases it is true."""

    reads: tuple[int, int]
    table: tuple[bool, bool, bool, bool]

    def of(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.tensor(self.table)[2 * first.long() + second.long()]


@dataclass(frozen=True)
class Gates:
    """A program; `bits` is how many there are."""

    bits: int
    gates: tuple[Gate, ...]

    def run(self, given: Tensor, instead: Mapping[Edge, Tensor] | None = None) -> list[Tensor]:
        """All values [n] of bits [n, bit]; `instead` hands a gate something else for an argument."""
        values = list(given.T)
        for number, gate in enumerate(self.gates):
            read = [(instead or {}).get((number, i), values[one]) for i, one in enumerate(gate.reads)]
            values.append(gate.of(*read))
        return values

    @functools.cached_property
    def used(self) -> list[int]:
        """The gates that a way leads from to the answer."""
        found = {len(self.gates) - 1}
        for number in reversed(range(len(self.gates))):
            if number in found:
                found |= {one - self.bits for one in self.gates[number].reads if one >= self.bits}
        return sorted(found)

    @property
    def answers(self) -> set[bool]:
        """What it gives over all bits."""
        every = torch.tensor(list(itertools.product((False, True), repeat=self.bits)))
        return set(self.run(every)[-1].tolist())

    @property
    def program(self) -> Program:
        """The same as prompts and answers: BOS, the bits, and =."""

        def sample(n: int, generator: Generator) -> Tensor:
            bits = torch.randint(2, (n, self.bits), generator=generator) + ZERO
            return torch.cat((torch.full((n, 1), BOS), bits, torch.full((n, 1), ASK)), 1)

        def answer(prompts: Tensor) -> Tensor:
            return torch.where(self.run(bits_of(prompts))[-1], TRUE, FALSE)

        return Program("gates", WORDS, self.bits + 2, "Gates of bits.", sample, answer)

    def effects(self, clean: Tensor, corrupted: Tensor) -> dict[str, float]:
        """Of each edge that the answer comes from, how far the logit difference falls where it alone is corrupted.

        In plain logic: twice `GAP` for each prompt whose answer turns; mean over prompts.
        """
        given, other = bits_of(clean), self.run(bits_of(corrupted))
        right = self.run(given)[-1]

        def turned(*edges: Edge) -> float:
            instead = {edge: other[self.gates[edge[0]].reads[edge[1]]] for edge in edges}
            return 2 * GAP * float((self.run(given, instead)[-1] != right).double().mean())

        reading: dict[int, list[Edge]] = {}
        for number, i in itertools.product(self.used, (0, 1)):
            reading.setdefault(self.gates[number].reads[i], []).append((number, i))
        found = {f"m{len(self.gates) - 1}->logits": 2 * GAP * float((other[-1] != right).double().mean())}
        for value, edges in reading.items():
            name = f"a0.h{value}" if value < self.bits else f"m{value - self.bits}"
            found |= {f"{name}->m{edge[0]}": turned(edge) for edge in edges}
            if value < self.bits:
                found[f"input->{name}<v>"] = turned(*edges)
        return found

    def build(self) -> nn.Module:
        """The model."""
        v, p = len(WORDS), self.bits + 2
        values = {f"v{i}": 2 for i in range(self.bits + len(self.gates))}
        width = v + p + sum(values.values()) + 2
        stream = Stream(token=v, position=p, **values, unused=-width % self.bits)
        writer = Writer(gpt2_config(len(self.gates), self.bits, stream.width, 4, v, p), stream)
        writer.embed()
        value = torch.zeros(v, 1)
        value[ONE], value[ZERO] = 1.0, -1.0
        for bit in range(self.bits):
            query, key = stream.always(torch.eye(p)[1 + bit]), stream.reader("position", torch.eye(p))
            write = stream.writer(f"v{bit}", PAIR)
            writer.head(0, bit, query, key, stream.reader("token", value), write, SHARPNESS)
        for layer, gate in enumerate(self.gates):
            self._write(writer, layer, gate)
        last = stream[f"v{self.bits + len(self.gates) - 1}"]
        writer.module.lm_head.weight[TRUE, last], writer.module.lm_head.weight[FALSE, last] = (
            SCALE * PAIR,
            -SCALE * PAIR,
        )
        writer.calibrate(self.program.sample(64, torch.Generator().manual_seed(0)))
        return writer.module

    def _write(self, writer: Writer, layer: int, gate: Gate) -> None:
        """A unit for each case in which the gate is true: 1 there, else 0; and -1 for all others."""
        stream = writer.stream
        cases = [signs for signs, on in zip(itertools.product((-1, 1), repeat=2), gate.table, strict=True) if on]
        read: Any = sum(
            stream.reader(f"v{one}", PAIR.T / 2) * torch.tensor([[float(signs[i]) for signs in cases]])
            for i, one in enumerate(gate.reads)
        )
        write = stream.writer(f"v{self.bits + layer}", PAIR)
        writer.units(layer, read, torch.full((len(cases),), -1.0), 2 * write.expand(len(cases), -1))
        writer.bias(layer, -write[0])


def bits_of(prompts: Tensor) -> Tensor:
    """Bits [n, bit] of prompts."""
    return prompts[:, 1:-1] == ONE
