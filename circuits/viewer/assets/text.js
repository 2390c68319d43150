"use strict";
// Numbers and names as text. What came from outside goes through textContent, or onto a canvas.

function decode(text, ArrayType) {            // base64 of little-endian numbers
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new ArrayType(bytes.buffer);
}

function count(value) { return value.toLocaleString("en"); }

function counted(value, noun) { return count(value) + " " + noun + (value === 1 ? "" : "s"); }

function signed(value, digits = 4) {
  if (!Number.isFinite(value)) return "unknown";
  const text = Math.abs(Number(value.toPrecision(digits))).toString();
  return (value < 0 ? "\u2212" : "+") + text;
}

function percent(share) {
  const value = 100 * share;
  return (value !== 0 && value < 0.1 ? value.toPrecision(1) : value.toFixed(value < 10 ? 1 : 0)) + " %";
}

function intervalText(value, interval) {
  const text = (one) => (one.toFixed(2) === "-0.00" ? "0.00" : one.toFixed(2).replace("-", "\u2212"));
  return text(value) + (interval ? " [" + text(interval[0]) + ", " + text(interval[1]) + "]" : "");
}

function visible(token) {                     // white space, line ends and what has no shape, to be seen
  return token.replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5").replace(/^ | $/g, "\u00b7")
    .replace(/[\u0000-\u001f\u007f-\u00a0\u00ad\u200b-\u200f\u2028-\u202f\ufeff]/g, (sign) => "\u2039" + sign.charCodeAt(0).toString(16) + "\u203a") || "\u2205";
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function byId(id) { return document.getElementById(id); }
