// Slices of a lattice of three axes (of one slice: a plane) under one window of values.
//
// data.shape: samples per axis; data.spacing: their distances; data.names: of the axes;
// data.planes: names of the slices across them.
// data.signals: [{name, channels: [numbers], low, high, levels, map, shown}], values being
// low + n / levels * (high - low) for a stored n of 0 to levels. Those without `shown`, the values
// at the ends of the map, follow the window.
widgets.slices = async (root, data) => {
  const [depth, height, width] = data.shape;
  const strides = [height * width, width, 1];
  const state = { at: data.shape.map((n) => n >> 1), channel: 0, window: [...data.window], moved: false };
  const unpack = (all) => Promise.all(all.map(async (one) => ({
    ...one, colours: table(one.map), lattices: await Promise.all(one.channels.map(numbers)),
  })));
  const structure = (one) => [one.shape, one.spacing, one.names, one.planes,
    one.signals.map((s) => [s.name, s.channels.length, Boolean(s.shown), s.map])];
  let signals = await unpack(data.signals);
  const value = (one, n) => one.low + (n / one.levels) * (one.high - one.low);

  // axes of a plane: [that of the slice, down, right]
  const planes = depth === 1 ? [[0, 1, 2]] : [[0, 1, 2], [1, 0, 2], [2, 0, 1]];
  const views = planes.map(([, down, right]) => new View(data.shape[right], data.shape[down]));
  const redraw = () => views.forEach((view) => view.redraw());

  const slice = (one, [axis, down, right], scratch) => {
    const [rows, columns] = [data.shape[down], data.shape[right]];
    scratch.width = columns;
    scratch.height = rows;
    const context = scratch.getContext("2d");
    const image = context.createImageData(columns, rows);
    const lattice = one.lattices[Math.min(state.channel, one.lattices.length - 1)];
    const [low, high] = one.shown || state.window;
    // the window in stored numbers
    const unit = one.levels / (one.high - one.low || 1);
    const from = (low - one.low) * unit;
    const gain = 255 / Math.max((high - low) * unit, 1e-9);
    let k = 0;
    for (let i = 0; i < rows; i++) {
      let place = state.at[axis] * strides[axis] + i * strides[down];
      for (let j = 0; j < columns; j++, place += strides[right]) {
        const c = 3 * clamp(Math.round((lattice[place] - from) * gain), 0, 255);
        image.data[k++] = one.colours[c];
        image.data[k++] = one.colours[c + 1];
        image.data[k++] = one.colours[c + 2];
        image.data[k++] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    return scratch;
  };

  const where = make("output", {}, "");
  const sliders = [];
  const say = (place) => {
    const index = place.reduce((sum, n, axis) => sum + n * strides[axis], 0);
    const told = signals.map((one) =>
      `${one.name} ${text(value(one, one.lattices[Math.min(state.channel, one.lattices.length - 1)][index]))}`);
    where.textContent = `(${place.map((n, a) => n + (data.first ? data.first[a] : 0)).join(", ")}): ${told.join(", ")}`;
  };
  const rows = signals.map((one, s) => planes.map((plane, p) => {
    const [axis, down, right] = plane;
    const scratch = document.createElement("canvas");
    const ratio = (data.shape[right] * data.spacing[right]) / (data.shape[down] * data.spacing[down]);
    const place = ([x, y]) => {
      const at = [...state.at];
      at[down] = clamp(Math.floor(y), 0, data.shape[down] - 1);
      at[right] = clamp(Math.floor(x), 0, data.shape[right] - 1);
      return at;
    };
    const pick = (point) => {
      state.at = place(point);
      sliders.forEach((bar, i) => bar.set(state.at[i]));
      say(state.at);
      redraw();
    };
    const label = depth === 1 ? one.name : `${one.name}, ${data.planes[axis]}`;
    const bar = one.shown && p === 0
      ? { map: one.map, low: text(one.shown[0]), high: text(one.shown[1]) } : null;
    return new Pane(views[p], (context, box, pane) => {
      const view = views[p];
      drawPicture(context, box, view, slice(signals[s], plane, scratch));
      if (depth === 1) return;
      context.fillStyle = "#ffb00099";
      context.fillRect(box.x + ((state.at[right] + 0.5 - view.x) / view.w) * box.w, box.y, 1, box.h);
      context.fillRect(box.x, box.y + ((state.at[down] + 0.5 - view.y) / view.h) * box.h, box.w, 1);
    }, { label, ratio: clamp(ratio, 0.25, 6), tall: depth === 1 ? 85 : 48, bar,
      pick: depth === 1 ? null : pick, over: (point) => say(place(point)) });
  }));

  const tools = make("div", { class: "tools" });
  if (depth > 1) {
    data.shape.forEach((n, axis) => {
      const bar = slider(data.names[axis], { min: 0, max: n - 1, step: 1, value: state.at[axis] },
        (k) => String(k), (k) => { state.at[axis] = k; redraw(); });
      sliders.push(bar);
      tools.append(bar);
    });
  }
  if (signals[0].lattices.length > 1) {
    const names = signals[0].lattices.map((_, i) => String(i));
    tools.append(select("channel", names, 0, (i) => { state.channel = i; redraw(); }));
  }
  const { low, high } = signals[0];
  const edge = (label, side) => slider(label, { min: low, max: high, step: "any", value: state.window[side] },
    text, (v) => {
      state.window[side] = v;
      state.moved = true;
      const step = (signals[0].high - signals[0].low) / 500 || 1;
      if (state.window[1] - state.window[0] < step) state.window[side] = state.window[1 - side] + (side ? step : -step);
      redraw();
    });
  const edges = [edge("darkest at", 0), edge("brightest at", 1)];
  const windows = make("div", { class: "tools" }, ...edges);
  for (const view of views) if (planes.length === 1) windows.append(zoomer(view));
  root.append(tools, windows, where);
  const layout = depth === 1 ? "panes" : "panes three";
  const figures = rows.flat().map((pane) => pane.figure);
  root.append(make("div", { class: layout }, ...figures),
    depth === 1 ? "" : make("p", { class: "hint" }, "Click a slice to move the other two."));
  redraw();
  return {
    update: async (fresh) => {
      if (!alike(structure(fresh), structure(data))) return false;
      signals = await unpack(fresh.signals);
      if (!state.moved) state.window = [...fresh.window]; // else it stays as it was set
      edges.forEach((bar, side) => {
        bar.bound(Math.min(signals[0].low, state.window[0]), Math.max(signals[0].high, state.window[1]));
        bar.set(state.window[side]);
      });
      rows.forEach((row, s) => row.forEach((pane, p) => {
        const { shown } = signals[s];
        pane.relabel(pane.options.label, shown && p === 0 ? { low: text(shown[0]), high: text(shown[1]) } : null);
      }));
      redraw();
      return true;
    },
  };
};
