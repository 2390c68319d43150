"""`graph.compare(other)` against loops over both graphs."""

from __future__ import annotations

import functools
import math

import pytest

from circuits import trace
from interp.errors import InputError
from interp.result import Result
from tests.oracle import model_of

CLEAN, CORRUPTED = [4, 17, 9, 30, 2, 41, 8], [4, 17, 33, 30, 2, 41, 8]


@functools.cache
def traced(ids, name="llama", top=12, **settings):
    return trace(model_of(name), list(ids), [7, (3, 5)], top=top, quiet=True, **settings)


def by_place(graph):
    """Row numbers by kind, layer, position and unit; a token is its position, a logit its number."""
    found = {}
    for i, row in enumerate(graph.nodes.itertuples()):
        unit = {"token": -1, "logit": row.name}.get(row.kind, row.unit)
        found[row.kind, row.layer, row.position, unit, row.place] = i
    return found


def same(value, expected):
    return (math.isnan(value) and math.isnan(expected)) or value == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("settings", [{}, {"units": "heads"}], ids=str)
def test_changes_are_those_between_the_graphs(settings):
    graph, other = (traced(tuple(ids), **settings) for ids in (CLEAN, CORRUPTED))
    found = graph.compare(other)
    own, theirs = by_place(graph), by_place(other)
    whole = {kind: trace(model_of("llama"), ids, [7, (3, 5)], top=None, quiet=True, **settings) for kind, ids in (("own", CLEAN), ("other", CORRUPTED))}  # fmt: skip # noqa: E501
    known = {kind: dict(zip(one.nodes["name"], one.nodes["activation"], strict=True)) for kind, one in whole.items()}
    names = {}
    logits = {"logit '7'": "logit0", "logit '3 - 5'": "logit1"}
    for row in found.nodes.itertuples():
        unit = {"token": -1, "logit": logits.get(row.name)}.get(row.kind, row.unit)
        key = (row.kind, row.layer, row.position, unit, "")
        names[row.name] = key
        assert row.shown == ("both" if key in own and key in theirs else "this" if key in own else "other")
        for one, at, before, measured in ((graph, own, "", "own"), (other, theirs, "other_", "other")):
            nan = float("nan")
            influence = one.nodes["influence"][at[key]] if key in at else nan
            # units that one graph does not show are measured there
            activation = one.nodes["activation"][at[key]] if key in at else known[measured].get(row.name, 0.0)
            assert same(getattr(row, f"{before}influence"), influence)
            assert same(getattr(row, f"{before}activation"), activation)
        assert same(row.influence_change, row.influence - row.other_influence)
    assert set(names.values()) == {*own, *theirs}
    assert set(found.nodes["shown"]) == {"both", "this", "other"}
    pairs = set()
    for row in found.edges.itertuples():
        target, source = names[row.target], names[row.source]
        pairs.add((target, source))
        for one, at, value in ((graph, own, row.weight), (other, theirs, row.other_weight)):
            shown = target in at and source in at
            assert same(value, float(one.adjacency[at[target], at[source]]) if shown else float("nan"))
    for one, at in ((graph, own), (other, theirs)):
        keys = {i: key for key, i in at.items()}
        assert {(keys[t], keys[s]) for t, s in one.adjacency.nonzero().tolist()} <= pairs
    changes = found.edges["change"].abs().dropna()
    assert changes.is_monotonic_decreasing or found.edges["change"].isna().any()


def test_a_graph_less_itself_is_nothing_and_results_are_kept(tmp_path):
    graph = traced(tuple(CLEAN))
    found = graph.compare(graph)
    assert set(found.nodes["shown"]) == {"both"}
    assert not found.nodes["influence_change"].any()
    assert not found.edges["change"].any()
    again = Result.load(found.save(tmp_path / "compared.json"))
    assert again.nodes.equals(found.nodes)
    assert "nodes in both" in repr(found)
    assert len(found.figure().data) == 2
    assert graph.prune().compare(graph).to_frame()["shown"].isin(["both", "other"]).all()


def test_graphs_that_cannot_be_compared_are_refused():
    graph = traced(tuple(CLEAN))
    for other, told in (
        (traced(tuple(CLEAN[1:])), "6 tokens"),
        (traced(tuple(CLEAN), name="qwen3"), "model"),
        (traced(tuple(CLEAN), units="heads"), "units"),
        (traced(tuple(CLEAN), centred=True), "centred"),
        (3, "AttributionGraph"),
    ):
        with pytest.raises(InputError, match=told):
            graph.compare(other)
