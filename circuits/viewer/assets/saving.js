// What every page saves: itself with the present view, and files of other kinds; and the view that it loads again.

function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function fileName(app, ending) {
  return (app.data.title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "circuit") + "." + ending;
}

function wholePage(app) {                     // as it came, with the present view in place of the first
  const copy = document.documentElement.cloneNode(true);
  copy.querySelector("#app").innerHTML = app.pristine;
  copy.querySelectorAll("style ~ style, #view-state, body > svg, body > a") // plotly adds its own
    .forEach((each) => each.remove());
  copy.removeAttribute("data-ready");
  const saved = document.createElement("script");
  saved.id = "view-state";
  saved.type = "application/json";
  saved.textContent = JSON.stringify(app.state).replace(/</g, "\\u003c");
  copy.querySelector("#circuit-data").after(saved);
  return "<!doctype html>\n" + copy.outerHTML + "\n";
}

// Frames that were told to let nothing out drop a download without a word: they have no origin of their own.
function barred() { return window.self !== window.top && window.origin === "null"; }

function startSaving(app, kinds) {             // [ending, what it is called, its content]
  const menu = byId("export-menu");
  byId("export-list").append(...kinds.map(([ending, text, make]) => element("button", {
    type: "button", role: "menuitem", id: "export-" + ending,
    onclick: async () => {
      menu.open = false;
      download(fileName(app, ending), await make());
      if (barred()) app.say("This frame may not save files: if none came, open the page by itself (in Python, to_html(path)).");
    },
  }, text)));
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  const file = byId("load-file");
  byId("load").addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    try {
      const view = JSON.parse(await chosen.text());
      if (view.format !== "faithful-circuits/view") throw new Error("no view");
      app.load(view.state || {});
    } catch {
      app.say("That file holds no view: load a JSON file that this page exported.");
    }
    file.value = "";
  });
}
