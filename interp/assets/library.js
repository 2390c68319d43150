// plotly.js, which draws the charts. The page holds it packed, and unpacks it behind what is seen first. In a notebook only
// the first page holds it: the others take it from there.

function libraryText() {
  const own = document.getElementById("library").textContent;
  if (own) return own;
  try {
    for (const frame of window.parent.document.querySelectorAll("iframe")) {
      const found = frame.contentDocument?.getElementById("library")?.textContent;
      if (found) return found;
    }
  } catch { /* a frame of its own origin may not look at others */ }
  return "";
}

async function loadPlotly() {                 // null where no page of this notebook holds it any more
  const packed = libraryText();
  if (!packed) return null;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const run = document.createElement("script");
  run.textContent = await new Response(unpacked).text();
  document.head.append(run);
  run.remove();
  return window.Plotly;
}
