// Draws the figures of a page, each in its own place.

(async () => {
  const figures = JSON.parse(document.getElementById("charts").textContent), plotly = await loadPlotly();
  for (const [at, { data, layout }] of figures.entries())
    await plotly.newPlot("chart-" + at, data, layout, { displaylogo: false, responsive: true });
  document.documentElement.dataset.charted = figures.length;
})();
