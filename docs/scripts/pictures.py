"""Pictures for the documentation, taken by a headless Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from PIL import Image


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


def photograph_view(
    page: str, path: Path, theme: str, view: dict[str, Any], width: int = 1280, height: int = 860
) -> None:
    """Write an interactive page as PNG of few colours, in a theme and a view of its own."""
    state = f'<script type="application/json" id="view-state">{json.dumps(view)}</script>'
    page = page.replace('<html lang="en">', f'<html lang="en" data-theme="{theme}">', 1)
    page = page.replace("<script>(() => {", f"{state}\n<script>(() => {{", 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        if not photograph(file, path, width, height):
            return
    with Image.open(path) as taken:
        taken.convert("RGB").quantize(200).save(path, optimize=True)
