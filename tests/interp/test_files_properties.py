"""What files promise, of what hypothesis draws: what was saved is loaded, and damage is one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import networkx as nx
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.scores import Scores
from circuits.circuit import Circuit
from circuits.formats import mib_folder
from circuits.report import Report
from interp.errors import InputError
from interp.interval import Estimate
from interp.keeping import encode
from interp.result import FORMAT, Result
from tests.drawn import scored

texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


values_kept = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts | st.sampled_from(["$kind", "$tuple"]), inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=2)
    ),
    max_leaves=6,
)


@dataclasses.dataclass(frozen=True, repr=False)
class Found(Result):
    """A result of somebody's own."""

    values: torch.Tensor
    table: pd.DataFrame
    estimate: Estimate
    note: Any

    def to_frame(self) -> pd.DataFrame:
        return self.table.copy()

    def headline(self) -> str:
        return str(self.estimate)


def as_found(circuit: Circuit, note: Any = None) -> Found:
    return Found(circuit.scores.values, circuit.to_frame(), Estimate(0.5, float("nan"), float("inf")), note)


@st.composite
def made_scores(draw: Any) -> Scores:
    graph, values = draw(scored(draw(st.sampled_from([torch.float32, torch.float64]))))
    node = draw(st.booleans())
    return Scores(
        values.sum(1) if node else values,
        graph,
        method=draw(st.sampled_from(["eap", "exact"])),
        level="node" if node else "edge",
        model=draw(texts),
        task=draw(st.dictionaries(texts, json_values, max_size=2)),
        settings=draw(st.dictionaries(texts, json_values, max_size=2)),
        seed=draw(st.none() | st.integers(0, 99)),
    )


@st.composite
def made_circuits(draw: Any) -> Circuit:
    scores = draw(made_scores())
    mask = torch.rand(scores.graph.shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) < 0.5
    report = Report(faithfulness=draw(st.none() | st.floats(-2, 2)), notes=draw(st.lists(texts, max_size=2)))
    return Circuit(scores, mask & scores.graph.edge_mask, report)


def assert_same_scores(one: Scores, other: Scores) -> None:
    assert one.to_dict() == other.to_dict()
    assert one.values.dtype == other.values.dtype
    assert torch.equal(one.values, other.values)


@given(circuit=made_circuits())
def test_a_circuit_is_loaded_as_it_was_saved(circuit: Circuit) -> None:
    with TemporaryDirectory() as folder:
        loaded = Circuit.load(circuit.save(Path(folder) / "circuit.json"))
        assert_same_scores(loaded.scores, circuit.scores)
        assert torch.equal(loaded.mask, circuit.mask)
        assert (loaded.report, loaded.provenance, loaded.setting) == (
            circuit.report,
            circuit.provenance,
            circuit.setting,
        )
        assert len(list(Path(folder).iterdir())) == 2


@given(scores=made_scores())
def test_scores_are_loaded_as_they_were_saved(scores: Scores) -> None:
    with TemporaryDirectory() as folder:
        assert_same_scores(Scores.load(scores.save(Path(folder) / "scores.safetensors")), scores)
        assert len(list(Path(folder).iterdir())) == 1


@given(circuit=made_circuits(), note=st.tuples(values_kept, values_kept))
def test_a_result_is_loaded_as_it_was_saved(circuit: Circuit, note: Any) -> None:
    found = as_found(circuit, note)
    with TemporaryDirectory() as folder:
        loaded = Found.load(found.save(Path(folder) / "found.json"))
    assert encode(loaded) == encode(found)
    assert type(loaded.note) is type(note)
    assert torch.equal(loaded.values, found.values)
    pd.testing.assert_frame_equal(loaded.table, found.table)


@given(circuit=made_circuits())
def test_a_graph_of_eap_ig_is_read_as_it_was_written(circuit: Circuit) -> None:
    with TemporaryDirectory() as folder:
        first, second = Path(folder) / "first.json", Path(folder) / "second.json"
        loaded = Circuit.from_eap_ig_json(circuit.to_eap_ig_json(first))
        assert loaded.scores.graph == dataclasses.replace(circuit.graph, kv="head")
        if circuit.graph.kv == "head":
            assert torch.equal(loaded.mask, circuit.mask)
            if circuit.scores.level == "edge":
                assert torch.equal(loaded.scores.values.double(), circuit.scores.values.double())
        # what was read is written the same, and its edges have the sums of the edges that they stand for
        assert loaded.to_eap_ig_json(second).read_text() == first.read_text()
        if circuit.scores.level == "edge":
            torch.testing.assert_close(
                loaded.scores.values.double().sum(1), circuit.scores.values.double().sum(1), rtol=1e-5, atol=1e-3
            )


@given(circuit=made_circuits())
def test_graphml_holds_nodes_edges_and_scores(circuit: Circuit) -> None:
    with TemporaryDirectory() as folder:
        read = nx.read_graphml(circuit.to_graphml(Path(folder) / "circuit.graphml"), force_multigraph=True)
    made = circuit.to_networkx()
    model = circuit.provenance["model"]
    assert read.graph["model"] == model or not model.isprintable()  # XML has no control characters
    assert dict(read.nodes(data="layer")) == dict(made.nodes(data="layer"))

    def listed(graph: Any) -> list[Any]:
        return sorted((source, target, *(known[name] for name in ("port", "edge", "score")))
                      for source, target, known in graph.edges(data=True))  # fmt: skip

    assert listed(read) == listed(made)


@given(scores=made_scores())
def test_a_submission_to_mib_is_read_as_it_was_written(scores: Scores) -> None:
    with TemporaryDirectory() as folder:
        mib_folder.write_importances(scores, folder, "ioi", "gpt2")
        (entry,) = mib_folder.read(folder)
    assert entry.scores is not None
    if scores.level == "edge" and scores.graph.kv == "head":
        assert torch.equal(entry.scores.values.double(), scores.values.double())


WRITTEN: dict[str, tuple[Callable[[Circuit, Path], Any], Callable[[Path], Any]]] = {
    "circuit": (lambda circuit, path: circuit.save(path), Circuit.load),
    "scores": (lambda circuit, path: circuit.scores.save(path), Scores.load),
    "eap-ig": (lambda circuit, path: circuit.to_eap_ig_json(path), Circuit.from_eap_ig_json),
    "result": (lambda circuit, path: as_found(circuit).save(path), Result.load),
}


@pytest.mark.parametrize("kind", WRITTEN)
@given(
    circuit=made_circuits(),
    place=st.integers(0, 2**20).map(lambda seed: random.Random(seed).random()),
    junk=st.binary(min_size=1, max_size=4),
)
def test_a_damaged_file_is_one_sentence_or_harmless(kind: str, circuit: Circuit, place: float, junk: bytes) -> None:
    write, read = WRITTEN[kind]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        write(circuit, path)
        data = path.read_bytes()
        at = round(place * len(data))
        path.write_bytes(data[:at] + junk + data[at + len(junk) :])
        with contextlib.suppress(InputError):
            found = read(path)
            if kind == "scores":  # which has a checksum
                assert torch.equal(found.values, circuit.scores.values)
        path.write_bytes(data[:at])
        if at < len(data.rstrip()):
            with pytest.raises(InputError, match=r"file\.json"):
                read(path)


@pytest.mark.parametrize("kind", WRITTEN)
@given(content=json_values)
def test_other_json_is_refused_in_one_sentence(kind: str, content: Any) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(InputError, match=r"file\.json"):
            WRITTEN[kind][1](path)


WORDS = ("$kind", "fields", "$tuple", "$pairs", "$float", "$array", "$tensor", "$frame", "dtypes", "columns", "dtype",
         "shape", "base64", "Estimate", "Found", "Interval", "<f8", "|O", "AAAAAAAA", "value", "seed")  # fmt: skip
words = st.sampled_from(WORDS)
almost = st.recursive(
    st.none() | st.integers(-1, 9) | st.just(10**400) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, min_size=1, max_size=2),
    max_leaves=6,
)


@settings(max_examples=100)
@given(content=almost)
def test_a_file_that_is_almost_a_result_is_refused_in_one_sentence(content: Any) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        path.write_text(json.dumps({"format": FORMAT, "version": 1, "result": content}), encoding="utf-8")
        with pytest.raises(InputError, match=r"file\.json"):
            Found.load(path)


@pytest.mark.parametrize("kind", WRITTEN)
@settings(max_examples=8)
@given(first=made_circuits(), second=made_circuits(), fails=st.integers(0, 1))
def test_a_write_that_fails_leaves_what_was_there(kind: str, first: Circuit, second: Circuit, fails: int) -> None:
    write, _ = WRITTEN[kind]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "file.json"
        write(first, path)
        before = {one.name: one.read_bytes() for one in Path(folder).iterdir()}
        count = iter(range(9))

        def replace(self: Path, target: Any) -> Any:
            if next(count) == fails or kind != "circuit":
                raise OSError(28, "No space left on device")
            return original(self, target)

        original = Path.replace
        patch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="No space"):
            write(second, path)
        assert {one.name: one.read_bytes() for one in Path(folder).iterdir()} == before
