// Keys for the whole page; inside a text field only Esc is ours.

function startKeyboard(app) {
  const help = byId("help"), text = byId("help-text");
  const toggleHelp = (open) => { text.hidden = !open; help.setAttribute("aria-expanded", String(open)); };
  help.addEventListener("click", () => toggleHelp(text.hidden));
  const fold = byId("fold"), form = byId("controls");
  fold.addEventListener("click", () => {
    fold.setAttribute("aria-expanded", String(form.classList.toggle("open")));
    window.dispatchEvent(new Event("resize"));  // what was drawn while folded knew no width
  });
  byId("full-screen").addEventListener("click", toggleFullScreen);
  document.addEventListener("keydown", (event) => {
    const target = event.target, typing = target.matches("input:not([type=range], [type=radio], [type=checkbox]), textarea");
    if (event.key === "Escape") {
      toggleHelp(false);
      byId("export-menu").open = false;
      if (typing) target.blur();
      app.change({ selection: null, search: "" });
      return;
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
    else if (event.key === "?") toggleHelp(text.hidden);
    else if (event.key === "f") toggleFullScreen();
    else if (event.key === "p" && app.view.selected !== null) app.pin(app.state.selection);
    else if (["ArrowLeft", "ArrowRight"].includes(event.key) && !target.matches("input")) {
      const slider = app.lastSlider, step = event.key === "ArrowLeft" ? -10 : 10;
      slider.value = Number(slider.value) + step;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    }
  });
}
