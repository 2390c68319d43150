"""Answers of the paper's tasks against plain python, a number at a time."""

import itertools

import pytest
import torch

from circuits.programs import SequenceTask, names, sequence_task
from interp.errors import InputError


def digits(xs, base):
    carry, found = 0, []
    for a, b in xs:
        carry, digit = divmod(a + b + carry, base)
        found.append(digit)
    return found


def quotients(xs, by):
    """The quotient's digits of the whole number, which long division gives one by one."""
    number = int("".join(map(str, xs)), 2)
    return [int(digit) for digit in f"{number // by:0{len(xs)}b}"]


def thrown(xs, pull=0, spring=0):
    v, p, found = 0, 0, []
    for x in xs:
        v += x - pull - spring * p
        p += v
        found.append(p)
    return found


def turned(xs):
    v, p, found = 0j, 0j, []
    for a, b in xs:
        v += complex(a, b) + 1j * v
        p += v
        found.append((p.real, p.imag))
    return found


def balanced(xs):
    texts = ["".join("()"[x] for x in xs[: t + 1]) for t in range(len(xs))]

    def whole(text):
        while "()" in text:
            text = text.replace("()", "")
        return not text

    return [int(whole(text)) for text in texts]


def steps(xs):
    sums = [0, *itertools.accumulate(xs)]
    return [b // 15 - a // 15 for a, b in itertools.pairwise(sums)]


def before(xs, k):
    return ([0] * k + xs)[: len(xs)]


def last(xs, k):
    return [([0] * k + xs)[t + 1 : t + k + 1] for t in range(len(xs))]


def sofar(of):
    return lambda xs: [of(xs[: t + 1]) for t in range(len(xs))]


def alternate(k):
    return lambda xs: [int(all(a != b for a, b in itertools.pairwise(window))) for window in last(xs, k)]


ANSWERS = {
    "binary-addition": lambda xs: digits(xs, 2), "bitwise-xor": lambda xs: [a ^ b for a, b in xs],
    "bitwise-or": lambda xs: [a | b for a, b in xs], "bitwise-and": lambda xs: [a & b for a, b in xs],
    "bitwise-not": lambda xs: [1 - x for x in xs], "parity-all": sofar(lambda xs: sum(xs) % 2),
    "parity-zeros": sofar(lambda xs: xs.count(0) % 2), "evens-counter": sofar(lambda xs: sum(x % 2 == 0 for x in xs)),
    "sum-all": sofar(sum), "current-number": list, "bit-shift-right": lambda xs: before(xs, 1),
    "previous-equals-current": lambda xs: [int(a == b) for a, b in zip(xs, before(xs, 1), strict=True)],
    "diff-last2": lambda xs: [a - b for a, b in zip(xs, before(xs, 1), strict=True)],
    "abs-diff": lambda xs: [abs(a - b) for a, b in zip(xs, before(xs, 1), strict=True)],
    "abs-current": lambda xs: list(map(abs, xs)),
    "diff-abs-values": lambda xs: [abs(a) - abs(b) for a, b in zip(xs, before(xs, 1), strict=True)],
    "min-seen": sofar(min), "max-seen": sofar(max),
    "evens-detector": lambda xs: [int(x in (0, 2, 4, 6, 8)) for x in xs],
    "perfect-square-detector": lambda xs: [int(x in (0, 1, 4, 9, 16)) for x in xs],
    "bit-palindrome": sofar(lambda xs: int(xs == xs[::-1])), "balanced-parenthesis": balanced,
    "parity-bits-mod2": lambda xs: [t % 2 for t in range(len(xs))],
    "bit-dot-prod-mod2": sofar(lambda xs: sum(a * b for a, b in xs) % 2), "dithering": steps,
    "newton-freebody": thrown, "newton-gravity": lambda xs: thrown(xs, pull=1),
    "newton-spring": lambda xs: thrown(xs, spring=1), "newton-magnetic": turned,
    "alternating-last3": alternate(3), "alternating-last4": alternate(4),
    **{f"base-{b}-addition": lambda xs, b=b: digits(xs, b) for b in range(3, 8)},
    **{f"parity-last{k}": lambda xs, k=k: [sum(own) % 2 for own in last(xs, k)] for k in (2, 3, 4)},
    **{f"sum-last{k}": lambda xs, k=k: list(map(sum, last(xs, k))) for k in range(2, 8)},
    **{f"prev{k}": lambda xs, k=k: before(xs, k) for k in range(1, 6)},
    **{f"div-{by}": lambda xs, by=by: quotients(xs, by) for by in (3, 5, 7)},
    **{f"add-mod-{by}": sofar(lambda xs, by=by: sum(xs) % by) for by in range(3, 9)},
    **{f"majority-0-{k}": sofar(lambda xs: max(sorted(set(xs)), key=xs.count)) for k in (1, 2, 3)},
}  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_answers(name):
    task = sequence_task(name)
    x, y = task.sample(12, torch.Generator().manual_seed(0))
    for read, answers in zip(x.tolist(), y.tolist(), strict=True):
        xs = [tuple(row) for row in read] if task.inputs > 1 else [row[0] for row in read]
        wanted = ANSWERS[name](xs)
        assert answers == [list(one) if isinstance(one, tuple) else [one] for one in wanted]
    assert x.min() >= task.low
    assert x.max() < task.high


def test_there_are_all_sixty_two():
    assert set(names()) == set(ANSWERS)
    assert len(names()) == 62


def test_palindromes_come_often():
    x, y = sequence_task("bit-palindrome").sample(300, torch.Generator().manual_seed(0))
    assert y[:, 9].double().mean() > 0.1
    assert 0.3 < x.double().mean() < 0.7


def test_refusals():
    with pytest.raises(InputError, match="did you mean 'parity-all'"):
        sequence_task("parity-al")
    with pytest.raises(InputError, match=r"high=0 must be larger than low=0"):
        SequenceTask("nothing", lambda x: x, 0, 0)
    with pytest.raises(InputError, match=r"^n=0 must be"):
        sequence_task("sum-all").sample(0, torch.Generator())
