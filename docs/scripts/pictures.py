"""Pictures for the documentation, taken by a headless Chromium."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import plotly.graph_objects as go


def draw(picture: go.Figure, path: Path) -> None:
    """Write a plotly figure as PNG, if there is a Chromium."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "figure.html"
        picture.write_html(source, include_plotlyjs=True, config={"displayModeBar": False})
        photograph(source, path, picture.layout.width + 20, picture.layout.height + 20)


def photograph(page: Path, path: Path, width: int, height: int) -> bool:
    """Write what a page shows as PNG; says so and returns False where there is no Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print(f"no Chromium found: {path.name} is left as it was")
        return False
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000"]
    command = [browser, *options, f"--window-size={width},{height}", f"--screenshot={path}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    return True
