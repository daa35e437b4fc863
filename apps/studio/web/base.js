// What the studio's components share. Each is `studio.NAME({element, props, watch, trigger, server})`,
// called once when Gradio has mounted it; `mounted` is the place that it fills.

const studio = {};

// Draw again all canvases when the page turns dark or light: they take their colours from CSS.
let themeSeen = false;
function followTheme() {
  if (themeSeen) return;
  themeSeen = true;
  new MutationObserver(() => {
    for (const canvas of document.querySelectorAll(".inr canvas")) canvas.dispatchEvent(new Event("recolour"));
  }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
}

function mounted(element) {
  followTheme();
  return element.querySelector(".inr");
}

function ready(root) {
  root.dataset.ready = "yes";
}

// A value of Gradio's as it is, without what watches it. Texts are not copied.
function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  if (!value || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one)]));
}

// Whether two plain values are the same; quick where large texts differ or are one.
function same(a, b) {
  if (!a || !b || typeof a !== "object" || typeof b !== "object") return Object.is(a, b);
  const [keys, others] = [Object.keys(a), Object.keys(b)];
  return keys.length === others.length && keys.every((key) => same(a[key], b[key]));
}

// Names that differ, for labels and what describes them.
let named = 0;
function freshName(stem) {
  named += 1;
  return `inr-${stem}-${named}`;
}

function press(label, act, attributes = {}) {
  return make("button", { type: "button", onclick: act, ...attributes }, label);
}

// What a component gives to Python: Gradio tells `change` itself, `input` is for what a person did.
function give(props, trigger, value) {
  props.value = value;
  trigger("input");
}
