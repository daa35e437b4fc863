// Curves through points (x, y), one pane for each measure; x is positive.
// data: {x, measures: [name], codecs: [name], views: [{name, curves: [{codec, points: [[x, [y], label]]}]}]}

const REACH = 16; // pixels from a point within which it is told
const WIDTH = 1000; // of the view, in its own units

// Marks that differ without colour, each of about the same size.
function mark(context, shape, x, y) {
  const r = 4;
  const corners = [
    null,
    [[-r, -r], [r, -r], [r, r], [-r, r]],
    [[0, -r - 1], [r + 1, r], [-r - 1, r]],
    [[0, -r - 1], [r + 1, 0], [0, r + 1], [-r - 1, 0]],
    [[0, r + 1], [r + 1, -r], [-r - 1, -r]],
  ][shape % 5];
  context.beginPath();
  if (corners) {
    for (const [dx, dy] of corners) context.lineTo(x + dx, y + dy);
    context.closePath();
  } else context.arc(x, y, r, 0, 2 * Math.PI);
  if (shape >= 5) context.stroke();
  else context.fill();
}

function bounds(values, share) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = share * (high - low) || Math.abs(high) * share || 1;
  return [low - room, high + room];
}

widgets.curves = (root, data) => {
  const colours = new Map(data.codecs.map((name, i) => [name, { colour: `--c${(i + 1) % 6}`, shape: i }]));
  const hidden = new Set();
  let shown = 0;
  let log = true;
  const panes = make("div", { class: `panes ${data.measures.length > 1 ? "even" : "wide"}` });
  const told = make("output", { "aria-live": "polite" }, "Point at a mark to read it.");
  const tools = make("div", { class: "tools" });

  // of a measure's pane what `paint` and `over` need, made anew when the data change
  let view = null;
  let plots = [];
  const place = (x) => (log ? Math.log10(x) : x);
  const measure = () => {
    const { curves } = data.views[shown];
    const all = curves.flatMap((curve) => curve.points);
    const [left, right] = bounds(all.length ? all.map(([x]) => place(x)) : [0, 1], 0.04);
    return data.measures.map((name, k) => {
      const known = all.map(([, ys]) => ys[k]).filter((y) => y != null);
      const [low, high] = bounds(known.length ? known : [0, 1], 0.06);
      return { curves, left, right, low, high, axes: { x: [left, right, data.x, log], y: [low, high, name] } };
    });
  };
  const visible = (box, k) => {
    const { curves, left, right, low, high } = plots[k];
    const across = (x) => box.x + ((((place(x) - left) / (right - left)) * WIDTH - view.x) / view.w) * box.w;
    const up = (y) => box.y + (1 - (y - low) / (high - low)) * box.h;
    return curves.filter(({ codec }) => !hidden.has(codec)).map(({ codec, points }) => ({
      codec,
      ...colours.get(codec),
      spots: points.filter(([, ys]) => ys[k] != null)
        .map(([x, ys, label]) => ({ at: [across(x), up(ys[k])], x, y: ys[k], label })),
    }));
  };

  const build = () => {
    view = new View(WIDTH, 1, { stretch: true, least: WIDTH / 50 });
    plots = measure();
    const figures = data.measures.map((name, k) => {
      const pane = new Pane(view, (context, box) => {
        context.lineWidth = 1.6;
        for (const { colour, shape, spots } of visible(box, k)) {
          context.strokeStyle = context.fillStyle = style(colour, context.canvas);
          context.beginPath();
          for (const { at } of spots) context.lineTo(...at);
          context.stroke();
          for (const { at } of spots) mark(context, shape, ...at);
        }
      }, {
        label: `${name} over ${data.x}, ${data.views[shown].name}`, height: 380, bare: true,
        axes: plots[k].axes,
        over: ([x, y]) => {
          const { box } = pane;
          const [px, py] = [box.x + ((x - view.x) / view.w) * box.w, box.y + y * box.h];
          let best = REACH;
          for (const { codec, spots } of visible(box, k)) {
            for (const spot of spots) {
              const away = Math.hypot(spot.at[0] - px, spot.at[1] - py);
              if (away >= best) continue;
              best = away;
              told.textContent = `${codec}, ${spot.label}: ${text(spot.x)} ${data.x}, ${name} ${text(spot.y)}`;
            }
          }
        },
      });
      return pane.figure;
    });
    const keys = data.codecs.map((name) => {
      const sample = make("canvas", { width: 22, height: 12, "aria-hidden": "true" });
      const context = sample.getContext("2d");
      const { colour, shape } = colours.get(name);
      const draw = () => {
        context.clearRect(0, 0, 22, 12);
        context.strokeStyle = context.fillStyle = style(colour, root);
        mark(context, shape, 11, 6);
      };
      sample.addEventListener("recolour", draw);
      draw();
      return make("label", {}, make("input", { type: "checkbox", checked: !hidden.has(name),
        onchange: (event) => {
          if (event.target.checked) hidden.delete(name);
          else hidden.add(name);
          view.redraw();
        } }), sample, name);
    });
    tools.replaceChildren(
      data.views.length > 1 ? select("files", data.views.map((v) => v.name), shown, (i) => { shown = i; build(); }) : "",
      choice("scale of sizes", ["logarithmic", "linear"], log ? 0 : 1, (i) => { log = i === 0; build(); }),
      zoomer(view), make("div", { class: "legend" }, ...keys));
    panes.replaceChildren(...figures);
  };
  build();
  root.append(tools, panes, told);
  return {
    update: (fresh) => {
      const structure = (one) => [one.x, one.measures, one.codecs, one.views.map(({ name }) => name)];
      if (!alike(structure(fresh), structure(data))) return false;
      data = fresh;
      plots = measure();
      view.panes.forEach((pane, k) => { pane.options.axes = plots[k].axes; });
      view.redraw();
      return true;
    },
  };
};
