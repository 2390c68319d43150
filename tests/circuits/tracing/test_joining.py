"""Averages over prompts and groups of units, against loops over nodes and edges."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch

from circuits import AttributionGraph, average, trace
from interp.errors import InputError
from tests.oracle import error, model_of

PROMPTS = ((4, 17, 9, 30, 2, 41, 8), (4, 11, 17, 9, 30, 2, 5, 8))
SPANS = [{1: "subject", 2: "subject", -1: "end"}, {1: "subject", 2: "subject", 3: "subject", 7: "end"}]


@functools.cache
def traced(prompt=PROMPTS[0], name="gpt2", top=20, target=7, **settings):
    return trace(model_of(name), list(prompt), target, top=top, quiet=True, **settings)


def column(graph, name):
    return torch.tensor(graph.nodes[name].to_numpy(copy=True))


def spanned(name, own):
    """A node's name, its position as its span."""
    start, at, position = name.rpartition("@")
    return f"{start}@{own[int(position)]}" if at else name


@pytest.mark.parametrize("settings", [{}, {"units": "heads", "name": "llama"}], ids=str)
def test_an_average_is_the_mean_of_sums_over_spans(settings):
    graphs = [traced(prompt, **settings) for prompt in PROMPTS]
    found = average(graphs, SPANS)
    named = [["rest", "subject", "subject", *["rest"] * 3, "end"], ["rest", *["subject"] * 3, *["rest"] * 3, "end"]]
    edges, values, shown = {}, {}, {}
    for graph, own in zip(graphs, named, strict=True):
        names = [spanned(name, own) for name in graph.nodes["name"]]
        for t, s in graph.adjacency.nonzero().tolist():
            edges[names[t], names[s]] = edges.get((names[t], names[s]), 0.0) + float(graph.adjacency[t, s]) / 2
        for name, value in zip(names, graph.nodes["activation"], strict=True):
            values[name] = values.get(name, 0.0) + value / 2
        for name in set(names):
            shown[name] = shown.get(name, 0) + 1
    names = found.nodes["name"].tolist()
    assert set(names) == set(values)
    assert found.nodes["prompts"].tolist() == [shown[name] for name in names]
    got = {(names[t], names[s]): float(found.adjacency[t, s]) for t, s in found.adjacency.nonzero().tolist()}
    assert got == pytest.approx({edge: value for edge, value in edges.items() if value}, rel=1e-9, abs=1e-12)
    kinds = found.kinds()
    rows = kinds.units | kinds.logits
    assert error(found.adjacency.sum(1)[rows], column(found, "activation")[rows]) < 1e-10
    np.testing.assert_allclose(found.nodes["activation"], [values[name] for name in names], rtol=1e-9)
    # what is not shown is the mean of what was not
    for name in [*found.nodes["name"][kinds.units.numpy()], "logit0"]:
        expected = 0.0
        for graph, own in zip(graphs, named, strict=True):
            here = [i for i, one in enumerate(graph.nodes["name"]) if spanned(one, own) == name]
            expected += float(graph.counted()[here][:, graph.kinds().rest].sum()) / 2
        assert float(found.counted()[names.index(name), kinds.rest].sum()) == pytest.approx(expected, abs=1e-9)
    assert found.tokens == ["subject", "rest", "end"]  # by their mean distance from the end
    assert 0 < found.replacement_score < 1


def test_the_average_of_one_graph_is_that_graph(tmp_path):
    graph = traced()
    found = average([graph])
    same = [found.nodes["name"].tolist().index(name) for name in graph.nodes["name"]]
    assert error(found.adjacency[same][:, same], graph.adjacency) < 1e-12
    assert error(column(found, "influence")[same], column(graph, "influence")) < 1e-9
    assert found.replacement_score == pytest.approx(graph.replacement_score)
    assert found.completeness_score == pytest.approx(graph.completeness_score)
    assert found.tokens == [str(i) for i in range(7)]
    both = average([traced(prompt) for prompt in PROMPTS])
    assert both.tokens == [str(-i) for i in range(8, 0, -1)]
    assert "over 2 prompts" in both.headline()
    assert both.prune().figure().data
    again = AttributionGraph.load(both.save(tmp_path / "mean.json"))
    assert again.nodes.equals(both.nodes)
    with pytest.raises(InputError, match="average of several"):
        both.intervene(scale={0: 0.0})
    with pytest.raises(InputError, match="average of several"):
        again.attached(model_of("gpt2"))


@pytest.mark.parametrize(
    ("graphs", "spans", "told"),
    [
        ([], None, "one at least"),
        ([{"name": "llama"}, {}], None, "several models"),
        ([{"units": "heads"}, {}], None, "several units"),
        ([{}, {"target": None}], None, "numbers of logits"),
        ([{}], {9: "far"}, "spans"),
        ([{}], [{}, {}], "list of 1"),
        ([{}], 3, "dictionary"),
    ],
    ids=str,
)
def test_averages_that_cannot_be_are_refused(graphs, spans, told):
    with pytest.raises(InputError, match=told):
        average([traced(**given) for given in graphs], spans)
    with pytest.raises(InputError, match="pruned"):
        average([traced().prune()])


def groups_of(graph):
    """Two groups that lie in several layers."""
    units = graph.nodes[graph.kinds().units.numpy()]["name"].tolist()
    return {"odd": units[1::4], "even": units[0::4]}


@pytest.mark.parametrize("settings", [{}, {"units": "heads", "name": "llama"}], ids=str)
def test_a_groups_links_are_sums_without_those_inside(settings):
    graph = traced(**settings)
    groups = groups_of(graph)
    found = graph.group(groups)
    of = {name: group for group, names in groups.items() for name in names}
    names = [of.get(name, name) for name in graph.nodes["name"]]
    edges, inside = {}, dict.fromkeys(groups, 0.0)
    for t, s in graph.adjacency.nonzero().tolist():
        if names[t] == names[s]:
            inside[names[t]] += float(graph.adjacency[t, s])
        else:
            edges[names[t], names[s]] = edges.get((names[t], names[s]), 0.0) + float(graph.adjacency[t, s])
    own = found.nodes["name"].tolist()
    got = {(own[t], own[s]): float(found.adjacency[t, s]) for t, s in found.adjacency.nonzero().tolist()}
    assert got == pytest.approx(edges, rel=1e-9, abs=1e-12)
    assert len(own) == len(graph.nodes) - sum(map(len, groups.values())) + 2
    for name, members in groups.items():
        row = own.index(name)
        for what in ("activation", "influence", "score"):
            expected = graph.nodes[graph.nodes["name"].isin(members)][what].sum()
            assert found.nodes[what][row] == pytest.approx(expected)
        kept = found.settings["groups"][name]
        assert kept["inside"] == pytest.approx(inside[name], abs=1e-12)
        assert float(found.adjacency[row].sum()) + inside[name] == pytest.approx(found.nodes["activation"][row])
        assert found.nodes["kind"][row] == "group"
        rows = torch.tensor(graph.nodes["name"].isin(members).tolist())
        hidden = graph.counted()[rows][:, graph.kinds().rest].sum()
        assert float(found.counted()[row, found.kinds().rest].sum()) == pytest.approx(float(hidden), abs=1e-9)
    assert found.replacement_score == graph.replacement_score


@pytest.mark.parametrize("settings", [{}, {"units": "heads", "name": "llama"}], ids=str)
def test_a_group_is_silenced_with_all_its_units(settings, tmp_path):
    graph = traced(**settings)
    groups = groups_of(graph)
    found = graph.group(groups)
    silenced = found.intervene(scale={"odd": 0.0, "even": 2.0})
    expected = graph.intervene(scale=dict.fromkeys(groups["odd"], 0.0) | dict.fromkeys(groups["even"], 2.0))
    assert torch.equal(silenced.logits, expected.logits)
    assert silenced.changed == expected.changed
    rows = silenced.nodes.set_index("name")
    each = expected.nodes.set_index("name")
    for name, members in groups.items():
        assert rows["after"][name] == pytest.approx(each["after"][members].sum(), abs=1e-12)
        assert rows["before"][name] == pytest.approx(each["before"][members].sum(), abs=1e-12)
    loaded = AttributionGraph.load(found.save(tmp_path / "grouped.json"))
    units = settings.get("units", "neurons")
    own = loaded.attached(model_of(settings.get("name", "gpt2")), units)
    assert torch.equal(own.intervene(scale={"odd": 0.0, "even": 2.0}).logits, expected.logits)
    assert len(found.check(3).points) == 6
    # a group of groups is the group of all
    twice, once = found.group({"all": ["odd", "even"]}), graph.group({"all": [*groups["odd"], *groups["even"]]})
    assert twice.nodes["name"].tolist() == once.nodes["name"].tolist()
    assert error(twice.adjacency, once.adjacency) < 1e-12
    assert torch.allclose(twice.intervene(scale={"all": 0.5}).logits, once.intervene(scale={"all": 0.5}).logits)
    small = found.prune(0.95)
    assert small.figure().data
    assert found.compare(graph).nodes["shown"].isin(["both", "this", "other"]).all()


def test_groups_go_through_the_viewers_file_beside_their_nodes(tmp_path):
    graph = traced()
    small = graph.prune()
    shown = small.nodes[small.kinds().units.numpy()]["name"].tolist()
    hidden = [name for name in graph.nodes[graph.kinds().units.numpy()]["name"] if name not in shown]
    groups = {"first": [shown[0], *hidden[:1], shown[2]], "with a token": [shown[1], "token@1"], "gone": hidden[:1]}
    assert hidden
    content = json.loads(graph.to_json(tmp_path / "groups.json", groups).read_text(encoding="utf-8"))
    ids = {}
    for node in content["nodes"]:
        ids[node["clerp"] or node["node_id"]] = node["node_id"]
    token = next(
        node["node_id"] for node in content["nodes"] if node["feature_type"] == "embedding" and node["ctx_idx"] == 1
    )
    expected = [["first", ids[shown[0]], ids[shown[2]]], ["with a token", ids[shown[1]], token]]
    assert content["qParams"]["supernodes"] == expected
    assert content["qParams"]["pinnedIds"] == [one for _, *members in expected for one in members]
    read = AttributionGraph.from_json(tmp_path / "groups.json")
    kept = {"first": [shown[0], shown[2]], "with a token": [shown[1], "token@1"]}
    assert read.settings["supernodes"] == kept
    assert read.nodes["name"].tolist() == small.nodes["name"].tolist()
    assert error(read.adjacency, small.adjacency) < 1e-6
    again = AttributionGraph.from_json(read.to_json(tmp_path / "again.json"))
    assert again.settings["supernodes"] == kept
    joined = read.group({"first": kept["first"]})
    own = small.group({"first": kept["first"]})
    assert error(joined.adjacency, own.adjacency) < 1e-6
    page = read.to_html()
    assert json.loads(page.partition('id="circuit-data">')[2].partition("</script>")[0])["groups"] == [
        {"label": name, "nodes": members} for name, members in kept.items()
    ]
    with pytest.raises(InputError, match="no node of this graph"):
        graph.to_json(tmp_path / "groups.json", {"a": ["m9.n1@1"]})


@pytest.mark.parametrize("settings", [{}, {"units": "heads", "name": "llama"}], ids=str)
def test_groups_that_are_one_node_go_through_the_viewers_file(settings, tmp_path):
    graph = traced(**settings)
    found = graph.group(groups_of(graph)).prune(0.95)
    content = json.loads(found.to_json(tmp_path / "summed.json").read_text(encoding="utf-8"))
    assert content["qParams"]["supernodes"] == [[name, f"group_{name}"] for name in ("even", "odd")]
    read = AttributionGraph.from_json(tmp_path / "summed.json")
    where = ["name", "kind", "layer", "position", "unit"]
    assert read.nodes[where].values.tolist() == found.nodes[where].values.tolist()
    assert error(read.adjacency, found.adjacency) < 1e-6
    assert read.settings["groups"] == found.settings["groups"]
    assert "supernodes" not in read.settings
    again = json.loads(read.to_json(tmp_path / "again.json").read_text(encoding="utf-8"))
    assert again["qParams"] == content["qParams"]
    groups = [[node for node in one["nodes"] if "group" in node] for one in (content, again)]
    assert groups[0] == groups[1]
    assert len(groups[0]) == 2


def test_groups_of_other_programs_are_read_as_far_as_they_go(tmp_path):
    content = json.loads(traced().to_json(tmp_path / "graph.json").read_text(encoding="utf-8"))
    first, second = (node["node_id"] for node in content["nodes"][:2])
    content["qParams"]["supernodes"] = [["a", first, "9_9_9", first], ["a", second], [], ["none", "9_9_9"]]
    (tmp_path / "theirs.json").write_text(json.dumps(content), encoding="utf-8")
    read = AttributionGraph.from_json(tmp_path / "theirs.json")
    names = read.nodes["name"].tolist()
    assert read.settings["supernodes"] == {"a": names[:1], "a 2": names[1:2]}
    content["nodes"][0]["group"] = 3
    (tmp_path / "broken.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        AttributionGraph.from_json(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ({}, "dictionary"),
        ({"a": []}, "one at least"),
        ({"a": "m0.n1@1"}, "list of names"),
        ({"a": ["m9.n1@1"]}, "no node"),
        ({"a": ["token@1"]}, "made of units"),
        ({"token@1": 0}, "node of this graph"),
        ({"a": 0, "b": 0}, "twice"),
        ({3: 0}, "string"),
    ],
    ids=str,
)
def test_groups_that_cannot_be_are_refused(groups, told):
    graph = traced()
    units = graph.nodes[graph.kinds().units.numpy()]["name"].tolist()
    given = {name: units[:2] if members == 0 else members for name, members in groups.items()}
    with pytest.raises(InputError, match=told):
        graph.group(given)
    with pytest.raises(InputError, match="use scale"):
        graph.group({"a": units[:2]}).intervene(set={"a": 0.0})
