"""The picture inside a real JupyterLab."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circuits.viewer.page import sketch
from circuits.viewer.shell import _instead
from tests.browser.conftest import absent, make_circuit

CELL = """\
import torch
from attribution.scores import Scores
from circuits.circuit import Circuit
from interp.graph import ComputationalGraph

graph = ComputationalGraph(2, 2)
values = torch.arange(float(graph.edge_mask.numel())).view(graph.shape) * graph.edge_mask
Circuit(Scores(values, graph, method="eap"), graph.edge_mask).show()
"""
NOTEBOOK = {
    "cells": [{"cell_type": "code", "id": "a", "execution_count": None, "metadata": {}, "outputs": [], "source": CELL}],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
START = 150  # seconds that a server may take to answer


def received() -> dict[str, Any]:
    """The notebook with its outputs, as one that came from elsewhere: nobody here trusted it."""
    circuit = make_circuit()
    frame = f'<iframe srcdoc="{html.escape(circuit.to_html())}"></iframe>'
    still = sketch(circuit)
    data = {"text/html": frame + _instead(still, still.png()), "text/plain": still.told}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    (cell,) = NOTEBOOK["cells"]
    return NOTEBOOK | {"cells": [cell | {"outputs": [output], "execution_count": 1}]}


@pytest.fixture
def jupyter(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab of its own that shows a notebook; it is gone afterwards, with its kernels."""
    if importlib.util.find_spec("jupyterlab") is None:
        absent("jupyterlab is not installed: pip install -e '.[test]'")
    work = tmp_path / "work"
    work.mkdir()
    (work / "circuit.ipynb").write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    (work / "received.ipynb").write_text(json.dumps(received()), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    root = Path(__file__).parents[2]
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings")}
    environment = os.environ | own | {"PYTHONPATH": str(root), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "spaces")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={work}", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/api/status?token={token}", server, tmp_path / "log")
        yield f"{address}/lab/tree/circuit.ipynb?token={token}"
    finally:
        server.send_signal(signal.SIGTERM)  # it stops its kernels, too
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(10 * START):
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start: {log.read_text(encoding='utf-8')[-2_000:]}")


def run_first_cell(page: Any) -> None:
    """Run it until the kernel has taken it: what is sent while a kernel starts may be lost."""
    prompt = page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-prompt").first
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    for _ in range(10):
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+Enter")
        for _ in range(20):
            if prompt.inner_text().strip("[]: \n\xa0"):
                return
            page.wait_for_timeout(100)
    pytest.fail("the kernel never took the cell")


@pytest.mark.slow
def test_show_draws_in_a_notebook_and_a_picture_where_it_is_not_trusted(browser, jupyter):
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(90_000)
    # a busy machine loses sight of its server for a moment, and JupyterLab says so in front of everything
    said = page.locator("dialog.jp-Dialog")
    page.add_locator_handler(said, lambda: said.locator("button.jp-mod-accept").click())
    page.goto(jupyter)
    run_first_cell(page)
    page.wait_for_selector(".jp-OutputArea iframe", state="attached")
    frame = page.locator(".jp-OutputArea iframe").element_handle().content_frame()
    frame.wait_for_selector("html[data-ready]", state="attached")
    assert int(frame.get_attribute("#plot", "data-shown")) == 46
    assert page.is_hidden(".jp-OutputArea .circuit-still")
    red = page.locator(".jp-OutputArea [data-mime-type='application/vnd.jupyter.stderr']")
    assert red.all_inner_texts() == []
    frame.locator("#sign-negative").check(force=True)
    frame.wait_for_function("document.getElementById('plot').dataset.shown === '0'")
    context.close()
    other = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = other.new_page()
    page.set_default_timeout(90_000)
    page.goto(jupyter.replace("circuit.ipynb", "received.ipynb"))
    picture = page.locator(".jp-OutputArea .circuit-still img, .jp-OutputArea img")
    picture.wait_for()
    assert picture.is_visible()
    assert picture.bounding_box()["width"] > 600
    assert picture.evaluate("(image) => image.naturalWidth") == 900
    assert page.locator(".jp-OutputArea iframe").count() == 0
    other.close()
