"""What nodes do on the prompts of a page: a menu of prompts, attention of both runs, thumbnails, knocking out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from circuits.circuit import Circuit
from circuits.viewer.linked import corrupted_patterns, linked_views
from interp.errors import InputError
from interp.graph import ComputationalGraph
from interp.node_mask import NodeMask
from interp.setting import Setting
from interp.tasks.task import Task
from tests.browser.conftest import Opened, make_circuit
from tests.tiny import shared, tiny_task

HEAD = "a1.h2"


@pytest.fixture(scope="module")
def model() -> Any:
    return shared("llama")


@pytest.fixture(scope="module")
def found(model: Any) -> Circuit:
    return make_circuit(ComputationalGraph.of(model), n=60)


@pytest.fixture(scope="module")
def prompts_page(model: Any, found: Circuit, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("pages") / "prompts.html"
    found.to_html(path, model=model, task=tiny_task(model), example=1, knock=[("m0", "m1", "m2")])
    return path


def pattern(opened: Opened, plot: str = "pattern") -> np.ndarray:
    opened.page.wait_for_selector(f"#{plot}[data-gap]")
    z = opened.page.evaluate(f"document.getElementById('{plot}').values")
    return np.array([[cell or 0 for cell in row] for row in z])


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_a_menu_shows_any_prompt_and_the_mean_over_all(open_page, model, found, prompts_page) -> None:
    opened, task = open_page(prompts_page, f"#select={HEAD}"), tiny_task(model)
    views = [linked_views(model, task, [HEAD], example) for example in range(3)]
    tokens = opened.page.locator("#prompt .token.clean:not(.answer)")
    assert tokens.all_inner_texts() == views[1].clean
    for chosen in (0, 2):
        opened.page.select_option("#prompt-menu", str(chosen))
        opened.settled()
        assert tokens.all_inner_texts() == views[chosen].clean
        corrupted = opened.page.locator("#prompt .token.corrupted:not(.answer)")
        assert corrupted.all_inner_texts() == views[chosen].corrupted
        assert number(opened.text("#direct-effect strong")) == pytest.approx(
            views[chosen].effects[HEAD].direct, rel=1e-2
        )
    opened.page.select_option("#prompt-menu", "mean")
    opened.settled()
    mean = np.mean([one.effects[HEAD].direct for one in views])
    assert number(opened.text("#direct-effect strong")) == pytest.approx(mean, rel=1e-2)
    assert np.allclose(pattern(opened), np.mean([one.patterns[0] for one in views], axis=0) / 255)
    assert "prompt=mean" in opened.page.evaluate("location.hash")


def test_attention_of_the_corrupted_prompt_and_the_difference(open_page, model, prompts_page) -> None:
    opened, task = open_page(prompts_page, f"#select={HEAD}&run=corrupted"), tiny_task(model)
    clean = linked_views(model, task, [HEAD], 1).patterns[0] / 255
    corrupted = corrupted_patterns(model, task, [HEAD], 1)[0] / 255
    assert np.abs(clean - corrupted).max() > 0.01
    assert np.allclose(pattern(opened), corrupted)
    opened.page.check("#run-difference", force=True)
    opened.settled()
    assert np.allclose(pattern(opened), clean - corrupted)
    opened.page.click("#pattern")
    assert np.allclose(pattern(opened, "large-pattern"), clean - corrupted)
    opened.page.keyboard.press("Escape")
    opened.page.wait_for_selector("dialog", state="detached")
    assert opened.text("#selection") == HEAD


def test_all_heads_of_a_layer_and_of_the_model_as_thumbnails(open_page, found, prompts_page) -> None:
    opened = open_page(prompts_page, f"#select={HEAD}")
    opened.page.click("#layer-heads summary")
    assert opened.page.locator("#layer-heads .thumbnail span").all_inner_texts() == [f"a1.h{i}" for i in range(4)]
    opened.page.click("#all-heads")
    heads = [name for name in found.graph.sources if ".h" in name]
    assert opened.page.locator("dialog .thumbnail span").all_inner_texts() == heads
    painted = opened.page.evaluate(
        "() => { const one = document.querySelector('dialog canvas');"
        " return [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data].some((byte) => byte > 0); }"
    )
    assert painted
    opened.page.click("dialog [data-head='a2.h3']")
    opened.settled()
    assert opened.text("#selection") == "a2.h3"


def test_a_click_knocks_a_node_out_and_pins_knock_out_together(open_page, model, found, prompts_page) -> None:
    setting = Setting.of(model, tiny_task(model), {}, found)
    full = setting.nodes("node").full

    def change(*names: str) -> float:
        mask = full.clone()
        mask[[found.graph.sources.index(name) for name in names]] = False
        values = setting.measure([NodeMask(mask, "node")])
        return float((values.circuits[0] - values.clean).mean())

    opened = open_page(prompts_page, "#select=m1")
    assert number(opened.text("#selected #knock-out strong")) == pytest.approx(change("m1"), rel=1e-2)
    assert "Measured on 3 prompts" in opened.text("#selected #knock-out .hint")
    opened.again("#pins=m2,m0,m1")
    opened.settled()
    assert number(opened.text("#pinned #knock-out strong")) == pytest.approx(change("m0", "m1", "m2"), rel=1e-2)
    changes = opened.page.evaluate("JSON.parse(document.getElementById('circuit-data').textContent).knocked.changes")
    pair = next(key for key in changes if key.count(",") == 1)
    assert changes[pair] == pytest.approx(change(*pair.split(",")), rel=1e-4)
    pairs = itertools.combinations(sorted(set(found.nodes) & set(changes)), 2)
    unknown = next(pair for pair in pairs if ",".join(pair) not in changes)
    opened.again(f"#pins={','.join(unknown)}")
    opened.settled()
    assert "Not measured" in opened.text("#pinned #knock-out")
    assert "add up to" in opened.text("#pinned #knock-out")


def test_sets_that_cannot_be_knocked_out_are_refused(model, found) -> None:
    for knock, message in (([("a9.h9",)], "a9.h9"), (["m0"], "sets of names"), ([()], "sets of names")):
        with pytest.raises(InputError, match=message):
            found.to_html(model=model, task=tiny_task(model), knock=knock)


def test_a_prompt_of_500_tokens_scrolls_to_the_first_difference_and_its_pattern_can_be_read(
    open_page, model, found
) -> None:
    length = 500
    clean = torch.tensor([[3 + i % 40 for i in range(length)]])
    corrupted = clean.clone()
    corrupted[0, length - 10] = 1
    task = Task.from_tokens("long", clean, corrupted, torch.tensor([5]), torch.tensor([6]))
    measured = [{"edges": 1, "faithfulness": 0.5}]  # what is not looked at here
    page = found.to_html(model=model, task=task, curve=measured, knock=None)
    opened = open_page(page, f"#select={HEAD}")
    place = opened.page.evaluate(
        "() => { const one = document.querySelector('#prompt .differs').getBoundingClientRect();"
        " const box = document.querySelector('.strip').getBoundingClientRect();"
        " return one.left > box.left && one.right < box.right; }"
    )
    assert place
    opened.page.wait_for_selector("#pattern[data-gap]")
    assert opened.page.get_attribute("#pattern", "data-gap") == "0"
    opened.page.click("#pattern")
    opened.page.wait_for_selector("#large-pattern[data-gap]")
    assert opened.page.locator("#large-pattern canvas").bounding_box()["width"] > 4 * length  # pixels, to scroll in
    opened.page.keyboard.press("Escape")
