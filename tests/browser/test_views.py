from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits import viewer
from circuits.circuit import Circuit, Report
from circuits.viewer.linked import linked_views
from interp.graph import ComputationalGraph
from tests.browser.conftest import make_circuit
from tests.tiny import mostly_slow, shared, tiny_task

ATTACK = '<img src=x onerror="window.owned=1"></script><script>window.owned=1</script><b>$data %{x}'


@pytest.fixture(scope="module")
def model():
    return shared("llama")


@pytest.fixture(scope="module")
def found(model) -> Circuit:
    graph = ComputationalGraph.of(model)
    return make_circuit(graph, n=graph.n_edges // 2)


def test_a_head_shows_where_it_looks_and_what_it_writes(open_page, model, found):
    task = tiny_task(model)
    opened = open_page(found.to_html(model=model, task=task, example=1))
    head = next(name for name in found.nodes if ".h" in name)
    views = linked_views(model, task, [head], example=1)
    tokens = opened.page.locator("#prompt .token.clean:not(.answer)")
    assert tokens.all_inner_texts() == views.clean
    differ = [int(a != b) for a, b in zip(views.clean, views.corrupted, strict=True)]
    assert [int("differs" in each.get_attribute("class")) for each in tokens.all()] == differ
    assert sum(differ) == 3
    opened.select(head)
    opened.page.wait_for_selector("#pattern .heatmaplayer image", state="attached")
    shown = opened.page.evaluate("document.getElementById('pattern').data[0].z")
    pattern = views.patterns[0] / 255
    assert np.allclose([[cell or 0 for cell in row] for row in shown], pattern)
    looks = [float(each.evaluate("(token) => token.style.getPropertyValue('--looks')")) for each in tokens.all()]
    assert np.allclose(looks, pattern[-1])
    told = opened.text("#direct-effect strong")
    assert float(told.replace("−", "-")) == pytest.approx(views.effects[head].direct, rel=1e-2)
    promoted = opened.page.locator("#direct-effect .up code").all_inner_texts()
    assert promoted == [token for token, _ in views.effects[head].promotes]
    opened.select("m1")
    assert opened.page.locator("#direct-effect").count() == 1
    assert opened.page.locator("#attention").count() == 0


def test_without_a_model_the_panel_says_how_to_get_there(open_page, circuit_page):
    opened = open_page(circuit_page, "#select=a2.h1")
    assert "circuit.show(model=model, task=task)" in opened.text("#needs-model")
    assert opened.page.is_hidden("#prompt")
    assert opened.page.is_disabled("#mode-position")


def test_nodes_move_to_the_positions_where_they_matter(open_page, model, found):
    task = tiny_task(model)
    opened = open_page(found.to_html(model=model, task=task))
    opened.page.check("#mode-position", force=True)
    opened.settled()
    ticks = opened.page.evaluate("document.getElementById('plot').layout.xaxis.ticktext")
    assert set(ticks) <= set(linked_views(model, task, [], 0).clean)
    scores = viewer.scores_by_position(model, task)
    sources = list(found.graph.sources)
    name = "m1"
    columns = opened.page.evaluate(
        "JSON.parse(document.getElementById('circuit-data').textContent).layouts.position.columns[0]"
    )
    x, y = opened.page.evaluate(
        """(node) => { const trace = document.getElementById("plot").data.find(({ name }) => name === "nodes");
        const at = trace.customdata.indexOf(node); return [trace.x[at], trace.y[at]]; }""",
        sources.index(name),
    )
    assert np.abs(np.array(columns) - x).argmin() == np.abs(scores[sources.index(name)]).argmax()
    assert 1 < y < 2


def test_two_circuits_in_one_page(open_page, circuit):
    other = make_circuit(n=100, seed=0)
    noise = torch.randn(other.graph.shape, generator=torch.Generator().manual_seed(1)) * other.graph.edge_mask
    changed = type(other.scores)(other.scores.values + noise, other.graph, method="eap")
    comparison = circuit.compare(Circuit(changed, changed.mask(90, pruned=False)), names=("IG", "plain"))
    opened, counts = open_page(comparison.to_html()), comparison.counts
    assert opened.shown == sum(counts.values())
    figures = opened.text("#comparison .figures")
    assert f"{comparison.jaccard:.3f}" in figures
    for text, name in (("in both", "both"), ("only IG", "only here"), ("only plain", "only there")):
        assert f"{text}\n{counts[name]}" in figures
        assert text in opened.text("#legend")
    first = comparison.to_frame().iloc[0]
    row = opened.page.locator("#comparison tbody tr").first.locator("td").all_inner_texts()
    assert float(row[-1].replace("−", "-")) == pytest.approx(first["difference"], rel=1e-2)
    opened.page.uncheck("#members-0", force=True)
    opened.page.uncheck("#members-2", force=True)
    opened.settled()
    assert opened.shown == counts["only here"]
    colours = opened.page.evaluate(
        """document.getElementById("plot").data.filter(({ mode, x }) => mode === "lines" && x.length)
        .map(({ line }) => line.color)"""
    )
    assert set(colours) == {"#0072b2"}
    assert "different methods" in opened.text("#comparison")


@pytest.mark.parametrize(
    ("n", "drawn", "dense"),
    mostly_slow([(1_500, 1_500, 0), (1_501, 1_501, 1_101), (25_000, 20_000, 19_600)], lambda case: case[0] == 1_501),
)
def test_many_edges_are_drawn_by_webgl_and_the_weakest_of_all_not_at_all(open_page, tmp_path, n, drawn, dense):
    opened = open_page(make_circuit(ComputationalGraph(12, 12), n=n).to_html(), "#top=all")
    assert opened.shown == drawn
    assert opened.page.evaluate("document.getElementById('plot').data.length") < 25
    canvas = opened.page.locator("#dense")
    assert canvas.get_attribute("data-edges") == str(dense)
    if n > 20_000:
        assert "drawn: the strongest 20,000 of 25,000" in opened.text("#shown")
    if dense:
        picture = opened.download("png", tmp_path)  # its canvas lies below the strongest edges
        assert picture.stat().st_size > 50_000
        opened.slide("top", 500)
        assert canvas.get_attribute("data-edges") == "0"
        assert opened.shown == round(n**0.5)


def test_edges_drawn_by_webgl_tell_their_names_too(open_page):
    circuit = make_circuit(ComputationalGraph(12, 12), n=3_000)
    opened = open_page(circuit.to_html(), "#top=all")
    x, y = opened.page.evaluate(
        """() => { const plot = document.getElementById("plot"), full = plot._fullLayout;
        const box = plot.getBoundingClientRect();
        return [box.left + full._size.l + full.xaxis.l2p(13.3), box.top + full._size.t + full.yaxis.l2p(5.2)]; }"""
    )
    for dx in range(-60, 60, 6):  # edges between MLPs bend to the right: one of the middles lies here
        opened.page.mouse.move(x + dx, y)
        if not opened.page.is_hidden("#tip") and " of 3,000" in opened.text("#tip"):
            break
    else:
        pytest.fail("no edge told its name")


def test_names_prompts_and_labels_that_hold_markup_do_nothing(open_page, monkeypatch, model, found):
    task = tiny_task(model)
    for module in ("linked", "promoted"):
        name = f"circuits.viewer.{module}.token_texts"
        monkeypatch.setattr(name, lambda tokenizer, ids: [f"{ATTACK}{i}" for i in ids])
    known = {"model": ATTACK, "task": {"name": ATTACK}}
    attacked = Circuit(found.scores, found.mask, Report(), known)
    page = attacked.to_html(model=model, task=task)
    opened = open_page(page, "#mode=position&groups=" + f'[["{ATTACK.replace(chr(34), chr(39))}","m1"]]')
    opened.select("m1")
    opened.select("a1.h0")
    opened.page.wait_for_selector("#pattern .heatmaplayer image", state="attached")
    opened.hover("nodes", "m1")
    opened.page.mouse.move(5, 5)
    assert ATTACK in opened.text("h1")
    assert opened.page.evaluate("window.owned") is None
    assert opened.page.locator("img, b:not(#tip b), body script ~ script ~ script ~ script").count() == 0
    comparison = found.compare(found, names=(ATTACK, "x"))
    compared = open_page(comparison.to_html())
    assert compared.page.evaluate("window.owned") is None
    assert compared.page.locator("img").count() == 0
