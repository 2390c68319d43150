// What cards beside a picture are made of.

function figures(rows) {
  return element("dl", { class: "figures" }, ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function tokenList(title, rows, way) {
  return element("div", { class: "tokens " + way }, element("h4", {}, title), element("ol", {}, ...rows.map(([token, value]) => element("li", {},
    element("code", { title: token }, visible(token)), element("span", {}, signed(value, 2))))));
}
