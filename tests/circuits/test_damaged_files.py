"""Files of results that somebody, or a disk, has written into: refused in a sentence, or as good as before."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import attribution
import circuits
import metrics
from interp import hints, keeping
from interp.errors import InputError
from interp.result import Result
from tests.metrics.test_explanation_results import MADE
from tests.tiny import mostly_slow, tiny, tiny_task

QUICK: dict[str, Any] = {"resamples": 20, "quiet": True}
TRIED = 30  # damages of a file


@functools.cache
def given() -> tuple[Any, Any, attribution.Scores]:
    model = tiny("gpt2", torch.float32)
    task = tiny_task(model, n=6)
    return model, task, attribution.attribute(model, task, "eap", quiet=True)


@functools.cache
def with_tests() -> circuits.Circuit:
    model, task, _ = given()
    return circuits.find_circuit(model, task, edges=60, n_random=2, tests=True, **QUICK)


def ids() -> torch.Tensor:
    model, task, _ = given()
    return task.prompts(model).clean


KINDS: dict[str, Callable[[Any, Any, Any], Result]] = {
    "curve": lambda m, t, s: metrics.faithfulness_curve(m, t, s, n_random=1, **QUICK),
    "output": lambda m, t, s: metrics.output_agreement(m, t, s.mask(60), n_random=2, **QUICK),
    "recursive": lambda m, t, s: metrics.recursive_curve(m, t, s, (0.1, 0.5, 1.0), n_random=2, **QUICK),
    "tests": lambda m, t, s: metrics.circuit_tests(m, t, s.mask(60), n_random=20, quiet=True),
    "circuit saco": lambda m, t, s: metrics.circuit_saco(m, t, s, **QUICK),
    "completeness": lambda m, t, s: metrics.completeness(m, t, s.mask(60), **QUICK),
    "minimality": lambda m, t, s: metrics.minimality(m, t, s.mask(60), quiet=True),
    "components": lambda m, t, s: attribution.component_scores(m, t, quiet=True),
    "neurons": lambda m, t, s: attribution.neurons(m, t, quiet=True),
    "tokens": lambda m, t, s: attribution.tokens(m, ids(), method="attnlrp", quiet=True),
    "relevance": lambda m, t, s: attribution.relevance(m, ids(), quiet=True),
    "stability": lambda m, t, s: circuits.stability(m, t, edges=30, resamples=6, quiet=True),
    "agreement": lambda m, t, s: circuits.agreement(m, t, methods=["eap", "relp"], sample=30, **QUICK),
    "methods": lambda m, t, s: circuits.compare_methods(m, t, methods=["eap", "relp"], **QUICK),
    "robustness": lambda m, t, s: circuits.robustness(m, t, with_tests(), **QUICK),
    "two circuits": lambda m, t, s: circuits.Circuit(s, s.mask(60)).compare(circuits.Circuit(s, s.mask(40))),
}
FAST = ("curve", "tests", "stability", "agreement", "saco")
ALL = [*KINDS, *MADE]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value can be damaged; of lists the first two items."""
    yield at
    if isinstance(value, dict):
        if word := {"$tensor", "$array"} & value.keys():
            yield (*at, *word, "shape", 0)
            return
        for key, item in value.items():
            yield from places(item, (*at, key))
    elif isinstance(value, list):
        for place, item in enumerate(value[:2]):
            yield from places(item, (*at, place))


def damaged(document: Any, at: tuple[Any, ...], how: str) -> Any:
    document = copy.deepcopy(document)
    holder = functools.reduce(lambda part, key: part[key], at[:-1], document)
    if how == "gone":
        del holder[at[-1]]
    elif how == "longer":
        value = holder[at[-1]]
        holder[at[-1]] = [*value, *value[-1:]] if isinstance(value, list) else 10**400
    else:
        holder[at[-1]] = {"a word": "seven", "NaN": {"$float": "nan"}, "nothing": None, "negative": -3}[how]
    return document


def show(found: Result, drawn: bool) -> None:
    found.to_frame()
    str(found)
    found._repr_html_()
    if drawn:
        found.figure()


@pytest.mark.parametrize("name", mostly_slow(ALL, FAST.__contains__))
def test_what_is_loaded_can_be_shown_whatever_was_damaged(name: str, tmp_path: Path) -> None:
    found = KINDS[name](*given()) if name in KINDS else MADE[name]()
    path = found.save(tmp_path / "damaged.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    drawn = type(found).figure is not Result.figure
    show(type(found).load(path), drawn)
    hows = ("gone", "longer", "a word", "NaN", "nothing", "negative")
    cases = [(at, how) for at in places(document["result"], ("result",)) for how in hows]
    refused = []
    for at, how in random.Random(0).sample(cases, TRIED):
        path.write_text(json.dumps(damaged(document, at, how)), encoding="utf-8")
        try:
            loaded = Result.load(path)
        except InputError as error:
            refused.append(str(error))
        else:
            show(loaded, drawn)
    assert len(refused) > TRIED // 3
    assert all("damaged.json" in text and "\n" not in text for text in refused)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("sizes", "seven", r"the field 'sizes' of Curve must be tuple\[int, \.\.\.\]; it holds 'seven'"),
        ("sizes", {"$tuple": [1, 2]}, "these fields of Curve must be equally long: fractions 10, sizes 2"),
        ("sizes", {"$tuple": [{"$float": "nan"}] * 10}, "'sizes' of Curve must be tuple"),
        ("cpr_estimate", 0.5, "the field 'cpr_estimate' of Curve must be of type Estimate; it holds 0.5"),
        ("colour", "red", "a Curve has no field 'colour'"),
        ("points", None, "the field 'points' of Curve is missing"),
    ],
)
def test_a_damaged_field_is_named_with_its_file(field: str, value: Any, said: str, tmp_path: Path) -> None:
    path = KINDS["curve"](*given()).save(tmp_path / "curve.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    own = document["result"]["fields"]
    if value is None:
        del own[field]
    else:
        own[field] = value
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match=rf"curve\.json' cannot be read: .*{said}"):
        metrics.Curve.load(path)


def test_every_kind_that_a_file_can_hold_says_what_its_fields_are() -> None:
    held = [kind for kind in keeping.kinds() if not inspect.isabstract(kind)]
    assert len(held) > 30
    for kind in held:
        assert hints.annotations_of(kind).keys() <= kind.__dataclass_fields__.keys()
        for group in getattr(kind, "matching", ()):
            assert {*group} <= hints.annotations_of(kind).keys()


@pytest.mark.parametrize(
    ("at", "how"),
    [
        (("report", "tests", 0, "p_corrected"), "a word"),
        (("report", "tests", 0, "test"), "gone"),
        (("report", "output", 0, "same_low"), "gone"),
        (("report", "output", 0, "kl"), "nothing"),
        (("report", "per_prompt", "circuit"), "longer"),
        (("report", "faithfulness"), "a word"),
        (("scores", "seed"), "longer"),
        (("scores", "graph", "n_layers"), "negative"),
        (("setting", "ablation"), "NaN"),
        (("edges",), "nothing"),
    ],
)
def test_a_damaged_circuit_is_refused_by_its_file(at: tuple[Any, ...], how: str, tmp_path: Path) -> None:
    path = with_tests().save(tmp_path / "damaged.json")
    assert str(circuits.Circuit.load(path).report) == str(with_tests().report)
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(damaged(document, at, how)), encoding="utf-8")
    with pytest.raises(InputError, match=r"damaged\.json' is damaged: "):
        circuits.Circuit.load(path)
