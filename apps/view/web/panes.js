// Pictures on one view: side by side or one over the other, with a stack of frames where there is one.

// What must stay for new pictures to take the place of old ones.
function structureOfPanes(data) {
  return [data.size, data.aspect, data.clear, data.compare, Boolean(data.axes), data.stack,
    data.panes.map(({ name, smooth, frames, bar }) => [name, smooth, frames.length, bar && bar.map])];
}

widgets.panes = async (root, data) => {
  const [width, height] = data.size;
  const view = new View(width, height, { stretch: Boolean(data.axes) });
  const frames = data.panes[0].frames.length;
  const state = { frame: 0, split: 0.5, pair: data.compare || [0, 0], playing: 0 };
  let pictures = data.panes.map((pane) => pane.frames.map(() => null));
  const last = data.panes.map(() => null);

  // decoded when first shown: a clip has many
  const picture = (i) => {
    const k = Math.min(state.frame, data.panes[i].frames.length - 1);
    if (!pictures[i][k]) {
      const image = new Image();
      image.onload = () => view.redraw();
      image.src = data.panes[i].frames[k];
      pictures[i][k] = image;
    }
    return pictures[i][k];
  };
  // until it is there, what was shown before
  const shown = (i) => {
    const wanted = picture(i);
    if (wanted.naturalWidth) last[i] = wanted;
    return last[i] || wanted;
  };
  const ratio = width / (height * (data.aspect || 1));
  const shape = data.axes ? { height: 210, axes: data.axes } : { ratio };
  const where = make("output", { "aria-live": "off" }, "");
  const over = ([x, y]) => {
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    where.textContent = inside && !data.axes ? `x ${Math.floor(x)}, y ${Math.floor(y)}` : "";
  };
  const panes = data.panes.map((pane, i) => new Pane(view,
    (context, box) => drawPicture(context, box, view, shown(i), pane.smooth),
    { label: pane.label, bar: pane.bar, clear: data.clear, over, ...shape }));
  const grid = make("div", { class: data.axes ? "panes wide" : panes.length % 2 ? "panes" : "panes even" }, ...panes.map((p) => p.figure));

  const tools = make("div", { class: "tools" });
  const parts = [tools, grid];
  if (data.compare) {
    const split = slider("divider", { min: 0, max: 1, step: 0.005, value: 0.5 },
      (v) => `${Math.round(100 * v)} %`, (v) => { state.split = v; view.redraw(); });
    const both = new Pane(view, (context, box) => {
      const edge = box.x + state.split * box.w;
      state.pair.forEach((i, side) => {
        context.save();
        context.beginPath();
        context.rect(side ? edge : box.x, box.y, side ? box.x + box.w - edge : edge - box.x, box.h);
        context.clip();
        drawPicture(context, box, view, shown(i), data.panes[i].smooth);
        context.restore();
      });
      context.fillStyle = "#fff";
      context.fillRect(edge - 1, box.y, 2, box.h);
      context.fillStyle = "#0009";
      context.fillRect(edge - 2, box.y, 1, box.h);
      context.fillRect(edge + 1, box.y, 1, box.h);
    }, {
      label: "before and after", ratio, bare: true, clear: data.clear, over,
      grip: ([x], pane) => Math.abs(x - state.split) * pane.box.w < 24 && (([now]) => {
        state.split = clamp(now, 0, 1);
        split.set(state.split);
        view.redraw();
      }),
    });
    const names = data.panes.map((pane) => pane.name);
    const pick = (label, side) => select(label, names, state.pair[side], (i) => {
      state.pair[side] = i;
      view.redraw();
    });
    const compare = make("div", { hidden: true },
      make("div", { class: "tools" }, pick("left", 0), split, pick("right", 1)), both.figure);
    parts.push(compare);
    tools.append(choice("layout", ["Side by side", "Before / after"], 0, (i) => {
      grid.hidden = i === 1;
      compare.hidden = i === 0;
      view.redraw();
    }));
  }
  tools.append(zoomer(view));
  if (frames > 1) {
    const stack = data.stack;
    const show = (k) => stack.names ? stack.names[k] : String(k);
    const go = (k) => { state.frame = k; view.redraw(); };
    const bar = slider(stack.label, { min: 0, max: frames - 1, step: 1, value: 0 }, show, go);
    if (stack.fps) {
      const play = make("button", { type: "button", onclick: () => {
        state.playing = state.playing ? (clearInterval(state.playing), 0) : setInterval(() => {
          go((state.frame + 1) % frames);
          bar.set(state.frame);
        }, 1000 / stack.fps);
        play.textContent = state.playing ? "Pause" : "Play";
      } }, "Play");
      tools.append(play);
    }
    tools.append(bar);
  }
  tools.append(where);
  root.append(...parts);
  await Promise.all(data.panes.map((pane, i) => picture(i).decode()));
  view.redraw();
  return {
    update: (fresh) => {
      if (!alike(structureOfPanes(fresh), structureOfPanes(data))) return false;
      pictures = fresh.panes.map((pane, i) => pane.frames.map((frame, k) =>
        (frame === data.panes[i].frames[k] ? pictures[i][k] : null)));
      data = fresh;
      panes.forEach((pane, i) => {
        pane.relabel(fresh.panes[i].label, fresh.panes[i].bar);
        if (fresh.axes) pane.options.axes = fresh.axes;
      });
      view.redraw();
      return true;
    },
    close: () => clearInterval(state.playing),
  };
};
