from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import types
import webbrowser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from attribution.scores import Scores
from circuits import viewer
from circuits.circuit import Circuit
from circuits.report import Report
from circuits.tracing.viewer import page as trace_page
from circuits.viewer import look
from circuits.viewer.adjacency import adjacency
from circuits.viewer.layout import curves, edge_ends, node_position
from circuits.viewer.nodes import page as nodes_page
from circuits.viewer.page import SCRIPTS
from circuits.viewer.shell import STYLES, asset
from interp import theme
from interp.errors import InputError
from interp.graph import ComputationalGraph

ASSETS = Path(viewer.__file__).parent / "assets"
ATTACK = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)> $data'


def make(graph: ComputationalGraph | None = None, n: int = 200, **known) -> Circuit:
    graph = graph or ComputationalGraph(12, 12)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(graph.shape, generator=generator).pow(3) * graph.edge_mask
    scores = Scores(values, graph, method="eap-ig", model="gpt2", task={"name": "ioi"})
    report = Report(faithfulness=0.9, interval=(0.8, 1.0))
    return Circuit(scores, scores.mask(n, selection="greedy", pruned=False), report, **known)


def script(page: str, opening: str) -> str:
    return page.partition(opening)[2].partition("</script>")[0]


def embedded(page: str) -> dict:
    return json.loads(script(page, '<script type="application/json" id="circuit-data">'))


def numbers(data: dict, name: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data["edges"][name]), kind)


def lines_of(figure: go.Figure) -> list:
    return [trace for trace in figure.data if trace.mode == "lines" and trace.hoverinfo == "skip"]


def test_every_edge_is_drawn_once_in_the_colour_of_its_sign():
    circuit = make()
    scores = circuit.to_frame()["score"]
    drawn = dict.fromkeys((theme.POSITIVE, theme.NEGATIVE), 0)
    for trace in lines_of(circuit.figure()):
        drawn[trace.line.color] += int(np.isnan(trace.x).sum())  # the pen is lifted behind each edge
    assert drawn == {theme.POSITIVE: int((scores >= 0).sum()), theme.NEGATIVE: int((scores < 0).sum())}


def test_stronger_edges_are_wider_and_on_top():
    widths = [trace.line.width for trace in lines_of(make(n=1_400).figure())]
    assert widths == sorted(widths)
    assert len(set(widths)) > 2


@pytest.mark.parametrize("n", [1, 200, 3_000, 25_000])
def test_the_number_of_traces_does_not_grow_with_the_edges(n):
    figure = make(n=n).figure()
    assert len(figure.data) <= 16


def test_many_edges_go_to_webgl_and_only_the_strongest_are_drawn(monkeypatch):
    monkeypatch.setattr(look, "SVG_LIMIT", 100)
    monkeypatch.setattr(look, "DRAWN_LIMIT", 150)
    assert {type(trace) for trace in lines_of(make(n=100).figure())} == {go.Scatter}
    assert {type(trace) for trace in lines_of(make(n=101).figure())} == {go.Scattergl}
    figure = make(n=200).figure()
    assert sum(int(np.isnan(trace.x).sum()) for trace in lines_of(figure)) == 150
    assert "drawn: the strongest 150 of 200" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_nodes_have_the_symbol_of_their_kind():
    nodes = make(ComputationalGraph(1, 2), n=9).figure().data[-1]
    kinds = {"i": "diamond", "a": "circle", "m": "square", "l": "diamond"}
    assert list(nodes.marker.symbol) == [kinds[name[0]] for name in nodes.hovertext]


def test_the_page_and_the_figure_look_alike():
    page = viewer.to_html(make(n=10))
    in_page = json.loads(page.partition("const LOOK = ")[2].partition(";\n")[0])
    assert in_page == json.loads(json.dumps(look.LOOK))
    style = (ASSETS / "theme.css").read_text(encoding="utf-8").lower()
    light = style[style.index(":root") : style.index("}")]
    named = {"positive": theme.POSITIVE, "negative": theme.NEGATIVE, "ink": theme.INK, "faint": theme.FAINT}
    for name, colour in {**named, "here": theme.OWN}.items():
        assert f"--{name}: {colour.lower()};" in light
    for path in ASSETS.glob("*.js"):
        assert not re.search(r"#[0-9a-fA-F]{6}\b", path.read_text(encoding="utf-8")), path


def test_two_circuits_in_one_figure():
    first, second = make(n=120), make(n=60)
    figure = first.compare(second, ("large", "<small>")).figure()
    drawn: dict[str, int] = {}
    for trace in lines_of(figure):
        drawn[trace.legendgroup] = drawn.get(trace.legendgroup, 0) + int(np.isnan(trace.x).sum())
    counts = first.compare(second).counts
    assert [drawn.get(name, 0) for name in ("both", "only large", "only <small>")] == list(counts.values())
    assert "<small>" not in figure.layout.title.text


def test_layers_are_rows_and_heads_columns():
    graph = ComputationalGraph(3, 4)
    assert node_position("a2.h3", graph) == (3, 2)
    assert node_position("input", graph)[1] == -1
    assert node_position("logits", graph)[1] == 3
    mlp = node_position("m1", graph)
    assert mlp[0] > 3, "MLPs stand right of all heads"
    assert 1 < mlp[1] < 2, "and after the heads of their layer"
    assert node_position("m1", ComputationalGraph(3, 4, parallel=True))[1] == 1


def test_edges_run_upwards_from_end_to_end_and_bend_round_their_own_column():
    circuit = make(n=300)
    ends = edge_ends(adjacency(circuit, 300), circuit.graph)
    x, y = curves(ends, circuit.graph, 15)
    assert np.allclose(x[:, 0], ends[:, 0])
    assert np.allclose(y[:, 14], ends[:, 3])
    assert (np.diff(y[:, :15], axis=1) > 0).all()
    ends = np.array([[12.5, 0.45, 12.5, 8.45]])  # MLP to MLP
    assert curves(ends, circuit.graph, 15)[0][0, 7] > 13


def test_grouped_keys_are_drawn_to_the_heads_of_their_group():
    graph = ComputationalGraph(2, 4, 2, kv="group")
    circuit = make(graph, n=graph.n_edges)
    edges = adjacency(circuit, 10_000)
    assert len(edges.score) == edges.total == sum(1 for _ in circuit.links()) > circuit.n_edges


def test_an_empty_circuit_is_said_to_be_empty():
    circuit = make(n=0)
    assert "no edges" in viewer.figure(circuit).layout.annotations[0].text
    assert embedded(viewer.to_html(circuit))["edges"]["total"] == 0


def test_the_page_is_whole_and_loads_nothing():
    page = viewer.to_html(make())
    assert page.startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|img|iframe|link)[^>]+(src|href)=(?!\"data:image/svg)", page)
    assert "gpt2 · ioi · eap-ig" in page
    assert "faithfulness 0.90 (95 % interval 0.80 to 1.00)" in page
    assert len(page) < 2_500_000
    library = script(page, 'id="library">')
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(library))
    assert len(page) - len(library) < 300_000


def test_of_a_notebooks_cells_one_holds_the_library(monkeypatch):
    shown, cell = [], ["a"]
    shell = types.SimpleNamespace(
        config={"IPKernelApp": {}}, get_parent=lambda: {"metadata": {"cellId": cell[0]} if cell[0] else {}}
    )
    display = types.SimpleNamespace(display=lambda data, raw: shown.append(len(data["text/html"])))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("circuits.viewer.shell._holder", [])
    for cell[0] in ("a", "b", "a", None):  # run again, the first still holds it; and so does each where none has a name
        make(n=10).show()
    whole, light, again, nameless = shown
    assert whole == again == nameless > 1_000_000
    assert light < 500_000


def test_the_page_holds_every_edge_strongest_first():
    circuit = make()
    data = embedded(viewer.to_html(circuit))
    edges = {
        name: numbers(data, name, kind) for name, kind in (("source", "<u2"), ("reader", "<u2"), ("target", "<u2"))
    }
    whole, frame, chosen = numbers(data, "score", "<f4"), circuit.to_frame(), data["edges"]["chosen"]
    score, beside = whole[:chosen], whole[chosen:]
    edges = {name: values[:chosen] for name, values in edges.items()}
    assert np.allclose(score, frame["score"], rtol=1e-6)
    others = circuit.scores.values[circuit.graph.edge_mask & ~circuit.mask].abs()
    assert np.allclose(np.abs(beside), others.sort(descending=True).values[: len(beside)], rtol=1e-6)
    assert [data["nodes"][at] for at in edges["source"]] == frame["source"].tolist()
    assert [data["targets"][at] for at in edges["target"]] == frame["target"].tolist()
    readers = [name.partition("<")[0] for name in frame["target"]]
    assert [data["nodes"][at] for at in edges["reader"]] == readers
    assert data["linked"] is None
    assert data["layouts"]["position"] is None


def test_an_edge_into_a_group_is_held_for_each_of_its_heads():
    graph = ComputationalGraph(2, 4, 2, kv="group")
    circuit = make(graph, n=graph.n_edges)
    data = embedded(viewer.to_html(circuit))
    assert data["edges"]["total"] == len(numbers(data, "reader", "<u2")) == sum(1 for _ in circuit.links())


def test_the_curve_is_the_ladder_or_what_was_given():
    ladder = [{"size": 9, "edges": 8, "faithfulness": 0.5}, {"size": 3, "edges": 2, "faithfulness": None}]
    circuit = make(n=10)
    circuit = Circuit(circuit.scores, circuit.mask, Report(ladder=ladder))
    assert embedded(circuit.to_html())["curve"] == [{"edges": 8, "faithfulness": 0.5}]
    given = [{"edges": 4, "faithfulness": 0.2, "low": 0.1, "high": 0.3}]
    assert embedded(circuit.to_html(curve=given))["curve"] == given
    one_prompt = [{"edges": 4, "faithfulness": 0.2, "low": np.nan, "high": np.nan}]
    assert embedded(circuit.to_html(curve=one_prompt))["curve"] == [{"edges": 4, "faithfulness": 0.2}]
    with pytest.raises(InputError, match="curve has no rows"):
        circuit.to_html(curve=[{"x": 1}])


def test_the_embedded_data_of_a_full_graph_stays_small():
    graph = ComputationalGraph(30, 9, 3)
    page = viewer.to_html(make(graph, n=graph.n_edges))
    data = script(page, 'id="circuit-data">')
    assert len(data) < 5_000_000
    assert json.loads(data)["edges"]["total"] == 123_211


def test_of_larger_graphs_the_strongest_edges_are_held(monkeypatch):
    monkeypatch.setattr("circuits.viewer.page.EMBEDDED_LIMIT", 50)
    circuit = make()
    data = embedded(viewer.to_html(circuit))
    assert data["edges"]["total"] == 200
    assert np.allclose(numbers(data, "score", "<f4"), circuit.to_frame()["score"].head(50), rtol=1e-6)


def test_every_script_and_style_is_in_the_page():
    others = {name for page in (trace_page, nodes_page) for name in page.SCRIPTS if ":" not in name}
    own = {name for name in SCRIPTS if ":" not in name}
    used = {*own, *others, *STYLES, "page.html", "help.html", "glossary.html", "stage.html"}
    assert {path.name for path in ASSETS.iterdir()} == used
    page = viewer.to_html(make(n=5))
    for name in (*SCRIPTS, *STYLES):
        assert asset(name) in page


def test_a_name_that_holds_markup_does_nothing():
    circuit = make(provenance={"model": ATTACK, "task": {"name": ATTACK}})
    page = viewer.to_html(circuit)
    assert page.count("<script") == 3
    assert page.count("</script>") == 3
    assert ATTACK not in page
    assert "&lt;img src=x onerror=alert(1)&gt; $data" in page
    figure = viewer.figure(circuit)
    assert "<" not in figure.layout.title.text.replace("<br>", " ")
    assert "<" not in script(page, 'id="circuit-data">')


def test_plotlys_upload_button_is_not_offered():
    figure = viewer.figure(make(n=10))
    assert "sendChartToCloud" in figure.layout.modebar.remove
    assert "displayModeBar: false" in viewer.to_html(make(n=10))  # its chart has no buttons


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch):
    path = tmp_path / "circuit.html"
    page = make(n=20).to_html(path)
    assert path.read_text(encoding="utf-8") == page
    monkeypatch.setattr(Path, "write_bytes", lambda *_, **__: (_ for _ in ()).throw(OSError("No space left")))
    with pytest.raises(OSError, match="No space left"):
        make(n=30).to_html(path)
    monkeypatch.undo()
    assert path.read_text(encoding="utf-8") == page
    assert list(tmp_path.iterdir()) == [path]


def test_show_opens_a_browser_outside_notebooks(monkeypatch, tmp_path: Path, caplog):
    opened: list[str] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    make(n=10).show()
    (file,) = tmp_path.iterdir()
    assert opened == [file.as_uri()]
    assert caplog.text == ""
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_show_without_a_browser_says_where_the_file_is(monkeypatch, tmp_path: Path, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    make(n=10).show()
    (file,) = tmp_path.iterdir()
    assert f"no browser here to show the picture in; it is in the file {file}" in caplog.text
