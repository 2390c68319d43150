"""Numbers at the door: every public function takes numpy's and torch's, and refuses before it does anything."""

import importlib
import inspect
import re

import numpy as np
import pytest
import torch

from attribution import Schedule
from attribution.inputs.reagent import ReAGent
from attribution.rules import rules
from circuits import Circuit, find_circuit
from circuits.viewer.linked import check_example
from interp import numbers
from interp.encoders import load_encoder
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.tasks import Task
from interp.tasks.resampled import resampled
from metrics.circuit.evaluate import evaluate
from metrics.explanation.baselines import Blur, Delete, Noise, Token, filler
from metrics.explanation.curves import fraction_grid
from metrics.explanation.road import Road
from metrics.explanation.roar_plan import roar_plan
from tests import oracle
from tests.oracle import mixed_task

ROOMS = ("interp", "interp.concepts", "interp.selection", "interp.tasks", "attribution", "attribution.concepts",
         "circuits", "circuits.mib", "circuits.planted", "metrics", "metrics.concepts")  # fmt: skip
# read: what the annotation says; a graph's own methods are asked in loops, with what the library counted itself
READ = re.compile(r"(int|float|None|\| |Sequence\[(int|float)\]| )+")
INNER = ("ComputationalGraph.", "temperature", "prepare", ".path", "Run.progress", "Case.of", ".softly")
HANDED_ON = ("interp.selection.named",)  # to functions that are among these
SETTINGS = [
    (Schedule, "steps"), (Schedule, "rate"), (ReAGent, "runs"), (ReAGent, "share"), (rules.Epsilon, "epsilon"),
    (rules.Gamma, "gamma"), (rules.AttentionFactors, "temperature"), (Road, "noise"), (Blur, "sigma"),
    (Noise, "scale"), (Token, "id"), (Delete, "pad"), (ComputationalGraph, "n_layers"),
]  # fmt: skip


class Untouched:
    """Stands for a model, a task or scores: whoever uses it has begun to work."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was asked for before the numbers were checked")

    __iter__ = __len__ = __getitem__ = lambda self, *of: self.anything


def doors():
    """Every public function and method with its parameters that are numbers."""
    found = {}
    for room in map(importlib.import_module, ROOMS):
        for name in room.__all__:
            thing = getattr(room, name)
            members = {f"{name}.{key}": getattr(thing, key) for key in vars(thing) if not key.startswith("_")} if (
                inspect.isclass(thing)) else {name: thing}  # fmt: skip
            for called, function in members.items():
                if (
                    (inspect.isfunction(function) or inspect.ismethod(function))
                    and not any(inner in called for inner in INNER)
                    and function.__module__ not in HANDED_ON
                ):
                    found[f"{function.__module__}.{called}"] = function
    found["load_encoder"], found["resampled"] = load_encoder, resampled
    for called, function in found.items():
        for name, written in annotations(function):
            if READ.fullmatch(written) and written != "None":
                yield pytest.param(function, name, written, id=f"{called}-{name}")


def annotations(function):
    """Parameters and what is written behind them, those of unpacked groups of keywords too."""
    for parameter in inspect.signature(function).parameters.values():
        group = re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation))
        if group is None:
            yield parameter.name, str(parameter.annotation)
        else:
            declared = inspect.unwrap(function).__globals__[group[1]].__annotations__
            yield from ((name, getattr(one, "__forward_arg__", str(one))) for name, one in declared.items())


def call(function, name, value):
    needed = {
        one.name: ([1] if "Sequence" in str(one.annotation) else 1)
        if READ.fullmatch(str(one.annotation))
        else Untouched()
        for one in inspect.signature(function).parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    return function(**(needed | {name: value}))


@pytest.mark.parametrize(("function", "name", "written"), list(doors()))
def test_what_is_no_number_is_refused_before_any_work(function, name, written):
    bad = ["x", True, float("nan"), np.bool_(True), torch.zeros(2, 2), 1j]
    bad += [] if "float" in written or "Sequence" in written else [1.0, np.float64(2.0)]
    bad += [] if "None" in written else [None]
    bad += [-1, 2**64, 1.0, None] if name == "seed" else []
    for value in bad:
        with pytest.raises(InputError, match=rf"^{name}(\[0\])?=") as caught:
            call(function, name, value)
        assert "\n" not in str(caught.value)


def test_the_doors_are_many():
    functions = [door.values[0] for door in doors()]
    assert len(functions) > 150
    assert find_circuit in functions


@pytest.mark.parametrize(("made", "name"), SETTINGS)
def test_settings_check_themselves(made, name):
    needed = {"n_layers": 2, "n_heads": 2} if made is ComputationalGraph else {}
    for value in ("x", True, float("nan"), -1):
        with pytest.raises(InputError, match=f"^{name}="):
            made(**(needed | {name: value}))
    kind = int if name in ("steps", "runs", "n_layers", "id", "pad") else float
    given = np.int64(3) if kind is int else np.float32(0.5)
    assert type(getattr(made(**(needed | {name: given})), name)) is kind


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), (np.int64(5), 5), (np.uint8(5), 5), (np.array(5), 5), (torch.tensor(5), 5), (torch.tensor(5).int(), 5)],
)
def test_whole_numbers_of_every_library(value, number):
    assert numbers.whole("n", value) == number
    assert type(numbers.whole("n", value)) is int
    assert numbers.seed(value) == number
    assert type(numbers.size("edges", value)) is int


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).bfloat16()]
)
def test_real_numbers_of_every_library(value):
    assert numbers.real("share", value, numbers.SHARE) == 0.5
    assert type(numbers.real("share", value)) is float
    with pytest.raises(InputError, match=r"^n=.*0\.5.* must be a whole number of at least 1$"):
        numbers.whole("n", value, numbers.COUNT)


@pytest.mark.parametrize("values", [[1, 2], (1, 2), np.array([1, 2]), torch.tensor([1, 2]), range(1, 3)])
def test_sequences_of_every_library(values):
    assert numbers.many("top", values) == [1, 2]


def test_numbers_among_other_things_are_taken_and_refused_too():
    assert fraction_grid(np.int64(4)).tolist() == fraction_grid(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert fraction_grid(torch.tensor([0, 0.5, 1])).tolist() == [0, 0.5, 1]
    ids = torch.tensor([[1, 2]])
    assert filler(np.int64(7), ids, 0, False)(torch.tensor([0]), torch.tensor([[True, False]])).tolist() == [[7, 2]]
    assert roar_plan({"a": len}, ratios=[np.float32(0.5)], seeds=np.array([3, 4])).seeds == (3, 4)
    for call_it in (
        lambda: fraction_grid(True), lambda: fraction_grid("ab"), lambda: fraction_grid([0, "x", 1]),
        lambda: filler(True, ids, 0, False), lambda: filler(np.float64(7), ids, 0, False),
        lambda: filler(-1, ids, 0, False),
        lambda: roar_plan({"a": len}, seeds=[2**64]), lambda: roar_plan({"a": len}, seeds=0),
        lambda: check_example(Task.from_pairs("t", [("a", "b", "c", "d")]), 0.0),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"fractions|baseline|id=|seeds|example"):
            call_it()


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (numbers.COUNT, "a number of at least 1"), (numbers.POSITIVE, "a number above 0"),
        (numbers.BETWEEN, "a number above 0 and below 1"), (numbers.SHARE, "a number above 0 and up to 1"),
        (numbers.UNIT, "a number from 0 to 1"),
        (numbers.Limits(high=3, advice="3 is usual"), "a number up to 3; 3 is usual"),
    ],
)  # fmt: skip
def test_sentences(limits, sentence):
    outside = 4.0 if limits.high == 3 else -1.0
    with pytest.raises(InputError, match=re.escape(f"x={outside} must be {sentence}") + "$"):
        numbers.real("x", outside, limits)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_generator_takes_every_seed(seed):
    np.random.default_rng(numbers.seed(seed))
    torch.Generator().manual_seed(numbers.seed(seed) + 1000)


def six_prompts(model):
    task = mixed_task(model)
    return task.select([0, 1, 2, 0, 1, 2])


def test_a_circuit_found_with_numbers_of_numpy_is_the_same_and_can_be_saved(tmp_path):
    model = oracle.model_of("gpt2")
    task = six_prompts(model)
    plain = {"edges": 20, "steps": 2, "seed": 1, "confidence": 0.75, "n_random": 1, "scoring_share": 0.5}
    foreign = {
        "edges": np.int64(20), "steps": np.int32(2), "seed": np.int64(1), "confidence": np.float32(0.75),
        "n_random": torch.tensor(1), "scoring_share": np.array(0.5),
    }  # fmt: skip
    one, other = (find_circuit(model, task, quiet=True, **settings) for settings in (plain, foreign))
    assert torch.equal(one.mask, other.mask)
    other.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json").report.faithfulness == pytest.approx(one.report.faithfulness)


def test_the_faithfulness_asked_for_may_be_of_numpy(tmp_path):
    model = oracle.model_of("gpt2")
    found = find_circuit(model, six_prompts(model), method="eap", faithfulness=np.float32(0.5), quiet=True)
    found.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json").provenance["faithfulness_asked"] == 0.5


def test_arguments_too_many_are_named():
    with pytest.raises(
        InputError, match=r"takes 3 arguments by place \(model, task, circuit\); give the others by name, also .zero."
    ):
        evaluate(None, None, None, "zero")
