"""Programs of networks that were written by hand: found, right, and running by themselves."""

import itertools
import subprocess
import sys

import pytest
import torch

from circuits.programs import RNN, Program, SequenceTask, Shape, Training, find_program, sequence_task, smallest_rnn
from interp.errors import InputError
from interp.result import Result
from tests.circuits.programs.by_hand import ALL, layer, parity, running_sum

FOUND = {
    "running_sum": ("linear lattice", ["a = a + x", "y = a"]),
    "shift_register": ("linear lattice", ["a = x", "b = a", "c = b", "y = c"]),
    "parity": ("automaton", ["a = abs(a - x)", "y = a"]),
    "addition": ("gcd lattice", ["a = x1 + x2 + (a >= 2)", "y = a % 2"]),
    "largest": ("gcd lattice", ["a = x + max(a - x, 0)", "y = a"]),
    "apart": ("automaton", ["a = x % 2", "y = 1 - a"]),
}


@pytest.fixture(scope="module")
def found():
    made = {}
    for name, make in ALL.items():
        rnn, task = make()
        made[name] = find_program(rnn, task, sequences=200, fresh=100, seed=1), rnn, task
    return made


@pytest.mark.parametrize("name", list(ALL))
def test_the_program_of_a_network(found, name):
    program, _, _ = found[name]
    assert program.network_accuracy.value == 1
    assert program.solved, program.tried.to_string()
    assert program.agreement.value == 1
    formulas = [f"{row.variable} = {row.formula}" for row in program.maps.itertuples()]
    assert (program.states, formulas) == FOUND[name]


@pytest.mark.parametrize("name", list(ALL))
def test_the_source_runs_by_itself(found, name):
    program, rnn, task = found[name]
    x, y = task.sample(50, torch.Generator().manual_seed(7), 14)
    space = {}
    exec(program.source, space)
    given = (x[..., 0] if x.shape[2] == 1 else x).tolist()
    assert [space["program"](row) for row in given] == y[..., 0].tolist()
    assert torch.equal(rnn(x).round().long(), y)
    assert not {"torch", "numpy", "import"} & set(program.source.split())


def test_the_source_is_a_script():
    rnn, task = running_sum()
    source = find_program(rnn, task, sequences=50, fresh=20).source
    ran = subprocess.run(
        [sys.executable, "-I", "-c", source + "print(program([3, 4, 5]))"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[3, 7, 12]\n"


def test_the_package_above_does_not_load_this_one():
    asked = "import circuits, sys; print([name for name in sys.modules if name.startswith('circuits.programs')])"
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_what_was_found_is_kept_and_shown(found, tmp_path):
    program, _, _ = found["addition"]
    again = Result.load(program.save(tmp_path / "program.json"))
    assert isinstance(again, Program)
    assert again.source == program.source
    assert again.to_frame().equals(program.to_frame())
    assert "binary-addition" in repr(program)
    assert "100 fresh sequences" in program.headline()
    assert "<table" in program._repr_html_()
    assert 0.4 < program.chance < 0.6
    assert 0.95 < program.accuracy.low < 1


def test_a_network_that_errs_is_told():
    rnn, task = parity()
    wrong = RNN(rnn.transition, [layer([[-1]], [1])])  # the other way round
    program = find_program(wrong, task, sequences=100, fresh=50)
    assert program.agreement.value == 1
    assert program.accuracy.value == program.network_accuracy.value == 0
    assert not program.solved


def test_where_there_is_no_program_the_reasons_are_told():
    task = SequenceTask("squares", lambda x: torch.isin(x, torch.tensor([0, 1, 4, 9, 16])).long(), 0, 20)
    kinks = layer([[1]] * 19, [-place for place in range(19)])  # f is linear; g cannot be written shortly
    wanted = [float(x in (0, 1, 4, 9, 16)) for x in range(20)]
    ramps = [b - a for a, b in itertools.pairwise(wanted)]
    turns = [ramps[0], *(b - a for a, b in itertools.pairwise(ramps))]
    rnn = RNN([layer([[0, 1]], [0])], [kinks, layer([turns], [1])])
    program = find_program(rnn, task, sequences=100, fresh=50)
    assert program.network_accuracy.value == 1
    assert not program.solved
    assert program.source == ""
    assert "no program for squares" in repr(program)
    assert "no formula gives the output" in repr(program)
    assert program.to_frame().empty


def test_refusals(tmp_path):
    rnn, _ = running_sum()
    with pytest.raises(InputError, match=r"rnn has 1 inputs and 1 outputs; the task 'binary-addition' has 2 and 1"):
        find_program(rnn, sequence_task("binary-addition"))
    with pytest.raises(InputError, match=r"^fresh=0 must be"):
        find_program(rnn, sequence_task("sum-all"), fresh=0)


def test_the_smallest_network_of_a_task_is_trained():
    task = sequence_task("bitwise-not")
    how = Training(copies=4, sequences=16, steps=60, polish=60, fresh=100)
    made = smallest_rnn(task, training=how, quiet=True)
    assert made.accuracy == 1
    assert made.rnn.shape == Shape(hidden=1)
    assert len(made.tried) == 1
    assert find_program(made.rnn, task, sequences=50, fresh=50).solved


def test_a_shape_that_cannot_do_it_is_given_up():
    how = Training(copies=4, sequences=16, steps=10, polish=0, fresh=50)
    made = smallest_rnn(sequence_task("parity-all"), [Shape()], how, quiet=True)
    assert made.accuracy < 1
    assert made.tried["parameters"].tolist() == [5]
