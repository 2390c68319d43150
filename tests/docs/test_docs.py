"""The documentation's claims that can be checked: every method has a page, every error page shows a real error."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import attribution
from tests.tiny import tiny_module, tiny_task, word_tokenizer

DOCS = Path(__file__).parents[2] / "docs"
ERRORS = sorted(page for page in (DOCS / "errors").glob("*.md") if page.stem != "index")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the examples of the error pages take for granted."""
    from interp import load_model

    monkeypatch.chdir(tmp_path)
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    tokenizer = type(tokenizer).from_pretrained(tmp_path / "tokenizer")
    model = load_model(tiny_module("llama", torch.float32), tokenizer=tokenizer)

    def predict(x: torch.Tensor) -> torch.Tensor:
        p = x.mean(1) / 2
        return torch.stack((1 - p, p), 1)

    return {
        "__name__": "example",
        "model": model,
        "task": tiny_task(model, n=4),
        "module": tiny_module("gpt2"),
        "predict": predict,
    }


@pytest.mark.parametrize("page", ERRORS, ids=lambda page: page.stem)
def test_every_error_page_shows_the_error_that_its_example_raises(page: Path, names: dict[str, Any]) -> None:
    (example,), (sentence,) = blocks(page, "python"), blocks(page, "text")
    with pytest.raises((ValueError, ImportError)) as caught:
        exec(compile(example, str(page), "exec"), names)
    assert sentence.strip() in str(caught.value)


def test_every_method_has_a_page_with_its_equation_cost_and_use() -> None:
    methods = {*attribution.methods()["method"], *attribution.token_methods()["method"]}
    pages = {
        page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "methods").glob("*.md") if page.stem != "index"
    }
    assert methods - pages.keys() == set()
    for name, text in pages.items():
        lacking = [part for part in ("Equation", "Cost", "When to use it", "Paper") if f"\n## {part}\n" not in text]
        assert not lacking, (name, lacking)


@pytest.mark.parametrize("folder", ["methods", "metrics", "errors"])
def test_examples_are_python_and_pages_are_listed(folder: str) -> None:
    listed = (DOCS / folder / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / folder).glob("*.md"):
        for example in blocks(page, "python"):
            compile(example, str(page), "exec")
        assert page.stem == "index" or f"\n{page.stem}\n" in listed, page.stem


def test_the_example_of_features_runs_as_it_stands() -> None:
    page = DOCS / "methods" / "features.md"
    (example,) = blocks(page, "python")
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, str(page), "exec"), names)
    assert names["found"].values.shape == (8, 1, 6, 64)
    assert names["run"].logits.shape == (8, 6, 60)


PUBLIC = (
    *("attribution", "attribution.concepts", "attribution.rules", "circuits", "circuits.mib", "circuits.planted"),
    *("circuits.programs", "circuits.viewer", "interp", "interp.concepts", "interp.encoders", "interp.objectives"),
    *("interp.selection", "interp.tasks", "metrics", "metrics.concepts"),
)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_module_has_a_page_that_is_listed(name: str) -> None:
    page = (DOCS / "api" / f"{name}.md").read_text(encoding="utf-8")
    assert f".. automodule:: {name}\n" in page
    assert f"\napi/{name}\n" in (DOCS / "index.md").read_text(encoding="utf-8")


def test_how_do_i_answers_what_is_asked_and_concepts_stand_on_one_page() -> None:
    asked = re.findall(r"^## (.+)$", (DOCS / "how-do-i.md").read_text(encoding="utf-8"), re.MULTILINE)
    for what in ("install", "my own model", "my own task", "big model", "GPU", "half precision", "save and load",
                 "compare", "figure for my paper", "share a graph", "TransformerLens", "EAP-IG", "captum"):  # fmt: skip
        assert any(what in heading for heading in asked), what
    told = (DOCS / "how-do-i.md").read_text(encoding="utf-8")
    assert 'figure.write_image("circuit.pdf")' in told
    extras = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "kaleido" in "".join(extras["optional-dependencies"]["images"])
    assert 'pip install "faithful-circuits[images]"' in told
    concepts = (DOCS / "concepts.md").read_text(encoding="utf-8")
    for what in ("Graph", "Task", "Objective", "Ablation", "Score", "Circuit", "Faithfulness"):
        assert f"**{what}.**" in concepts


def test_the_readme_starts_on_one_screen_and_its_table_leads_on() -> None:
    lines = (DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()
    assert "circuit = find_circuit(model, tasks.ioi(n=64, model=model))" in lines[:20]
    table = lines[lines.index("## What is in it") :]
    rows = [line for line in table if re.match(r"\| \[[^]]+\]\(docs/", line)]
    assert len(rows) >= 10
    assert any("](docs/contents.md)" in line for line in table)
    assert len(lines) < 180


def test_pages_and_the_readme_link_to_what_is_there() -> None:
    root = DOCS.parent
    for page in (root / "README.md", *DOCS.glob("*.md")):
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
