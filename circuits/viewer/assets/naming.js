// Labels of one's own for nodes, kept in the address and in the saved view.

const LONGEST_LABEL = 80;

function labelField(app, name) {
  const input = element("input", { type: "text", id: "label", value: app.state.labels[name] || "", maxlength: LONGEST_LABEL, placeholder: "what you take it to be", title: "Kept in the address and in what is exported" });
  input.addEventListener("change", () => {
    const { [name]: _, ...others } = app.state.labels, text = input.value.trim();
    app.change({ labels: text ? { ...others, [name]: text } : others });
  });
  return element("div", { class: "field" }, element("label", { for: "label" }, "Label"), input);
}

function calledBy(state, name) { return state.labels[name] ? name + " \u00b7 " + state.labels[name] : name; }

function labelFits(state, name, text) { return (state.labels[name] || "").toLowerCase().includes(text); }
