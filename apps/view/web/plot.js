// Curves over a common axis. A series is {name, values, colour}; y is over the whole of them.

// Draw samples 0, 1, ... of a curve; where several fall on a pixel, the stretch from least to most.
function drawCurve(context, box, view, values, low, high, step) {
  const y = (v) => box.y + box.h - ((v - low) / (high - low)) * box.h;
  const x = (i) => box.x + (((i + 0.5) * step - view.x) / view.w) * box.w;
  const first = Math.max(0, Math.floor(view.x / step) - 1);
  const last = Math.min(values.length, Math.ceil((view.x + view.w) / step) + 2);
  context.beginPath();
  if (last - first < 3 * box.w) {
    let down = false;
    for (let i = first; i < last; i++) {
      if (Number.isFinite(values[i])) {
        if (down) context.lineTo(x(i), y(values[i]));
        else context.moveTo(x(i), y(values[i]));
      }
      down = Number.isFinite(values[i]);
    }
    context.stroke();
    if (last - first < box.w / 8) {
      for (let i = first; i < last; i++) context.fillRect(x(i) - 1.5, y(values[i]) - 1.5, 3, 3);
    }
    return;
  }
  for (let column = 0; column < box.w; column++) {
    const from = Math.max(0, Math.floor((view.x + (column / box.w) * view.w) / step));
    const to = Math.min(values.length, Math.ceil((view.x + ((column + 1) / box.w) * view.w) / step));
    let least = Infinity;
    let most = -Infinity;
    for (let i = from; i < to; i++) {
      if (values[i] < least) least = values[i];
      if (values[i] > most) most = values[i];
    }
    if (most < least) continue;
    context.moveTo(box.x + column + 0.5, Math.min(y(most), y(least) - 1));
    context.lineTo(box.x + column + 0.5, y(least));
  }
  context.stroke();
}

function range(series) {
  let low = Infinity;
  let high = -Infinity;
  for (const { values } of series) {
    for (const v of values) {
      if (v < low) low = v;
      if (Number.isFinite(v) && v > high) high = v;
    }
  }
  const room = 0.05 * (high - low) || Math.abs(high) || 1;
  return [low - room, high + room];
}

// A pane of curves with a legend that hides them. `extent` is [start, end, name] of the x axis.
// `pane.refresh(extent)` follows values that were exchanged in the series.
function plotPane(view, series, { label, extent, unit, pick = null, height = 220 }) {
  let [low, high] = range(series);
  const hidden = new Set();
  const length = Math.max(...series.map((s) => s.values.length));
  const pane = new Pane(view, (context, box) => {
    context.lineWidth = 1.2;
    context.globalAlpha = 0.85; // what lies below stays seen
    for (const one of series) {
      if (hidden.has(one)) continue;
      context.strokeStyle = context.fillStyle = style(one.colour, context.canvas);
      drawCurve(context, box, view, one.values, low, high, view.width / length);
    }
  }, { label, height, pick, bare: true, axes: { x: extent, y: [low, high, unit] } });
  const keys = series.map((one) => make("label", {},
    make("input", { type: "checkbox", checked: true, onchange: (event) => {
      if (event.target.checked) hidden.delete(one);
      else hidden.add(one);
      view.redraw();
    } }),
    make("i", { style: `background: var(${one.colour})` }), one.name));
  pane.figure.prepend(make("div", { class: "legend" }, ...keys));
  pane.refresh = (newExtent) => {
    [low, high] = range(series);
    pane.options.axes = { x: newExtent, y: [low, high, unit] };
  };
  return pane;
}

widgets.plot = async (root, data) => {
  const structure = (one) => [one.label, one.y, one.series.map((s, i) => [s.name, s.colour ?? i, s.group || 0])];
  const series = await Promise.all(data.series.map(async (one, i) =>
    ({ name: one.name, colour: `--c${(one.colour ?? i) % 6}`, values: await numbers(one.values) })));
  const groups = new Map();
  data.series.forEach((one, i) => {
    groups.set(one.group || 0, [...(groups.get(one.group || 0) || []), series[i]]);
  });
  const view = new View(Math.max(...series.map((s) => s.values.length)), 1, { stretch: true });
  const panes = [...groups.values()].map((group) =>
    plotPane(view, group, { label: data.label, extent: data.x, unit: data.y }));
  root.append(make("div", { class: "tools" }, zoomer(view)),
    make("div", { class: "panes wide" }, ...panes.map((pane) => pane.figure)));
  return {
    update: async (fresh) => {
      if (!alike(structure(fresh), structure(data))) return false;
      const values = await Promise.all(fresh.series.map((one) => numbers(one.values)));
      if (values.some((one, i) => one.length !== series[i].values.length)) return false;
      values.forEach((one, i) => { series[i].values = one; });
      panes.forEach((pane) => pane.refresh(fresh.x));
      view.redraw();
      return true;
    },
  };
};
