"""Formulas that are found hold in every row, and are the short ones; sources do what their parts say."""

from itertools import product

import numpy as np
import pytest

from circuits.programs.boolean import disjunction
from circuits.programs.formulas import Formula, affine, formula
from circuits.programs.source import compiled, python_source

BITS = np.array(list(product((0, 1), repeat=3)))
GRID = np.array(list(product(range(6), range(4))))


def value(text, variables):
    rows = zip(*(column.tolist() for column in variables.values()), strict=True)
    return [eval(text, {}, dict(zip(variables, row, strict=True))) for row in rows]


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [("2*a - 3*x + 7", "linear"), ("(a + x) % 5", "symbolic"), ("x + a // 2", "symbolic"),
     ("x + 2*(a % 3)", "symbolic"), ("int(a - x >= 2)", "symbolic"), ("max(a, x)", "symbolic"),
     ("abs(a - x)", "symbolic"), ("a - 3*(x == 2)", "symbolic")],
)  # fmt: skip
def test_formulas_of_numbers(wanted, kind):
    variables = {"a": GRID[:, 0], "x": GRID[:, 1]}
    target = np.array(value(wanted, variables))
    found = formula(target, variables)
    assert found.kind == kind
    assert value(found.text, variables) == target.tolist()
    assert found.length <= Formula(wanted, kind).length + 4  # max and abs are written by their term


@pytest.mark.parametrize("truth", range(1, 255, 7))
def test_every_boolean_function_has_a_formula(truth):
    variables = dict(zip("abc", BITS.T, strict=True))
    target = np.array([truth >> row & 1 for row in range(8)])
    found = formula(target, variables)
    assert value(found.text, variables) == target.tolist()
    text = disjunction(target, variables)
    assert value(text, variables) == target.tolist()
    assert text.count(" or ") <= target.sum() - 1


def test_parities_and_majorities_are_short():
    a, b, c = BITS.T
    variables = {"a": a, "b": b, "c": c}
    assert formula((a + b + c) % 2, variables).text == "(a + b + c) % 2"
    assert formula((a + b + c >= 2).astype(int), variables).text == "(a + b + c) // 2"
    assert formula(a & b, variables).text == "int(a and b)"


def test_what_was_not_seen_may_come_out_either_way():
    a, b, c = BITS[:4].T  # a is 0 throughout
    assert formula(b ^ c, {"a": a, "b": b, "c": c}).text == "abs(b - c)"


def test_wide_numbers_are_sums_and_terms_near_zero():
    x = np.arange(-100, 100)
    assert formula(abs(x), {"x": x}).text == "abs(x)"
    assert affine(7 * x - 3, {"x": x}) == "7*x - 3"
    assert formula((x.astype(float) ** 2).astype(int), {"x": x}) is None


def test_constants_and_variables_that_others_give():
    a = np.arange(5)
    assert formula(np.full(5, 4), {"a": a}).text == "4"
    assert formula(3 * a, {"a": a, "b": 2 * a + 1}).text == "3*a"


def test_a_source_goes_through_a_sequence():
    steps, said = [Formula("b", ""), Formula("a + b", "")], [Formula("a", ""), Formula("-b", "")]
    source = python_source((0, 1), steps, said, 2, "f")
    run = compiled(source.replace("x1, x2", "_, x2"))
    assert run([(0, 0)] * 4) == [(1, -1), (1, -2), (2, -3), (3, -5)]
