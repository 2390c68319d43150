// A few options side by side: radio buttons or boxes to tick, under a legend.

function choices(name, legend, kind, options, changed, hint) {
  const inputs = options.map(([value, text, title, disabled]) => [
    element("input", { type: kind, name, value, id: name + "-" + value, disabled }), value, text, title]);
  const set = element("fieldset", { class: "choices", id: name, title: hint }, element("legend", {}, legend),
    ...inputs.map(([input, value, text, title]) => element("label", { for: input.id, title }, input, element("span", {}, text))));
  set.addEventListener("change", () => changed(inputs.filter(([input]) => input.checked).map(([, value]) => value)));
  return { set, show(values) { for (const [input, value] of inputs) input.checked = values.includes(value); } };
}
