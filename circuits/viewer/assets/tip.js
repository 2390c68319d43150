// What is told on hovering, in a box of our own: it knows dark mode and reads no markup.

function makeTip(tip) {
  return {
    show(text, x, y) {
      const [first, ...rest] = text.split("\n");
      tip.replaceChildren(element("b", {}, first), ...rest.map((line) => element("span", {}, line)));
      tip.hidden = false;
      const box = tip.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 4)) + "px";
      tip.style.top = Math.max(4, y + 14 + box.height > innerHeight ? y - box.height - 10 : y + 14) + "px";
    },
    hide() { tip.hidden = true; },
  };
}
