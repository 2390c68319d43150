"""The picture as one HTML file that needs neither a server nor a network, with a threshold slider.

The page holds plotly.js, the figure and, per trace, which edges it draws. Edges are sorted by strength, so
that a threshold is a number of edges per trace and the slider cuts the traces' arrays: nothing is laid out in
the page. A content security policy forbids the page to load anything. Text that came from outside (names of
models and tasks) is escaped, and the embedded JSON holds no `<`, so that no label can end its script element.
"""

from __future__ import annotations

import html
import importlib
import json
import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from circuits.circuit import Circuit
from circuits.viewer.traces import Picture, draw, subtitle, title
from interp.files import write_text


def to_html(circuit: Circuit, path: str | os.PathLike[str] | None = None) -> str:
    """The interactive picture of `circuit` as a self-contained page of about 5 MB, most of it plotly.js.

    With `path` the page is also written there; a kill or a full disk leaves what the file held before.
    """
    picture = draw(circuit)
    page = _PAGE.substitute(
        title=html.escape(title(circuit)),
        subtitle=html.escape(subtitle(circuit, picture.edges)),
        plotly=get_plotlyjs(),
        data=_embedded(_page_data(picture)),
        script=_SCRIPT,
        style=_STYLE,
    )
    if path is not None:
        write_text(path, page)
    return page


def show(circuit: Circuit) -> None:
    """Show the interactive picture: in a frame of its own inside a notebook, else in the browser.

    A notebook cell then holds the whole page; `figure` gives a lighter picture without the slider.
    """
    page = to_html(circuit)
    if _in_notebook():
        notebook = importlib.import_module("IPython.display")  # there when a notebook is, else not needed
        frame = f'<iframe srcdoc="{html.escape(page)}" style="width:100%;height:860px;border:0"></iframe>'
        notebook.display(notebook.HTML(frame))
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="circuit-", suffix=".html", delete=False) as file:
        file.write(page)
    webbrowser.open(Path(file.name).as_uri())


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # a notebook's kernel has imported it
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def _page_data(picture: Picture) -> dict[str, Any]:
    edges, node = picture.edges, {name: index for index, name in enumerate(picture.nodes)}
    figure = json.loads(picture.figure.to_json())
    for key in ("title", "height"):
        figure["layout"].pop(key)  # the page has a heading, and fills the window
    figure["layout"]["margin"]["t"] = 40
    strength = np.abs(edges.score)
    return {
        "figure": figure,
        "strength": _rounded(strength),
        "source": [node[name] for name in edges.source],
        "reader": [node[name] for name in edges.reader],
        "buckets": [
            {"trace": bucket.trace, "points": bucket.points, "strength": _rounded(strength[bucket.edges])}
            for bucket in picture.buckets
        ],
        "nodeTrace": picture.node_trace,
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _embedded(data: dict[str, Any]) -> str:
    """JSON that is safe inside a script element: no `<`, `>` or `&`, and no line separators of JavaScript."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_STYLE = """
html, body { margin: 0; height: 100%; background: #fff; color: #2b303b;
  font: 15px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
body { display: flex; flex-direction: column; min-height: 600px; }
header { padding: 14px 24px 0; }
h1 { font-size: 20px; margin: 0; font-weight: 600; overflow-wrap: anywhere; }
header p { margin: 2px 0 0; color: #596273; }
form { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 14px; padding: 8px 24px 0; }
input[type=range] { width: min(420px, 60vw); accent-color: #2b303b; }
output { font-variant-numeric: tabular-nums; color: #2b303b; }
#plot { flex: 1; min-height: 0; }
"""

_SCRIPT = """
"use strict";
(function () {
  const page = JSON.parse(document.getElementById("circuit-data").textContent);
  const plot = document.getElementById("plot");
  const slider = document.getElementById("threshold");
  const readout = document.getElementById("shown");
  const strength = page.strength;               // descending, as in every bucket
  const total = strength.length;
  const names = page.figure.data[page.nodeTrace].text;

  function decode(array) {                      // plotly's base64 form of a float32 array
    if (!array || array.bdata === undefined) return array;
    const bytes = Uint8Array.from(atob(array.bdata), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  }
  function hardware() {                         // WebGL in software is some 20 times slower than SVG here
    const gl = document.createElement("canvas").getContext("webgl");
    const info = gl && gl.getExtension("WEBGL_debug_renderer_info");
    const name = info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
    return gl !== null && !/swiftshader|llvmpipe|software|basic render/i.test(name);
  }
  if (page.figure.data.some((trace) => trace.type === "scattergl") && !hardware())
    for (const trace of page.figure.data) trace.type = "scatter";
  for (const bucket of page.buckets) {
    const trace = page.figure.data[bucket.trace];
    bucket.x = trace.x = decode(trace.x);
    bucket.y = trace.y = decode(trace.y);
  }

  function atLeast(sorted, value) {             // how many of a descending list are >= value
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] >= value) low = middle + 1; else high = middle;
    }
    return low;
  }

  const largest = total ? strength[0] : 0;
  const smallest = strength.findLast((value) => value > 0) || largest;
  function threshold() {                        // the left end keeps everything; then a logarithmic scale
    const share = Number(slider.value) / Number(slider.max);
    return share * total === 0 ? 0 : Math.min(largest, smallest * Math.pow(largest / smallest, share));
  }

  function say(value, count) {
    const all = total.toLocaleString("en");
    readout.textContent = value === 0 ? "none: all " + all + " edges drawn"
      : "|score| \\u2265 " + value.toPrecision(3) + ": " + count.toLocaleString("en") + " of " + all;
  }

  function apply() {
    const value = threshold();
    const count = atLeast(strength, value);
    const indices = page.buckets.map((bucket) => bucket.trace);
    const kept = page.buckets.map((bucket) => bucket.points * atLeast(bucket.strength, value));
    const alive = new Set();
    for (let edge = 0; edge < count; edge++) { alive.add(page.source[edge]); alive.add(page.reader[edge]); }
    const opacity = names.map((_, node) => (alive.has(node) ? 1 : 0.15));
    // a space: plotly drops the element of an empty label and does not bring it back
    const labels = names.map((name, node) => (alive.has(node) ? name : " "));
    say(value, count);
    const untouched = indices.map(() => undefined);
    return Plotly.restyle(plot, {               // one call for edges and nodes: one redraw
      x: [...page.buckets.map((bucket, i) => bucket.x.slice(0, kept[i])), undefined],
      y: [...page.buckets.map((bucket, i) => bucket.y.slice(0, kept[i])), undefined],
      "marker.opacity": [...untouched, opacity],
      text: [...untouched, labels],
    }, [...indices, page.nodeTrace]);
  }

  let drawing = false, stale = false;
  function request() {                          // one redraw at a time; the last position always gets its own
    stale = drawing;
    if (drawing) return;
    drawing = true;
    apply().finally(() => { drawing = false; if (stale) request(); });
  }
  slider.addEventListener("input", request);
  slider.disabled = total === 0;
  say(0, total);
  page.figure.layout.autosize = true;
  Plotly.newPlot(plot, page.figure.data, page.figure.layout,
    { responsive: true, displaylogo: false, scrollZoom: true, plotlyServerURL: "" });
})();
"""

_PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:; worker-src blob:">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header><h1>$title</h1><p>$subtitle</p></header>
<form onsubmit="return false">
<label for="threshold">Threshold</label>
<input id="threshold" type="range" min="0" max="200" value="0">
<output id="shown" for="threshold"></output>
</form>
<div id="plot"></div>
<script>$plotly</script>
<script type="application/json" id="circuit-data">$data</script>
<script>$script</script>
</body>
</html>
"""
)
