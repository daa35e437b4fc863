// Quality while something is fitted. The value: {series: [{name, points: [[step, seconds, psnr, loss]]}],
// marks: [{step, seconds, label}]}; `packed`, float32 in base64, may stand for `points`.

const ACROSS = 1000; // of the view, in its own units
const STEP = 0;
const SECONDS = 1;
const COLUMNS = [["PSNR", 2, "PSNR, dB", false], ["Loss", 3, "loss", true]];

// Four numbers a point, in columns.
function columnsOf(one) {
  const rows = one.packed
    ? new Float32Array(bytes(one.packed).buffer)
    : Float64Array.from((one.points || []).flatMap((point) => [0, 1, 2, 3].map((k) => point[k] ?? NaN)));
  return [0, 1, 2, 3].map((k) => Float64Array.from({ length: rows.length / 4 }, (_, i) => rows[4 * i + k]));
}

// A running mean that forgets; the first values are not drawn towards 0.
function smoothed(values, share) {
  if (!share) return values;
  let mean = 0;
  let weight = 0;
  return values.map((v) => {
    if (!Number.isFinite(v)) return v;
    mean = share * mean + (1 - share) * v;
    weight = share * weight + (1 - share);
    return mean / weight;
  });
}

studio.chart = ({ element, props, watch }) => {
  const root = mounted(element);
  const state = { measure: 0, axis: SECONDS, log: false, smooth: 0, hidden: new Set(), series: [], marks: [], plot: null };
  const view = new View(ACROSS, 1, { stretch: true, least: ACROSS / 1000 });
  const told = make("output", { "aria-live": "off" });
  const latest = make("output", { class: "inr-sr", "aria-live": "off" });
  const keys = make("div", { class: "legend" });

  const layOut = () => {
    const [, column, name, logY] = COLUMNS[state.measure];
    const across = (v) => (state.log ? (v > 0 ? Math.log10(v) : NaN) : v);
    const up = (v) => (logY ? (v > 0 ? Math.log10(v) : NaN) : v);
    const lines = state.series.filter((one) => !state.hidden.has(one.name)).map((one) => ({
      ...one, xs: one.columns[state.axis].map(across), raw: one.columns[column].map(up),
    })).map((one) => ({ ...one, ys: smoothed(one.raw, state.smooth) }));
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const { xs, raw } of lines) {
      for (let i = 0; i < xs.length; i++) {
        if (!Number.isFinite(xs[i]) || !Number.isFinite(raw[i])) continue;
        left = Math.min(left, xs[i]);
        right = Math.max(right, xs[i]);
        low = Math.min(low, raw[i]);
        high = Math.max(high, raw[i]);
      }
    }
    if (left > right) [left, right, low, high] = [0, 1, 0, 1];
    else if (!state.log) left = Math.min(left, 0);
    if (left === right) right = left + 1;
    const room = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
    const title = state.axis === SECONDS ? "seconds" : "steps";
    state.plot = { lines, left, right, low: low - room, high: high + room, across };
    pane.options.axes = { x: [left, right, title, state.log], y: [low - room, high + room, name, logY] };
    pane.relabel(`${name} over ${title}`, null);
  };
  // a place in the view's units to one on the canvas and back
  const toX = (box, x) => {
    const { left, right } = state.plot;
    return box.x + ((((x - left) / (right - left)) * ACROSS - view.x) / view.w) * box.w;
  };
  const drawLine = (context, box, xs, ys) => {
    const { low, high } = state.plot;
    context.beginPath();
    let down = false;
    let lastX = -Infinity;
    for (let i = 0; i < xs.length; i++) {
      const known = Number.isFinite(xs[i]) && Number.isFinite(ys[i]);
      if (!known) { down = false; continue; }
      const x = toX(box, xs[i]);
      // half a pixel apart at least, but for the last
      if (down && x - lastX < 0.5 && i < xs.length - 1) continue;
      const y = box.y + box.h - ((ys[i] - low) / (high - low)) * box.h;
      if (down) context.lineTo(x, y);
      else context.moveTo(x, y);
      down = true;
      lastX = x;
    }
    context.stroke();
  };
  const pane = new Pane(view, (context, box) => {
    if (!state.plot) return;
    context.lineJoin = "round";
    context.fillStyle = context.strokeStyle = style("--soft", context.canvas);
    context.font = "11px system-ui, sans-serif";
    for (const one of state.marks) {
      const x = toX(box, state.plot.across(state.axis === STEP ? one.step : one.seconds));
      if (!Number.isFinite(x)) continue;
      context.fillRect(x, box.y, 1, box.h);
      context.fillText(one.label || "", x + 4, box.y + 12);
    }
    for (const { colour, xs, ys, raw } of state.plot.lines) {
      context.strokeStyle = style(colour, context.canvas);
      context.lineWidth = 1.8;
      if (state.smooth) {
        context.globalAlpha = 0.3;
        drawLine(context, box, xs, raw);
        context.globalAlpha = 1;
      }
      drawLine(context, box, xs, ys);
    }
  }, {
    label: root.dataset.label, height: 260, bare: true, axes: { x: [0, 1, "seconds"], y: [0, 1, "PSNR, dB"] },
    over: ([x]) => {
      if (!state.plot) return;
      const { left, right, lines } = state.plot;
      const wanted = left + (x / ACROSS) * (right - left);
      told.textContent = lines.map(({ name, xs, columns }) => {
        let best = -1;
        for (let i = 0; i < xs.length; i++) {
          if (Number.isFinite(xs[i]) && (best < 0 || Math.abs(xs[i] - wanted) < Math.abs(xs[best] - wanted))) best = i;
        }
        return best < 0 ? `${name}: –` : figures(name, columns, best);
      }).join("; ");
    },
  });
  const figures = (name, columns, i) => {
    const [step, seconds, psnr, loss] = columns.map((column) => column[i]);
    return `${name}: step ${step}, ${text(seconds)} s` +
      (Number.isFinite(psnr) ? `, PSNR ${psnr.toFixed(2)} dB` : "") + (Number.isFinite(loss) ? `, loss ${text(loss)}` : "");
  };

  const update = () => {
    // what is looked at stays where it is while the axes grow
    const before = state.plot && view.zoom > 1
      ? [view.x, view.x + view.w].map((x) => state.plot.left + (x / ACROSS) * (state.plot.right - state.plot.left)) : null;
    layOut();
    if (before) {
      const { left, right } = state.plot;
      const [from, to] = before.map((x) => ((x - left) / (right - left)) * ACROSS);
      view.set(from, 0, to - from, 1);
    }
    view.redraw();
  };
  const change = (key) => (i) => {
    state[key] = i;
    view.reset();
    layOut();
  };
  const take = () => {
    const value = props.value || {};
    const names = state.series.map((one) => one.name);
    state.series = (value.series || []).map((one, i) => ({ name: one.name, colour: `--c${(i % 5) + 1}`, columns: columnsOf(one) }));
    state.marks = (value.marks || []).map((one) => ({ ...one }));
    if (!alike(names, state.series.map((one) => one.name))) {
      keys.replaceChildren(...state.series.map(({ name, colour }) => make("label", {},
        make("input", { type: "checkbox", checked: !state.hidden.has(name), onchange: (event) => {
          if (event.target.checked) state.hidden.delete(name);
          else state.hidden.add(name);
          update();
        } }), make("i", { style: `background: var(${colour})` }), name)));
      view.reset();
      state.plot = null;
    }
    latest.textContent = state.series.filter(({ columns }) => columns[0].length)
      .map(({ name, columns }) => figures(name, columns, columns[0].length - 1)).join("; ");
    update();
    ready(root);
  };
  root.replaceChildren(
    make("div", { class: "tools" },
      choice("measure", COLUMNS.map(([name]) => name), 0, change("measure")),
      choice("axis", ["Seconds", "Steps"], 0, (i) => change("axis")(i === 0 ? SECONDS : STEP)),
      make("label", {}, make("input", { type: "checkbox", onchange: (event) => change("log")(event.target.checked) }), "logarithmic"),
      slider("smoothing", { min: 0, max: 0.99, step: 0.01, value: 0 }, (v) => v.toFixed(2),
        (v) => { state.smooth = v; update(); }),
      zoomer(view)),
    keys, pane.figure, told, latest);
  watch("value", take);
  take();
};
