// Draws the figures of a page, each in its own place.

(async () => {
  const figures = JSON.parse(document.getElementById("charts").textContent), plotly = await loadPlotly();
  for (const [at, { data, layout }] of figures.entries()) {
    if (plotly) await plotly.newPlot("chart-" + at, data, layout, { displaylogo: false, responsive: true });
    else document.getElementById("chart-" + at).textContent = "The library of pictures is in the first one of this notebook, which is gone: show this again in a new session.";
  }
  document.documentElement.dataset.charted = figures.length;
})();
