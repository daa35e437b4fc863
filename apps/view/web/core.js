"use strict";
// What all widgets share: elements, views that several panes look through, panes, axes.

const widgets = {};
// the studio puts all scripts into one function, and the palette before them
const palette = typeof PALETTE === "undefined"
  ? JSON.parse(document.getElementById("palette").textContent) : PALETTE;

// An element with attributes, listeners (onNAME) and children; strings become text, never markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

// Numbers that were deflated: {type, data}. Those of type "d2" are 16-bit differences, all their low
// bytes before all their high ones.
async function numbers({ type, data }) {
  const stream = new Blob([bytes(data)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  if (type !== "d2") return new { u1: Uint8Array, u4: Uint32Array, f4: Float32Array }[type](buffer);
  const planes = new Uint8Array(buffer);
  const made = new Uint16Array(planes.length / 2);
  for (let i = 0, last = 0; i < made.length; i++) {
    last += planes[i] + 256 * planes[made.length + i];
    made[i] = last; // modulo 2^16
  }
  return made;
}

function clamp(x, low, high) {
  return Math.max(low, Math.min(high, x));
}

function text(x) {
  if (!Number.isFinite(x)) return String(x);
  if (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e6)) return x.toExponential(2);
  return String(Number(x.toPrecision(4)));
}

// A colour as it is where an element stands.
function style(name, element) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

// Whether two values are the same as JSON.
function alike(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}

function gradient(name) {
  return `background: linear-gradient(to right, ${palette[name].join(",")})`;
}

// A colour map as 256 RGB triples.
function table(name) {
  const stops = palette[name].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const made = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1);
    const k = Math.min(Math.floor(place), stops.length - 2);
    for (let c = 0; c < 3; c++) {
      made[3 * i + c] = Math.round(stops[k][c] + (place - k) * (stops[k + 1][c] - stops[k][c]));
    }
  }
  return made;
}

function slider(label, attributes, show, change) {
  const output = make("output", {}, show(Number(attributes.value)));
  const input = make("input", {
    type: "range",
    ...attributes,
    "aria-label": label,
    oninput: () => {
      output.textContent = show(Number(input.value));
      change(Number(input.value));
    },
  });
  const element = make("label", {}, label, input, output);
  element.set = (value) => {
    input.value = value;
    output.textContent = show(value);
  };
  element.bound = (low, high) => {
    input.min = low;
    input.max = high;
  };
  return element;
}

// Buttons of which one is pressed.
function choice(label, names, chosen, change) {
  const group = make("fieldset", { role: "group", "aria-label": label });
  names.forEach((name, i) => {
    const button = make("button", {
      type: "button",
      "aria-pressed": String(i === chosen),
      onclick: () => {
        for (const other of group.children) {
          other.setAttribute("aria-pressed", String(other === button));
        }
        change(i);
      },
    }, name);
    group.append(button);
  });
  return group;
}

function select(label, names, chosen, change) {
  const options = names.map((name, i) => make("option", { value: i, selected: i === chosen }, name));
  const box = make("select", { onchange: () => change(Number(box.value)) }, ...options);
  return make("label", {}, label, box);
}

// The part of a lattice that is looked at, in its own units; panes of one view move together.
class View {
  constructor(width, height, { stretch = false, least = 8 } = {}) {
    Object.assign(this, { width, height, stretch, panes: [], marker: null, pending: false });
    this.most = Math.max(1, width / least);
    this.reset();
  }

  reset() {
    this.set(0, 0, this.width, this.height);
  }

  get zoom() {
    return this.width / this.w;
  }

  set(x, y, w, h) {
    this.w = Math.min(w, this.width);
    this.h = Math.min(h, this.height);
    this.x = clamp(x, 0, this.width - this.w);
    this.y = clamp(y, 0, this.height - this.h);
    this.redraw();
  }

  // Enlarge about a point, given as shares of the pane.
  scale(factor, atX = 0.5, atY = 0.5) {
    const bound = clamp(factor, 1 / this.zoom, this.most / this.zoom);
    const w = this.w / bound;
    const h = this.stretch ? this.h : this.h / bound;
    this.set(this.x + (this.w - w) * atX, this.y + (this.h - h) * atY, w, h);
  }

  move(dx, dy) {
    this.set(this.x + dx * this.w, this.y + (this.stretch ? 0 : dy * this.h), this.w, this.h);
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      for (const pane of this.panes) pane.draw();
    });
  }
}

// Round numbers within a range.
function ticks(low, high, most) {
  const rough = (high - low) / Math.max(most, 1);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  return found;
}

// Logarithms (base 10) of round numbers within a range of logarithms.
function logTicks(low, high, most) {
  if (high - low < 0.7) return ticks(10 ** low, 10 ** high, most).map(Math.log10);
  const found = [];
  for (let k = Math.floor(low); k <= high; k++) {
    for (const v of [k, k + Math.log10(2), k + Math.log10(5)]) if (v >= low && v <= high) found.push(v);
  }
  return found.length > 2 * most ? found.filter((v) => Number.isInteger(v)) : found;
}

// A canvas on a view. `paint(context, box, pane)` draws; options: label, ratio (width over height)
// (and the most of the window's height that it takes, in %) or height in pixels, axes {x, y: [low, high, name]} over the whole view ([log10 low, log10 high, name, true] too), bar, pick(x, y), over.
class Pane {
  constructor(view, paint, options) {
    Object.assign(this, { view, paint, options });
    const { label, ratio, height, bar, axes } = options;
    const size = ratio ? `aspect-ratio: ${ratio}; max-width: calc(${options.tall || 85}vh * ${ratio})` : `height: ${height}px`;
    this.canvas = make("canvas", {
      role: "img", tabindex: 0, "aria-label": label, style: size,
      class: axes ? "framed" : options.clear ? "clear" : null,
    });
    this.caption = options.bare ? null : make("figcaption", {}, label);
    this.bar = bar ? make("div", { class: "bar" }, make("span", {}, bar.low),
      make("i", { style: gradient(bar.map) }), make("span", {}, bar.high)) : null;
    this.figure = make("figure", {}, this.canvas, this.caption, this.bar);
    view.panes.push(this);
    this.listen();
    new ResizeObserver(() => view.redraw()).observe(this.canvas);
    this.canvas.addEventListener("recolour", () => view.redraw());
  }

  // Another label, and other ends of the bar.
  relabel(label, bar) {
    this.canvas.setAttribute("aria-label", label);
    if (this.caption) this.caption.textContent = label;
    if (this.bar && bar) {
      this.bar.firstChild.textContent = bar.low;
      this.bar.lastChild.textContent = bar.high;
    }
  }

  get box() {
    const axes = this.options.axes;
    const [left, bottom] = axes ? [56, 34] : [0, 0];
    const { clientWidth, clientHeight } = this.canvas;
    const top = axes ? 6 : 0;
    return { x: left, y: top, w: Math.max(1, clientWidth - left - (axes ? 8 : 0)),
      h: Math.max(1, clientHeight - bottom - top) };
  }

  draw() {
    const { canvas, view } = this;
    if (!canvas.clientWidth) return;
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * dense);
    canvas.height = Math.round(canvas.clientHeight * dense);
    const context = canvas.getContext("2d");
    context.scale(dense, dense);
    const box = this.box;
    context.save();
    context.beginPath();
    context.rect(box.x, box.y, box.w, box.h);
    context.clip();
    this.paint(context, box, this);
    if (view.marker != null) {
      context.fillStyle = style("--c2", canvas);
      context.fillRect(box.x + ((view.marker - view.x) / view.w) * box.w - 0.75, box.y, 1.5, box.h);
    }
    context.restore();
    if (this.options.axes) this.frame(context, box, this.options.axes);
    canvas.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
  }

  frame(context, box, axes) {
    const { view } = this;
    const part = ([low, high], start, length, whole) =>
      [start, start + length].map((v) => low + (v / whole) * (high - low));
    const xs = part(axes.x, view.x, view.w, view.width);
    // the lattice's first row is at the top
    const ys = part(axes.y, view.height - view.y - view.h, view.h, view.height);
    context.strokeStyle = style("--line", this.canvas);
    context.fillStyle = style("--soft", this.canvas);
    context.font = "11px system-ui, sans-serif";
    context.strokeRect(box.x, box.y, box.w, box.h);
    context.textAlign = "center";
    const [, , , log] = axes.x;
    const [, , , logY] = axes.y;
    for (const v of log ? logTicks(...xs, box.w / 80) : ticks(...xs, box.w / 80)) {
      const x = box.x + ((v - xs[0]) / (xs[1] - xs[0])) * box.w;
      context.fillRect(x, box.y + box.h, 1, 4);
      context.fillText(text(log ? 10 ** v : v), clamp(x, box.x + 8, box.x + box.w - 8), box.y + box.h + 15);
    }
    context.fillText(axes.x[2], box.x + box.w / 2, box.y + box.h + 29);
    context.textAlign = "right";
    for (const v of logY ? logTicks(...ys, box.h / 28) : ticks(...ys, box.h / 28)) {
      const y = box.y + box.h - ((v - ys[0]) / (ys[1] - ys[0])) * box.h;
      context.fillRect(box.x - 4, y, 4, 1);
      context.fillText(text(logY ? 10 ** v : v), box.x - 7, clamp(y + 4, box.y + 8, box.y + box.h));
    }
    context.save();
    context.translate(11, box.y + box.h / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(axes.y[2], 0, 0);
    context.restore();
  }

  // Shares of the box under a pointer.
  share(event) {
    const place = this.canvas.getBoundingClientRect();
    const box = this.box;
    return [(event.clientX - place.left - box.x) / box.w, (event.clientY - place.top - box.y) / box.h];
  }

  // Place in the view's units.
  at([x, y]) {
    return [this.view.x + x * this.view.w, this.view.y + y * this.view.h];
  }

  listen() {
    const { canvas, view, options } = this;
    const held = new Map();
    let moved = 0;
    let grip = null;
    canvas.addEventListener("pointerdown", (event) => {
      held.set(event.pointerId, this.share(event));
      moved = 0;
      grip = held.size === 1 && options.grip ? options.grip(this.share(event), this) : null;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = this.share(event);
      if (options.over) options.over(this.at(now), this);
      const last = held.get(event.pointerId);
      if (!last) return;
      moved += Math.abs(now[0] - last[0]) + Math.abs(now[1] - last[1]);
      held.set(event.pointerId, now);
      if (grip) grip(now);
      else if (held.size === 1) view.move(last[0] - now[0], last[1] - now[1]);
      else {
        const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
        const apart = (p) => Math.hypot((p[0] - other[0]) * this.box.w, (p[1] - other[1]) * this.box.h);
        const factor = apart(now) / Math.max(1, apart(last));
        view.scale(factor, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      }
    });
    const release = (event) => {
      if (event.type === "pointerup" && held.size === 1 && moved < 0.01 && options.pick && !grip) {
        options.pick(this.at(this.share(event)), this);
      }
      held.delete(event.pointerId);
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("dblclick", () => view.reset());
    canvas.addEventListener("wheel", (event) => {
      // elsewhere the wheel scrolls the page
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      view.scale(1.0015 ** -event.deltaY, ...this.share(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
      if (event.key === "+" || event.key === "=") view.scale(1.5);
      else if (event.key === "-") view.scale(1 / 1.5);
      else if (event.key === "0") view.reset();
      else if (event.key in steps) view.move(...steps[event.key]);
      else return;
      event.preventDefault();
    });
  }
}

// Buttons that zoom a view.
function zoomer(view) {
  const button = (label, name, act) =>
    make("button", { type: "button", "aria-label": label, title: label, onclick: act }, name);
  return make("fieldset", { role: "group", "aria-label": "zoom" },
    button("zoom out", "−", () => view.scale(1 / 1.5)),
    button("zoom in", "+", () => view.scale(1.5)),
    button("show all", "all", () => view.reset()));
}

// Draw the part of a picture that a view shows; `size` is that of the picture in the view's units.
function drawPicture(context, box, view, picture, smooth = false) {
  const width = picture.naturalWidth || picture.width;
  const height = picture.naturalHeight || picture.height;
  if (!width || !height) return;
  const sx = width / view.width;
  const sy = height / view.height;
  context.imageSmoothingEnabled = smooth || box.w < view.w * sx;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, view.x * sx, view.y * sy, view.w * sx, view.h * sy,
    box.x, box.y, box.w, box.h);
}

function start() {
  for (const element of document.querySelectorAll("[data-widget]")) {
    const data = JSON.parse(element.querySelector("script").textContent);
    Promise.resolve(widgets[element.dataset.widget](element, data)).then(
      () => { element.dataset.ready = "yes"; },
      (error) => { element.append(make("p", { class: "note", role: "alert" }, `Not shown: ${error.message}`)); throw error; });
  }
}
document.addEventListener("DOMContentLoaded", start);
