"""From a trained recurrent network to a verified Python program (MIPS)."""

from circuits.programs.finding import find_program
from circuits.programs.lattice import Lattice, gcd_lattice, linear_lattice
from circuits.programs.normalising import normalised
from circuits.programs.result import Program
from circuits.programs.rnn import RNN, Shape
from circuits.programs.tasks import SequenceTask, names, sequence_task
from circuits.programs.training import Trained, Training, smallest_rnn

__all__ = [
    "RNN",
    "Lattice",
    "Program",
    "SequenceTask",
    "Shape",
    "Trained",
    "Training",
    "find_program",
    "gcd_lattice",
    "linear_lattice",
    "names",
    "normalised",
    "sequence_task",
    "smallest_rnn",
]
