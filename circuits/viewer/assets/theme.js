// Colours as the style sheet has them, dark mode, full screen.

function colours(more = []) {                  // and those of a page's own
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "muted", "faint", "panel", "page", "positive", "negative", "shared", "here", "there", "accent", "found", ...more];
  const result = Object.fromEntries(names.map((name) => [name, style.getPropertyValue("--" + name).trim()]));
  result.groups = [0, 1, 2, 3, 4, 5].map((at) => style.getPropertyValue("--group-" + at).trim());
  return result;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function startTheme(changed) {
  const button = byId("theme");
  const say = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    button.textContent = isDark() ? "Light" : "Dark";
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    say();
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { say(); changed(); });
  say();
}

function toggleFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen().catch(() => {});
}
