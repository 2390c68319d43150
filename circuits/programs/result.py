"""`Program`: what a network computes, as Python, and on how many sequences that is true."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from circuits.programs.rnn import Shape
from interp.interval import Estimate
from interp.result import Result


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Program(Result):
    """A program read off a network; made by `circuits.programs.find_program`.

    Attributes:
        source: Python that runs by itself, with one function `program(xs)`; empty where none was found. A loaded result
            never runs it.
        maps: one row a formula. Columns: variable, kind ("linear", "symbolic", "symmetric", "disjunction"), formula.
        states: what the state's whole numbers are: "linear lattice", "gcd lattice" or "automaton"; empty as above.
        n_states: different states that were seen.
        accuracy: share of fresh sequences on which the program gives all answers of the task, with Wilson's interval;
            NaN where there is no program.
        agreement: the same against the network's rounded outputs.
        network_accuracy: the network's own share, on the same sequences.
        chance: share of single answers that the most frequent answer would get right.
        tried: one row a way of reading the states. Columns: states, result.
        task, shape, sequences, seed: what was asked.
    """

    source: str
    maps: pd.DataFrame
    states: str
    n_states: int
    accuracy: Estimate
    agreement: Estimate
    network_accuracy: Estimate
    chance: float
    tried: pd.DataFrame
    task: str
    shape: Shape
    sequences: int
    seed: int

    @property
    def solved(self) -> bool:
        """Whether there is a program without a mistake on all fresh sequences."""
        return self.accuracy.value == 1

    def to_frame(self) -> pd.DataFrame:
        """`maps`; a copy."""
        return self.maps.copy()

    def headline(self) -> str:
        network = f"{self.task}, {self.shape}"
        if not self.source:
            why = "; ".join(f"{row.states}: {row.result}" for row in self.tried.itertuples())
            return f"no program for {network} ({why})"
        formulas = "; ".join(f"{row.variable} = {row.formula}" for row in self.maps.itertuples())
        return (
            f"{network}: {formulas}; right on {self.accuracy} of {self.sequences} fresh sequences, as the network on "
            f"{self.agreement} (the most frequent answer: {self.chance:.3f} of answers)"
        )
