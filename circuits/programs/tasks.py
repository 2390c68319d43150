"""The 62 tasks of arXiv:2402.05110 as generators of integer sequences, by the paper's names in small letters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from interp.errors import InputError, choose
from interp.numbers import COUNT, checked, settle

Numbers = Int[Tensor, "n pos width"]
Answer = Callable[[Numbers], Numbers]


@dataclass(frozen=True, repr=False)
class SequenceTask:
    """A function of integer sequences: at every position an answer to what was read so far.

    Attributes:
        name: for tables.
        answer: int [n, pos, inputs] to int [n, pos, outputs]; an answer depends on nothing behind its position.
        low, high: entries are drawn from low to high - 1.
        inputs: numbers at a position.
        length: positions.
        description: one sentence for people.
        draw: `(n, length, generator)` to int [n, pos, inputs], where entries alone would rarely show the task; None:
            every entry is drawn alone.

    Raises `InputError` for sizes that cannot be.
    """

    name: str
    answer: Answer
    low: int = 0
    high: int = 2
    inputs: int = 1
    length: int = 10
    description: str = ""
    draw: Callable[[int, int, Generator], Numbers] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        settle(self, inputs=COUNT, length=COUNT)
        if self.high <= self.low:
            raise InputError(f"high={self.high} must be larger than low={self.low}")

    @checked(n=COUNT, length=COUNT)
    def sample(self, n: int, generator: Generator, length: int | None = None) -> tuple[Numbers, Numbers]:
        """`n` sequences and their answers: int [n, pos, inputs], int [n, pos, outputs]."""
        pos = length or self.length
        if self.draw is not None:
            x = self.draw(n, pos, generator)
        else:
            x = torch.randint(self.low, self.high, (n, pos, self.inputs), generator=generator, device="cpu")
        return x, self.answer(x)

    def __repr__(self) -> str:
        return f"SequenceTask({self.name!r}: {self.description})"


def names() -> tuple[str, ...]:
    """Names of the paper's tasks.

    >>> len(names()), "binary-addition" in names()
    (62, True)
    """
    return tuple(TASKS)


def sequence_task(name: str) -> SequenceTask:
    """A task of the paper's. Raises `InputError` for an unknown name.

    >>> x, y = sequence_task("sum-all").sample(1, torch.Generator().manual_seed(0))
    >>> bool((x.cumsum(1) == y).all())
    True
    """
    return TASKS[choose("name", name, TASKS)]


def back(x: Numbers, k: int) -> Numbers:
    """The entries `k` positions earlier; zeros in front of the first."""
    return torch.cat((torch.zeros_like(x[:, :k]), x[:, : max(0, x.shape[1] - k)]), 1)[:, : x.shape[1]]


def folded(
    step: Callable[[list[Tensor], Tensor], tuple[list[Tensor], Tensor]], start: tuple[int, ...]
) -> Callable[[Numbers], Numbers]:
    """A recursion over positions: `step` gives the state's numbers [n] anew, and an answer, from [n, inputs] read."""

    def answer(x: Numbers) -> Numbers:
        state, found = [torch.full_like(x[:, 0, 0], value) for value in start], []
        for read in x.unbind(1):
            state, out = step(state, read)
            found.append(out if out.ndim == 2 else out[:, None])
        return torch.stack(found, 1)

    return answer


def _summed(last: int, x: Numbers) -> Numbers:
    return torch.stack([back(x, k) for k in range(last)]).sum(0)


def _parity(last: int, x: Numbers) -> Numbers:
    return _summed(last, x) % 2


def _summed_mod(by: int, x: Numbers) -> Numbers:
    return x.cumsum(1) % by


def _added(base: int, state: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    total = x.sum(1) + state[0]
    return [total // base], total % base


def _divided(by: int, state: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    rest = 2 * state[0] + x[:, 0]
    return [rest % by], rest // by


def _dithered(state: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    rest = state[0] + x[:, 0]
    return [rest % 15], rest // 15


def _balanced(state: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Depth, and whether a closing bracket came too early; 0 opens, 1 closes."""
    depth = state[0] + 1 - 2 * x[:, 0]
    broken = state[1] | (depth < 0)
    return [depth, broken], ((depth == 0) & (broken == 0)).long()


def _moved(pull: int, spring: int, state: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Newton's second law for a mass of one, in steps of one: velocity, position."""
    velocity = state[0] + x[:, 0] - pull - spring * state[1]
    return [velocity, state[1] + velocity], state[1] + velocity


def _turned(state: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    """The same in a plane, in a magnetic field of one."""
    vx, vy = state[0] + x[:, 0] - state[1], state[1] + x[:, 1] + state[0]
    px, py = state[2] + vx, state[3] + vy
    return [vx, vy, px, py], torch.stack((px, py), 1)


def _majority(among: int, x: Numbers) -> Numbers:
    """The number seen most often; of several the smallest."""
    counts = torch.nn.functional.one_hot(x[..., 0], among).cumsum(1)
    return counts.argmax(2, keepdim=True)  # the first of equals


def _palindrome(x: Numbers) -> Numbers:
    found = [(x[:, : t + 1] == x[:, : t + 1].flip(1)).all(1) for t in range(x.shape[1])]
    return torch.stack(found, 1).long()


def _palindromes(n: int, length: int, generator: Generator) -> Numbers:
    """Sequences that begin with a palindrome of a random length of at least two."""
    x = torch.randint(2, (n, length, 1), generator=generator, device="cpu")
    ends = torch.randint(min(2, length), length + 1, (n,), generator=generator, device="cpu")
    mirrored = ends[:, None] - 1 - torch.arange(length, device="cpu")
    inside = (mirrored >= 0) & (mirrored < torch.arange(length, device="cpu"))
    return torch.where(inside[..., None], x.gather(1, mirrored.clamp(min=0)[..., None]), x)


def _alternating(last: int, x: Numbers) -> Numbers:
    earlier = [back(x, k) for k in range(last)]
    return torch.stack([a != b for a, b in itertools.pairwise(earlier)]).all(0).long()


def _bits(name: str, answer: Answer, description: str, inputs: int = 1, **more: object) -> SequenceTask:
    return SequenceTask(name, answer, 0, 2, inputs, description=description, **more)  # type: ignore[arg-type]


def _pair(of: Callable[[Tensor, Tensor], Tensor]) -> Answer:
    return lambda x: of(x[..., :1], x[..., 1:])


def _tasks() -> list[SequenceTask]:
    least = "least digits first"
    found = [_bits("binary-addition", folded(partial(_added, 2), (0,)), f"sum of two binary numbers, {least}", 2)]
    found += [
        SequenceTask(f"base-{base}-addition", folded(partial(_added, base), (0,)), 0, base, 2,
                     description=f"sum of two numbers in base {base}, {least}")
        for base in range(3, 8)
    ]  # fmt: skip
    found += [
        _bits("bitwise-xor", _pair(torch.bitwise_xor), "a xor b", 2),
        _bits("bitwise-or", _pair(torch.bitwise_or), "a or b", 2),
        _bits("bitwise-and", _pair(torch.bitwise_and), "a and b", 2),
        _bits("bitwise-not", lambda x: 1 - x, "not a"),
    ]
    found += [_bits(f"parity-last{k}", partial(_parity, k), f"parity of the last {k} bits") for k in (2, 3, 4)]
    found += [
        _bits("parity-all", lambda x: x.cumsum(1) % 2, "parity of all bits so far"),
        _bits("parity-zeros", lambda x: (1 - x).cumsum(1) % 2, "parity of the number of zeros so far"),
        SequenceTask("evens-counter", lambda x: (x % 2 == 0).cumsum(1), 0, 10, description="even numbers so far"),
        SequenceTask("sum-all", lambda x: x.cumsum(1), 0, 100, description="sum so far"),
    ]
    found += [
        SequenceTask(f"sum-last{k}", partial(_summed, k), 0, 100,
                     description=f"sum of the last {k} numbers")
        for k in range(2, 8)
    ]  # fmt: skip
    found += [SequenceTask("current-number", lambda x: x.clone(), 0, 100, description="the number itself")]
    found += [
        SequenceTask(f"prev{k}", partial(back, k=k), 0, 100, description=f"the number {k} positions earlier")
        for k in range(1, 6)
    ]
    found += [
        SequenceTask("previous-equals-current", lambda x: (x == back(x, 1)).long(), 0, 8,
                     description="whether the number is the one before it"),
        SequenceTask("diff-last2", lambda x: x - back(x, 1), -100, 100, description="difference to the one before"),
        SequenceTask("abs-diff", lambda x: (x - back(x, 1)).abs(), -100, 100,
                     description="absolute difference to the one before"),
        SequenceTask("abs-current", lambda x: x.abs(), -100, 100, description="absolute value"),
        SequenceTask("diff-abs-values", lambda x: x.abs() - back(x, 1).abs(), -100, 100,
                     description="difference of absolute values to the one before"),
        SequenceTask("min-seen", lambda x: x.cummin(1).values, 0, 100, description="smallest so far"),
        SequenceTask("max-seen", lambda x: x.cummax(1).values, 0, 100, description="largest so far"),
    ]  # fmt: skip
    found += [
        SequenceTask(f"majority-0-{k}", partial(_majority, k + 1), 0, k + 1,
                     description=f"the number of 0 to {k} seen most often, the smallest of equals")
        for k in (1, 2, 3)
    ]  # fmt: skip
    found += [
        SequenceTask("evens-detector", lambda x: (x % 2 == 0).long(), 0, 10, description="whether the number is even"),
        SequenceTask("perfect-square-detector", lambda x: (x.double().sqrt().round() ** 2 == x).long(), 0, 20,
                     description="whether the number is a square"),
        _bits("bit-palindrome", _palindrome, "whether the bits so far are a palindrome", draw=_palindromes),
        _bits("balanced-parenthesis", folded(_balanced, (0, 0)), "whether brackets (0 opens) so far are balanced"),
        _bits("parity-bits-mod2", lambda x: torch.arange(x.shape[1], device="cpu")[None, :, None].expand(x.shape) % 2,
              "parity of the position, whatever the bits"),
        _bits("alternating-last3", partial(_alternating, 3), "whether the last 3 bits alternate, zeros in front"),
        _bits("alternating-last4", partial(_alternating, 4), "whether the last 4 bits alternate, zeros in front"),
        _bits("bit-shift-right", partial(back, k=1), "the bit before"),
        _bits("bit-dot-prod-mod2", lambda x: x.prod(2, keepdim=True).cumsum(1) % 2,
              "parity of the dot product of two rows of bits", 2),
    ]  # fmt: skip
    found += [
        _bits(f"div-{by}", folded(partial(_divided, by), (0,)), f"a binary number over {by}, greatest digits first")
        for by in (3, 5, 7)
    ]
    found += [
        SequenceTask(f"add-mod-{by}", partial(_summed_mod, by), 0, by, description=f"sum so far, mod {by}")
        for by in range(3, 9)
    ]
    found += [
        SequenceTask("dithering", folded(_dithered, (0,)), 0, 16,
                     description="brightness of 0 to 15 as steps of 15, the error carried on"),
        SequenceTask("newton-freebody", folded(partial(_moved, 0, 0), (0, 0)), -10, 11,
                     description="position of a mass under forces"),
        SequenceTask("newton-gravity", folded(partial(_moved, 1, 0), (0, 0)), -10, 11,
                     description="the same with gravity"),
        SequenceTask("newton-spring", folded(partial(_moved, 0, 1), (0, 0)), -10, 11,
                     description="the same on a spring"),
        SequenceTask("newton-magnetic", folded(_turned, (0, 0, 0, 0)), -10, 11, 2,
                     description="position in a plane under forces in a magnetic field"),
    ]  # fmt: skip
    return found


TASKS = {task.name: task for task in _tasks()}
