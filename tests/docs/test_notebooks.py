"""Every notebook runs from top to bottom, every cell, and shows what the copy in the repository shows.

A commit tries them on the first layers of SmolLM2, which do not do the tasks but take every cell the same way; a
release on the whole model. Both are run by IPython in this process, one notebook by a kernel of its own, too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from tests.notebook_shell import NOTEBOOKS, PLOTLY, Shell, code_cells, mocks, opened
from tests.state import state

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
CHEAPEST = NOTEBOOKS / "06_trace_one_prompt.ipynb"
LAYERS = 6  # of 30: the fewest with the edges that notebooks ask for


@pytest.fixture(scope="module")
def short() -> Any:
    """SmolLM2 without its later layers, with the name and the tokenizer of the whole."""
    from transformers import AutoModelForCausalLM

    few = functools.partial(AutoModelForCausalLM.from_pretrained, num_hidden_layers=LAYERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoModelForCausalLM, "from_pretrained", few)
        return interp.load_model("smollm2-135m")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Shell]:
    """A shell in which SmolLM2 is the fixture that a test names; notebooks leave it as they found it."""
    held = request.getfixturevalue(request.getfixturevalue("model"))
    load = interp.load_model

    def loaded(*given: Any, **named: Any) -> Any:
        return held if given == ("smollm2-135m",) and not named else load(*given, **named)

    monkeypatch.setattr(interp, "load_model", loaded)
    before = state(held), weights(held)
    yield from opened(tmp_path, monkeypatch)
    assert (state(held), weights(held)) == before


def weights(model: Any) -> list[float]:
    """A sum over each: torch does not count edits of `weight.data`."""
    return [parameter.detach().sum(dtype=torch.float64).item() for parameter in model.parameters()]


def kinds(outputs: list[dict[str, Any]]) -> list[set[str]]:
    """MIME types of what a cell shows; live pictures are PNGs, as in the repository."""
    live = (PLOTLY in data or "<iframe" in data.get("text/html", "") for data in outputs)
    return [{"image/png"} if picture else set(data) for picture, data in zip(live, outputs, strict=True)]


def displayed(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """The MIME bundles among a cell's outputs."""
    return [output["data"] for output in cell["outputs"] if output["output_type"] != "stream"]


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")  # captum, which sees to it
@pytest.mark.filterwarnings("ignore:the task .* shows no behaviour to explain")  # few layers, few steps of training
@pytest.mark.parametrize("model", ["short", pytest.param("smollm2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_its_stored_copy_shows(path: Path, model: str, shell: Shell) -> None:
    for cell in code_cells(path):
        shown = shell.run(cell["source"])
        assert kinds(shown) == kinds(displayed(cell)), cell["source"]
        assert mocks(cell).keys() <= shell.user_ns.keys()
        shell.push(mocks(cell))


@pytest.mark.real
@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    stored, cells = code_cells(CHEAPEST), []
    for cell in stored:
        smaller = "\n".join(f"{name} = {value!r}" for name, value in mocks(cell).items())
        cells += [nbformat.v4.new_code_cell(cell["source"]), nbformat.v4.new_code_cell(smaller)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert [kinds(displayed(cell)) for cell in notebook.cells[::2]] == [kinds(displayed(cell)) for cell in stored]
