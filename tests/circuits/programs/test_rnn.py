"""Networks: what they compute, how they are kept, and normalisers that leave what they compute alone."""

import numpy as np
import pytest
import torch
from torch import nn

from circuits.programs import RNN, Shape, normalised, sequence_task
from circuits.programs.jordan import jordan_basis
from circuits.programs.linear import linear_size
from circuits.programs.normalising import debiased, jordan, rebased, rounded, toeplitz, whitened
from interp.errors import InputError
from tests.circuits.programs.by_hand import addition, layer, shift_register, tensor

SHAPES = [
    Shape(),
    Shape(2, 3, 3),
    Shape(1, 1, 2, 2, 4, 2, 5),
    Shape(2, 1, 1, 3, 4, 1, 1),
]


def drawn(shape, seed=0, copies=()):
    return RNN.drawn(shape, torch.Generator().manual_seed(seed), copies)


def numbers(shape, seed=0, n=5):
    return torch.randint(-3, 4, (n, 6, shape.inputs), generator=torch.Generator().manual_seed(seed))


def by_modules(rnn, x):
    """The same by torch's modules, a sequence at a time."""

    def module(layers):
        parts = []
        for weight, bias in layers:
            linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
            linear.load_state_dict({"weight": weight, "bias": bias})
            parts += [linear, nn.ReLU()]
        return nn.Sequential(*parts[:-1])

    f, g, found = module(rnn.transition), module(rnn.output), []
    for sequence in x.double():
        state, said = torch.zeros(rnn.hidden, dtype=torch.float64), []
        for read in sequence:
            state = f(torch.cat((state, read)))
            said.append(g(state))
        found.append(torch.stack(said))
    return torch.stack(found).detach()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_network_is_two_perceptrons_in_turn(shape):
    rnn, x = drawn(shape), numbers(shape)
    torch.testing.assert_close(rnn(x), by_modules(rnn, x))
    torch.testing.assert_close(rnn.read(rnn.states(x)), rnn(x))
    assert rnn.shape.parameters == shape.parameters == sum(weight.numel() for weight in rnn.parameters())


def test_several_networks_at_once():
    shape = Shape(2, 2, 2, 2, 3)
    rnn, x = drawn(shape, copies=(3,)), numbers(shape)
    for copy in range(3):
        one = rnn.replaced([weight[copy] for weight in rnn.parameters()])
        torch.testing.assert_close(rnn(x)[copy], one(x))
        torch.testing.assert_close(rnn.states(x)[copy], one.states(x))


def test_files(tmp_path):
    rnn = drawn(SHAPES[2])
    again = RNN.load(rnn.save(tmp_path / "rnn.safetensors"))
    assert all(map(torch.equal, rnn.parameters(), again.parameters()))
    assert repr(again) == "RNN(2 hidden, f 4 wide, g 5 wide)"
    (tmp_path / "other").write_bytes(b"nothing")
    for name, why in (("other", "is damaged"), ("missing", "does not exist")):
        with pytest.raises(InputError, match=why):
            RNN.load(tmp_path / name)


def test_refusals():
    with pytest.raises(InputError, match=r"output\[0\] has a weight \(1, 2\) .* it must take 1 numbers"):
        RNN([layer([[1, 1]], [0])], [layer([[1, 1]], [0])])
    with pytest.raises(InputError, match="at least one layer"):
        RNN([], [])
    with pytest.raises(InputError, match=r"x has the shape \(5, 6\); it must be \[n, pos, 1\]"):
        drawn(Shape())(torch.zeros(5, 6))
    with pytest.raises(InputError, match=r"^hidden=0 must be"):
        Shape(hidden=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("step", [lambda rnn, x: whitened(rnn, x), lambda rnn, x: jordan(rnn),
                                  lambda rnn, x: toeplitz(jordan(rnn)), lambda rnn, x: debiased(rnn)],
                         ids=["whitened", "jordan", "toeplitz", "debiased"])  # fmt: skip
def test_normalisers_leave_the_function_alone(shape, step):
    rnn, x = drawn(shape, 3), numbers(shape)
    torch.testing.assert_close(step(rnn, x)(x), rnn(x), rtol=1e-7, atol=1e-7)


def test_rounding_moves_weights_by_less_than_a_hundredth():
    rnn = RNN([layer([[0.996, 2.02]], [0.004])], [layer([[-1.0001]], [0.5])])
    whole = rounded(rnn)
    assert [weight.tolist() for weight in whole.parameters()] == [[[1.0, 2.02]], [0.0], [[-1.0]], [0.5]]


def test_whitened_states_have_a_second_moment_of_one():
    rnn, task = shift_register()
    x, _ = task.sample(400, torch.Generator().manual_seed(0))
    states = whitened(rnn, x).states(x).flatten(0, 1)
    torch.testing.assert_close(states.T @ states / len(states), torch.eye(3, dtype=torch.float64))


def test_what_nothing_reads_again_becomes_a_bias_of_the_output():
    rnn = RNN([layer([[0, 0, 1], [0, 1, 1]], [7, 1])], [layer([[2, 1]], [0])])
    found = debiased(rnn)
    assert found.transition[0][1].tolist() == [0, 1]
    assert found.output[0][1].tolist() == [14]


@pytest.mark.parametrize(
    "form",
    [
        [[2, 1, 0], [0, 2, 1], [0, 0, 2]],
        [[0, 1, 0], [0, 0, 0], [0, 0, 1]],
        [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1]],
        [[0.5, 0.8, 0], [-0.8, 0.5, 0], [0, 0, 1]],
    ],
)
def test_jordan_forms_are_found_again(form):
    form = np.array(form, dtype=float)
    mixed = np.random.default_rng(0).normal(size=form.shape)
    matrix = mixed @ form @ np.linalg.inv(mixed)
    basis = jordan_basis(matrix)
    found = np.linalg.solve(basis, matrix @ basis)
    np.testing.assert_allclose(np.sort(np.diag(found)), np.sort(np.diag(form)), atol=1e-4)
    ones = lambda one: round(float(np.abs(np.diag(one, 1)).sum()), 3)  # noqa: E731
    assert ones(found) == pytest.approx(ones(form), abs=1e-3)
    assert np.abs(np.tril(found, -2)).max() < 1e-4


def test_the_toeplitz_step_lets_inputs_enter_the_last_state_with_weight_one():
    rnn = RNN([layer([[1, 1, 0.3], [0, 1, 2.5]], [0, 0])], [layer([[1, 0]], [0])])
    found = toeplitz(rnn).transition[0][0]
    torch.testing.assert_close(found, tensor([[1, 1, 0], [0, 1, 1]]))


def test_all_normalisers_in_turn_make_weights_whole():
    rnn, task = shift_register()
    mixed = rebased(rnn, torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    x, y = task.sample(200, torch.Generator().manual_seed(0))
    found = normalised(mixed, x)
    assert torch.equal(found(x).round().long(), y)
    for weight in found.parameters():
        torch.testing.assert_close(weight, weight.round())
    rnn, task = addition()
    x, y = task.sample(200, torch.Generator().manual_seed(0))
    assert torch.equal(normalised(rnn, x)(x).round().long(), y)


@pytest.mark.parametrize(
    ("name", "size"),
    [("sum-all", 1), ("sum-last7", 7), ("prev3", 4), ("newton-gravity", 2), ("newton-magnetic", 4),
     ("parity-bits-mod2", 1), ("bitwise-not", 1), ("parity-all", None), ("max-seen", None), ("bitwise-or", None)],
)  # fmt: skip
def test_the_size_that_a_linear_network_needs(name, size):
    assert linear_size(sequence_task(name), torch.Generator().manual_seed(0)) == size
