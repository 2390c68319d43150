"""A notebook run from top to bottom by IPython in this process: what a kernel does, without starting one."""

from __future__ import annotations

import atexit
import builtins
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.io
import pytest
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
CONFIG = Config(IPKernelApp={"quiet": True}, HistoryManager={"enabled": False})  # by the first one knows a kernel


class Published(DisplayHook):
    """Puts the value that a cell ends on where `display` puts its own."""

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        self.shell.display_pub.publish(format_dict, md_dict)


class Shell(InteractiveShell):
    """Keeps what cells display, and errors, also those of a `_repr_html_`, which IPython prints and forgets."""

    def __init__(self, **settings: Any) -> None:
        self.errors: list[BaseException] = []
        super().__init__(displayhook_class=Published, display_pub_class=CapturingDisplayPublisher, **settings)

    def showtraceback(self, exc_tuple: Any = None, *_: Any, **__: Any) -> None:
        self.errors.append((exc_tuple or sys.exc_info())[1])

    def showsyntaxerror(self, *_: Any, **__: Any) -> None:
        self.showtraceback()

    def init_virtualenv(self) -> None:
        """This process is in its environment already."""

    def run(self, source: str) -> list[dict[str, Any]]:
        """The MIME bundles that a cell displays; raises what it raises."""
        self.display_pub.outputs = outputs = []
        self.run_cell(source, store_history=True)
        for error in self.errors:
            error.add_note(f"in the cell:\n{source}")
            raise error
        return [output["data"] for output in outputs]


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A new shell in `folder` that is the process's own until it is closed; then nothing is left of it."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")  # chosen when plotly is imported
    for name in ("display", "__IPYTHON__"):
        monkeypatch.setattr(builtins, name, None, raising=False)
    shell = Shell.instance(config=CONFIG, ipython_dir=str(folder / "ipython"))
    yield shell
    shell.restore_sys_module_state()
    atexit.unregister(shell.atexit_operations)
    Shell.clear_instance()
    shell.reset(new_session=False)


def code_cells(path: Path) -> list[dict[str, Any]]:
    """Those of a notebook's cells that are run, as nbformat has them, with their sources as one text each."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]


def mocks(cell: dict[str, Any]) -> dict[str, Any]:
    """What the tests set once a cell has run, so that those after it take less time."""
    return cell["metadata"].get("nbmake", {}).get("mock", {})
