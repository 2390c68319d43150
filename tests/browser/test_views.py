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
    opened.page.wait_for_selector("#pattern[data-gap]")
    shown = opened.page.evaluate("document.getElementById('pattern').values")
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
    seen = opened.page.evaluate("document.getElementById('plot').seen()")
    assert {column["text"] for column in seen["columns"]} <= set(linked_views(model, task, [], 0).clean)
    scores = viewer.scores_by_position(model, task)
    sources = list(found.graph.sources)
    name = "m1"
    columns = [column["x"] for column in seen["columns"]]
    places = {node["name"]: (node["x"], node["y"]) for node in seen["nodes"]}
    assert len(columns) == scores.shape[1]
    assert np.abs(np.array(columns) - places[name][0]).argmin() == np.abs(scores[sources.index(name)]).argmax()
    assert places["a2.h0"][1] < places[name][1] < places["a1.h0"][1]


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
    assert opened.page.evaluate("document.getElementById('plot').seen().colours") == ["#0072b2"]
    assert "different methods" in opened.text("#comparison")
    assert opened.text("#whose").startswith("Scores, widths and signs are those of IG; of edges that only plain has")
    assert "dashed: hurts" in opened.text("#legend")
    assert "faithfulness of IG\n0.900" in opened.text("#comparison .figures")


def ink(opened) -> dict[str, int]:
    """Pixels of the picture that are mostly blue, and mostly orange."""
    return opened.page.evaluate(
        """() => { const { width, height } = document.getElementById("drawing"), found = { blue: 0, orange: 0 };
        const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(document.getElementById("drawing"), 0, 0);
        const { data } = copy.getImageData(0, 0, width, height);
        for (let at = 0; at < data.length; at += 4) {
          const more = data[at + 3] > 40 ? data[at] - data[at + 2] : 0;
          if (more > 30) found.orange++; else if (more < -30) found.blue++;
        }
        return found; }"""
    )


@pytest.mark.parametrize(
    ("n", "drawn"), mostly_slow([(5, 5), (1_501, 1_501), (25_000, 20_000)], lambda case: case[0] < 25_000)
)
def test_one_canvas_draws_few_edges_and_many_and_the_weakest_of_all_not_at_all(open_page, tmp_path, n, drawn):
    opened = open_page(make_circuit(ComputationalGraph(12, 12), n=n).to_html(), "#top=all")
    assert opened.shown == drawn
    assert opened.page.locator("canvas, #plot svg").count() == 1
    seen = ink(opened)
    assert min(seen["blue"], seen["orange"]) > (100 if n == 5 else 5_000)
    if n > 20_000:
        assert "drawn: the strongest 20,000 of 25,000" in opened.text("#shown")
    if n > 5:
        opened.slide("top", 500)
        assert opened.shown == round(n**0.5)
        fewer = ink(opened)
        assert fewer["blue"] + fewer["orange"] < seen["blue"] + seen["orange"]
        some = opened.page.evaluate("document.getElementById('plot').seen().edges")[-1]
        assert opened.hover("edges", some["name"]).split("\n")[0] == some["name"]


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
    opened.page.wait_for_selector("#pattern[data-gap]")
    opened.hover("nodes", "m1")
    opened.page.mouse.move(5, 5)
    assert ATTACK in opened.text("h1")
    assert opened.page.evaluate("window.owned") is None
    assert opened.page.locator("img, b:not(#tip b), body script ~ script ~ script ~ script").count() == 0
    comparison = found.compare(found, names=(ATTACK, "x"))
    compared = open_page(comparison.to_html())
    assert compared.page.evaluate("window.owned") is None
    assert compared.page.locator("img").count() == 0
