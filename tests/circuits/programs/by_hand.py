"""Networks whose weights are written by hand, and what they compute."""

import torch

from circuits.programs import RNN, SequenceTask, sequence_task


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def layer(weight, bias):
    return tensor(weight), tensor(bias)


def running_sum():
    """h = 3 times the sum so far; y = h / 3."""
    return RNN([layer([[1, 3]], [0])], [layer([[1 / 3]], [0])]), sequence_task("sum-all")


def shift_register():
    """h = (x, the one before, the one before that); y = the last."""
    rnn = RNN([layer([[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]], [0, 0, 0])], [layer([[0, 0, 1]], [0])])
    return rnn, sequence_task("prev2")


def parity():
    """h = h xor x by two neurons: h + x - 2 relu(h + x - 1)."""
    rnn = RNN([layer([[1, 1], [1, 1]], [0, -1]), layer([[1, -2]], [0])], [layer([[1]], [0])])
    return rnn, sequence_task("parity-all")


def addition():
    """h = x1 + x2 + carry, which lies at 0, 1, 2, 3; the carry is a step at 2, and y = h mod 2 by ReLUs."""
    step = [layer([[1, 0, 0], [1, 0, 0], [0, 1, 1]], [-1, -2, 0]), layer([[1, -1, 1]], [0])]
    out = [layer([[1], [1], [1]], [0, -1, -2]), layer([[1, -2, 2]], [0])]
    return RNN(step, out), sequence_task("binary-addition")


def largest():
    """h = max(h, x) by h + relu(x - h), in steps of a half."""
    rnn = RNN([layer([[1, 0], [-1, 0.5]], [0, 0]), layer([[1, 1]], [0])], [layer([[2]], [0])])
    return rnn, SequenceTask("largest", lambda x: x.cummax(1).values, 0, 12)


def apart():
    """Whether the number before was even, of 0 to 3: states at places that lie on no lattice."""
    places = tensor([0.3, 1.0, 2.618, 3.0517])  # of the inputs 0 to 3; steps between them are ramps
    rise = places.diff().tolist()
    slopes = [rise[0], rise[1] - rise[0], rise[2] - rise[1]]
    step = [layer([[0, 1], [0, 1], [0, 1]], [0, -1, -2]), layer([slopes], [places[0].item()])]
    kinks, wanted = places.tolist()[:3], [1.0, 0.0, 1.0, 0.0]
    ramps = [(b - a) / r for a, b, r in zip(wanted, wanted[1:], rise, strict=False)]
    turns = [ramps[0], ramps[1] - ramps[0], ramps[2] - ramps[1]]
    out = [layer([[1]] * 3, [-kink for kink in kinks]), layer([turns], [1])]
    return RNN(step, out), SequenceTask("evens", lambda x: (x % 2 == 0).long(), 0, 4)


ALL = {one.__name__: one for one in (running_sum, shift_register, parity, addition, largest, apart)}
