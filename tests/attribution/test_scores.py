from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attribution.scores import FORMAT, Scores, installed_versions
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.selection import greedy, threshold, top_n, top_n_nodes

GRAPH = ComputationalGraph(2, 4, 2)


def edge_scores(**changes) -> Scores:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(GRAPH.shape, generator=generator) * GRAPH.edge_mask
    known = {
        "method": "eap-ig",
        "settings": {"steps": 5, "rule": ("left", 1)},
        "task": {"name": "ioi", "prompts": ["<b>Mary</b> & John"]},
        "model": "tiny",
        "seed": 3,
        "seconds": 1.25,
        "n_prompts": 16,
    }
    return Scores(changes.pop("values", values), changes.pop("graph", GRAPH), **{**known, **changes})


def node_scores() -> Scores:
    values = torch.arange(GRAPH.shape[0], dtype=torch.float64) - 4
    return Scores(values, GRAPH, method="attribution-patching", level="node")


def test_to_frame_lists_every_real_edge_from_the_strongest_down():
    scores = edge_scores()
    frame = scores.to_frame()
    assert list(frame.columns) == ["edge", "source", "target", "score"]
    assert set(frame["edge"]) == set(GRAPH.edges())
    assert len(frame) == GRAPH.n_edges
    assert frame["score"].abs().is_monotonic_decreasing
    for row in frame.sample(20, random_state=0).itertuples():
        assert row.edge == f"{row.source}->{row.target}"
        assert scores.values[GRAPH.edge_index(row.edge)].item() == pytest.approx(row.score)
    assert scores.top(3)["edge"].tolist() == frame["edge"].tolist()[:3]
    with pytest.raises(InputError, match="n=-1"):
        scores.top(-1)


def test_ties_are_listed_in_the_order_of_the_graph():
    frame = edge_scores(values=torch.zeros(GRAPH.shape)).to_frame()
    assert frame["edge"].tolist() == list(GRAPH.edges())


def test_node_scores_have_a_frame_of_nodes_and_a_value_for_every_edge():
    scores = node_scores()
    frame = scores.to_frame()
    assert list(frame.columns) == ["node", "score"]
    assert frame.loc[0, "node"] == GRAPH.sources[-1]
    assert len(frame) == len(GRAPH.sources)
    spread = scores.edge_values
    assert torch.equal(spread[GRAPH.edge_mask], scores.values[GRAPH.edge_mask.nonzero()[:, 0]])
    assert not spread[~GRAPH.edge_mask].any()


def test_mask_calls_the_selection_that_was_asked_for():
    scores = edge_scores()
    values = scores.values
    assert torch.equal(scores.mask(20), top_n(values, GRAPH, 20))
    assert torch.equal(scores.mask(20, absolute=False, pruned=False), top_n(values, GRAPH, 20, False, False))
    assert torch.equal(scores.mask(20, selection="greedy"), greedy(values, GRAPH, 20))
    assert torch.equal(scores.mask(threshold=0.5), threshold(values, GRAPH, 0.5))
    nodes = node_scores()
    assert torch.equal(nodes.mask(4), top_n_nodes(nodes.values, GRAPH, 4))
    with pytest.raises(InputError, match="give either n or threshold"):
        scores.mask()
    with pytest.raises(InputError, match="give either n or threshold"):
        scores.mask(3, threshold=0.1)
    with pytest.raises(InputError, match="selection='greedi' is unknown; did you mean 'greedy'"):
        scores.mask(3, selection="greedi")
    with pytest.raises(InputError, match="scores of nodes"):
        nodes.mask(threshold=0.1)


def test_values_are_copied_and_brought_to_the_cpu():
    values = torch.zeros(GRAPH.shape, requires_grad=True)
    scores = edge_scores(values=values)
    with torch.no_grad():
        values += 1
    assert not scores.values.any()
    assert not scores.values.requires_grad


def test_values_that_cannot_be_right_are_refused():
    with pytest.raises(InputError, match=r"shape \(11, 27\); got shape \(11, 26\)"):
        edge_scores(values=torch.zeros(11, 26))
    with pytest.raises(InputError, match="got list"):
        edge_scores(values=[0.0])
    with pytest.raises(InputError, match="float32 or float64; got torch"):
        edge_scores(values=torch.zeros(GRAPH.shape, dtype=torch.bfloat16))
    broken = torch.zeros(GRAPH.shape)
    broken[0, 0] = torch.nan
    with pytest.raises(InputError, match="1 of 297 values are NaN"):
        edge_scores(values=broken)
    phantom = torch.zeros(GRAPH.shape)
    phantom[GRAPH.sources.index("m1"), GRAPH.targets.index("m0")] = 1.0
    with pytest.raises(InputError, match=r"score 1 edges that do not exist, the first being m1->m0"):
        edge_scores(values=phantom)
    with pytest.raises(InputError, match="level='edges' is unknown"):
        edge_scores(level="edges")
    with pytest.raises(InputError, match="settings must be a dictionary that JSON can hold"):
        edge_scores(settings={"model": object()})
    with pytest.raises(InputError, match="task must be"):
        edge_scores(task={"x": float("nan")})


def test_repr_and_html_say_what_they_are_and_escape_everything():
    scores = edge_scores(model="<script>alert(1)</script>")
    text = repr(scores)
    for part in ("eap-ig", "task ioi", "16 prompts", "ablation patch", "1.25 s", f"{GRAPH.n_edges:,} edges"):
        assert part in text
    html = scores._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<tr") == 11  # a head and ten rows


@pytest.mark.parametrize("make", [edge_scores, node_scores])
def test_what_is_saved_is_loaded_again(make, tmp_path: Path):
    scores = make()
    path = scores.save(tmp_path / "scores.safetensors")
    loaded = Scores.load(path)
    assert torch.equal(loaded.values, scores.values)
    assert loaded.values.dtype == scores.values.dtype
    assert loaded.graph == scores.graph
    assert loaded.to_dict() == scores.to_dict()
    assert loaded.versions == installed_versions()
    assert list(tmp_path.iterdir()) == [path]
    other_graph = ComputationalGraph(2, 2, parallel=True)
    parallel = Scores(torch.zeros(other_graph.shape), other_graph, method="eap")
    assert Scores.load(parallel.save(path)).graph == other_graph


def test_installed_versions_name_the_packages_that_matter():
    versions = installed_versions()
    assert versions["torch"] == torch.__version__
    assert {"transformers", "transformer-lens"} <= versions.keys()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch):
    path = tmp_path / "scores.safetensors"
    edge_scores(seed=1).save(path)

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        edge_scores(seed=2).save(path)
    assert Scores.load(path).seed == 1
    assert list(tmp_path.iterdir()) == [path]


def rewrite_header(path: Path, **changes) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["faithful-circuits"])
    header.update(changes)
    save_file(load_file(path), path, metadata={"faithful-circuits": json.dumps(header)})


def test_damaged_and_newer_files_are_refused_in_a_sentence(tmp_path: Path):
    path = edge_scores().save(tmp_path / "scores.safetensors")
    good = path.read_bytes()
    with pytest.raises(InputError, match="does not exist"):
        Scores.load(tmp_path / "other.safetensors")
    for damaged in (b"", b"{}", good[:-1], good[:100]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"is damaged or is not a file of scores"):
            Scores.load(path)
    flipped = bytearray(good)
    flipped[-5] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(InputError, match="do not have the checksum"):
        Scores.load(path)
    save_file({"values": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="is not a file of scores"):
        Scores.load(path)

    cases = [
        ({"version": 99}, "has format version 99, .* upgrade faithful-circuits"),
        ({"version": "new"}, "its format version is 'new'"),
        ({"format": "something"}, f"does not say that it is '{FORMAT}'"),
        ({"scores": {"method": "eap"}}, "is damaged: graph: Field required"),
        ({"scores": [1]}, "is damaged"),
    ]
    for changes, message in cases:
        path.write_bytes(good)
        rewrite_header(path, **changes)
        with pytest.raises(InputError, match=message):
            Scores.load(path)
    broken_graph = edge_scores().to_dict() | {"graph": {"n_layers": 2, "n_heads": 3, "n_kv_heads": 2}}
    path.write_bytes(good)
    rewrite_header(path, scores=broken_graph)
    with pytest.raises(InputError, match="must divide n_heads"):
        Scores.load(path)


def test_a_mask_that_pruning_leaves_empty_says_so_and_what_would_do(caplog):
    """The strongest edges end in m0, whose way to the logits is ranked tenth: n=5 leaves nothing."""
    values = torch.zeros(GRAPH.shape)
    names = [name for name in GRAPH.edges(GRAPH.edge_mask) if name.endswith("->m0")][:9]
    for rank, name in enumerate([*names, *["m0->m1"] * (9 - len(names)), "m0->logits"]):
        values[GRAPH.edge_index(name)] = 10.0 - rank / 2
    values[GRAPH.edge_index("input->m0")] = 20.0
    scores = edge_scores(values=values)
    least = next(n for n in range(1, GRAPH.n_edges) if top_n(values, GRAPH, n).any())
    assert least > 5
    assert not scores.mask(5).any()
    assert "n=5 leaves no edges: none of those selected lie on a path from the input to the logits" in caplog.text
    assert f"the first that leaves any is n={least}, or use selection='connected'" in caplog.text
    caplog.clear()
    for mask in (scores.mask(least), scores.mask(5, selection="connected"), scores.mask(5, pruned=False)):
        assert mask.any()
    assert not scores.mask(0).any(), "nothing was asked for"
    assert caplog.text == ""
    assert not scores.mask(threshold=9.25).any()
    assert "threshold=9.25 leaves no edges: none of the 2 edges that reach it lie on a path" in caplog.text
    caplog.clear()
    assert not scores.mask(threshold=21).any()
    assert "threshold=21 leaves no edges: no score reaches it; the largest score is 20" in caplog.text


@pytest.mark.parametrize("change", [lambda values: values.to_sparse(), lambda values: values.to("meta")])
def test_values_that_are_no_ordinary_tensor_are_refused(change: Any) -> None:
    graph = ComputationalGraph(2, 2)
    with pytest.raises(InputError, match="values must be an ordinary tensor"):
        Scores(change(torch.zeros(graph.shape)), graph, method="mine")
