"""Planted lattices are found again, up to a whole change of basis; noise and what is no lattice are told."""

import numpy as np
import pytest
import torch

from circuits.programs import RNN, Lattice, gcd_lattice, linear_lattice
from circuits.programs.automaton import Table, clustered, minimal, restarted, tabulated
from interp.errors import InputError
from tests.circuits.programs.by_hand import layer, parity, shift_register


def planted(dim, hidden, n, noise, seed):
    drawn = np.random.default_rng(seed)
    basis, origin = drawn.normal(size=(dim, hidden)), drawn.normal(size=hidden)
    whole = np.unique(drawn.integers(-4, 5, (n, dim)), axis=0)
    lattice = Lattice(basis, origin)
    shortest = np.linalg.svd(basis, compute_uv=False)[-1]
    return lattice, whole, lattice.decode(whole) + noise * shortest * drawn.uniform(-1, 1, (len(whole), hidden))


@pytest.mark.parametrize("noise", [0.0, 1e-6, 2e-3])
@pytest.mark.parametrize(("dim", "hidden", "n"), [(1, 1, 6), (1, 3, 6), (2, 2, 30), (2, 3, 30), (3, 3, 120)])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_lattice_is_found_up_to_a_unimodular_change(dim, hidden, n, noise, seed):
    truth, whole, states = planted(dim, hidden, n, noise, seed)
    found = gcd_lattice(states)
    assert found is not None
    change = truth.basis @ np.linalg.pinv(found.basis)
    np.testing.assert_allclose(change, change.round(), atol=0.05)
    assert abs(round(np.linalg.det(change.round()))) == 1
    assert found.error(states) <= 0.05
    moved = found.encode(states)
    steps = np.linalg.lstsq(np.column_stack((whole, np.ones(len(whole)))), moved, rcond=None)[0]
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)  # the same points but for a whole change and shift


def test_coarse_steps_alone_give_the_lattice_by_euclid():
    found = gcd_lattice(np.array([[0.0], [6.0], [10.0], [15.0]]))
    np.testing.assert_allclose(np.abs(found.basis), [[1.0]])


@pytest.mark.parametrize(("n", "dim"), [(40, 2), (200, 4)])  # the more dimensions, the flatter the cells on the way
@pytest.mark.parametrize("seed", range(3))
def test_random_points_lie_on_no_lattice(seed, n, dim):
    assert gcd_lattice(np.random.default_rng(seed).normal(size=(n, dim))) is None


def test_codes_and_states_are_inverse():
    truth, whole, states = planted(2, 3, 20, 0.0, 0)
    assert np.array_equal(truth.encode(states), whole)
    np.testing.assert_allclose(truth.decode(whole), states)
    assert truth.error(states) < 1e-12
    assert truth.error(states + 0.3 * truth.basis[0]) > 0.1


@pytest.mark.parametrize("rest", [0.0, 5.3])  # of the number that nothing reads again: states without input rest there
def test_the_lattice_of_a_linear_transition(rest):
    rnn, task = shift_register()
    x, _ = task.sample(20, torch.Generator().manual_seed(0))
    mixed = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, bias = rnn.transition[0][0], torch.tensor([0.0, 0.0, rest], dtype=torch.float64)
    moved = torch.cat((torch.linalg.solve(mixed, weight[:, :3]) @ mixed, torch.linalg.solve(mixed, weight[:, 3:])), 1)
    other = RNN([(moved, torch.linalg.solve(mixed, bias))], [(rnn.output[0][0] @ mixed, rnn.output[0][1])])
    lattice = linear_lattice(other)
    padded = np.concatenate((np.zeros((20, 2), dtype=int), x[..., 0].numpy()), 1)
    whole = np.stack([padded[:, 2 - k : padded.shape[1] - k] for k in range(3)], 2)
    assert np.array_equal(lattice.encode(other.states(x).reshape(-1, 3).numpy()), whole.reshape(-1, 3))


def test_where_there_is_no_linear_lattice():
    assert linear_lattice(parity()[0]) is None
    assert linear_lattice(RNN([layer([[0.5, 0]], [0])], [layer([[1]], [0])])) is None
    with pytest.raises(InputError, match="states must be at least two"):
        gcd_lattice(np.zeros((3, 2)))


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-3])
def test_clusters_are_states_but_for_noise(noise):
    drawn = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [1.0, 0.3], [2.5, -1.0], [-1.0, 1.0]])
    which = drawn.integers(0, 4, 200)
    means, found = clustered(centres[which] + noise * drawn.normal(size=(200, 2)))
    assert len(means) == 4
    assert len(set(zip(which.tolist(), found.tolist(), strict=True))) == 4
    np.testing.assert_allclose(means[found], centres[which], atol=3 * noise + 1e-6)


def test_rounding_makes_no_clusters_of_its_own():
    means, found = clustered(np.array([[0.0], [0.5 + 4e-8], [0.5 + 6e-8], [1.0]]))
    assert len(means) == 3
    assert found[1] == found[2]


def test_numbers_that_are_all_different_are_states_of_their_own():
    means, found = clustered(np.arange(50.0)[:, None] ** 1.5)
    assert len(means) == 50
    assert found.tolist() == list(range(50))


def table_of(step, say, start, reads, n=200, pos=8):
    x = np.random.default_rng(0).choice(reads, (n, pos, 1))
    states, said = np.zeros((n, pos, 1), dtype=int), np.zeros((n, pos, 1), dtype=int)
    for row in range(n):
        state = start
        for t in range(pos):
            state = step(state, int(x[row, t, 0]))
            states[row, t], said[row, t] = state, say(state)
    return states, x, said


def test_an_automaton_is_made_minimal():
    states, x, said = table_of(lambda s, x: (s + x) % 6, lambda s: s % 3, 0, [0, 1, 2])
    table = tabulated(states, x, said, (9,))
    small = minimal(table)
    assert len(small.outputs) == 3
    for row in range(5):
        state = small.start
        for read, wanted in zip(x[row].tolist(), said[row].tolist(), strict=True):
            state = small.rows[state, tuple(read)]
            assert small.outputs[state] == tuple(wanted)
    assert small.start in small.outputs  # the beginning goes where the sum 0 goes


def test_what_is_no_state_is_no_table():
    states, x, said = table_of(lambda s, x: (s + x) % 6, lambda s: s % 3, 0, [0, 1, 2])
    assert tabulated(states % 2, x, said, (9,)) is None


def test_a_table_may_begin_in_another_state_that_goes_the_same_ways():
    table = Table({((9,), (0,)): (0,), ((9,), (1,)): (1,), ((0,), (0,)): (0,), ((0,), (1,)): (1,),
                   ((1,), (0,)): (1,), ((1,), (1,)): (0,)}, {(0,): (0,), (1,): (1,)}, (9,))  # fmt: skip
    assert restarted(table, (0,)).start == (0,)
    assert ((9,), (0,)) not in restarted(table, (0,)).rows
    assert restarted(table, (1,)) is None
