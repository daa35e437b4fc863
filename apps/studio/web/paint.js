// A brush over a picture: what it paints is unknown. The value: {id, picture, size: [h, w], mask},
// the mask a PNG of that size, white where the picture is known; null where all of it is.

const REDNESS = 150; // opacity of what is unknown, of 255

class Mask {
  constructor(height, width) {
    Object.assign(this, { height, width, dark: new Uint8Array(height * width) });
    this.canvas = make("canvas");
    Object.assign(this.canvas, { width, height });
    this.context = this.canvas.getContext("2d");
  }

  // All within `radius` of the way from one point to another, both in pixels.
  stroke([x0, y0], [x1, y1], radius, value) {
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
    const right = Math.min(this.width - 1, Math.ceil(Math.max(x0, x1) + radius));
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
    const bottom = Math.min(this.height - 1, Math.ceil(Math.max(y0, y1) + radius));
    const [dx, dy] = [x1 - x0, y1 - y0];
    const long = dx * dx + dy * dy || 1;
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
        const t = clamp((px * dx + py * dy) / long, 0, 1);
        const away = (px - t * dx) ** 2 + (py - t * dy) ** 2;
        if (away <= radius * radius) this.dark[y * this.width + x] = value;
      }
    }
    // a brush below a pixel still paints the one under it
    const [x, y] = [Math.floor(x1), Math.floor(y1)];
    if (x >= 0 && y >= 0 && x < this.width && y < this.height) this.dark[y * this.width + x] = value;
    this.draw(left, top, right - left + 1, bottom - top + 1);
  }

  change(of) {
    for (let i = 0; i < this.dark.length; i++) this.dark[i] = of(this.dark[i]);
    this.draw(0, 0, this.width, this.height);
  }

  draw(x, y, w, h) {
    if (w <= 0 || h <= 0) return;
    const image = this.context.createImageData(w, h);
    for (let i = 0, k = 0; i < h; i++) {
      for (let j = 0; j < w; j++, k += 4) {
        if (!this.dark[(y + i) * this.width + x + j]) continue;
        image.data[k] = 225;
        image.data[k + 1] = 20;
        image.data[k + 2] = 30;
        image.data[k + 3] = REDNESS;
      }
    }
    this.context.putImageData(image, x, y);
  }

  // From a picture, which is dark where it is unknown.
  load(image) {
    const scratch = make("canvas");
    Object.assign(scratch, { width: this.width, height: this.height });
    const context = scratch.getContext("2d");
    context.drawImage(image, 0, 0, this.width, this.height);
    const { data } = context.getImageData(0, 0, this.width, this.height);
    for (let i = 0; i < this.dark.length; i++) this.dark[i] = data[4 * i] < 128 ? 1 : 0;
    this.draw(0, 0, this.width, this.height);
  }

  get share() {
    let sum = 0;
    for (let i = 0; i < this.dark.length; i++) sum += this.dark[i];
    return sum / this.dark.length;
  }
}

studio.paint = ({ element, props, watch, trigger }) => {
  const root = mounted(element);
  const state = { id: null, size: null, picture: null, shown: null, mask: null, radius: 0.04, erase: false, cursor: null, keys: false };
  const empty = make("p", { class: "inr-empty" }, root.dataset.empty);
  const canvas = make("canvas", { tabindex: 0, role: "application", class: "inr-paint-canvas",
    "aria-label": `${root.dataset.label}: drag to paint what is unknown; arrows move the brush, space paints` });
  const told = make("output", { "aria-live": "polite" });
  let pending = false;
  const redraw = () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(() => { pending = false; draw(); });
  };
  const draw = () => {
    if (!canvas.clientWidth || !state.size) return;
    const dense = window.devicePixelRatio || 1;
    const [height, width] = state.size;
    canvas.width = Math.round(canvas.clientWidth * dense);
    canvas.height = Math.round(canvas.clientHeight * dense);
    const context = canvas.getContext("2d");
    if (state.picture) {
      context.imageSmoothingEnabled = state.picture.naturalWidth > canvas.width;
      context.drawImage(state.picture, 0, 0, canvas.width, canvas.height);
    }
    context.imageSmoothingEnabled = false;
    context.drawImage(state.mask.canvas, 0, 0, canvas.width, canvas.height);
    if (!state.cursor) return;
    const [x, y] = state.cursor;
    const scale = canvas.width / width;
    context.beginPath();
    context.ellipse(x * scale, (y * canvas.height) / height, Math.max(2, brush() * scale),
      Math.max(2, (brush() * canvas.height) / height), 0, 0, 2 * Math.PI);
    for (const [line, colour] of [[3, "#000a"], [1.5, "#fff"]]) {
      context.lineWidth = line * dense;
      context.strokeStyle = colour;
      context.stroke();
    }
  };
  const brush = () => state.radius * 0.5 * Math.max(...state.size);
  const tell = () => {
    const share = state.mask.share;
    told.textContent = share ? `${text(100 * share)} % of the picture is unknown` : "Nothing is painted: all is known";
  };
  const commit = () => {
    const mask = state.mask.dark.some(Boolean) ? bitmapPng(state.mask.dark, ...state.size) : null;
    tell();
    state.shown = mask;
    if ((props.value.mask ?? null) !== mask) give(props, trigger, { ...props.value, mask });
  };
  const act = (change) => {
    if (!state.mask) return;
    state.mask.change(change);
    redraw();
    commit();
  };

  let last = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const [height, width] = state.size;
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  };
  const paintTo = (point) => {
    state.mask.stroke(last || point, point, brush(), state.erase ? 0 : 1);
    last = point;
    redraw();
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !state.mask) return;
    canvas.setPointerCapture(event.pointerId);
    last = null;
    paintTo(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!state.mask) return;
    state.cursor = place(event);
    if (last) for (const one of event.getCoalescedEvents?.() || [event]) paintTo(place(one));
    redraw();
  });
  const release = () => {
    if (!last) return;
    last = null;
    commit();
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { if (!last) { state.cursor = null; redraw(); } });
  canvas.addEventListener("blur", () => { release(); state.cursor = null; redraw(); });
  canvas.addEventListener("keydown", (event) => {
    if (!state.mask) return;
    const [height, width] = state.size;
    const step = Math.max(1, brush() / 2);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const at = state.cursor || [width / 2, height / 2];
    if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      state.cursor = [clamp(at[0] + dx, 0, width), clamp(at[1] + dy, 0, height)];
      if (last) paintTo(state.cursor);
    } else if (event.key === " ") {
      state.cursor = at;
      paintTo(at);
    } else return;
    event.preventDefault();
    redraw();
  });
  canvas.addEventListener("keyup", (event) => { if (event.key === " ") release(); });
  new ResizeObserver(redraw).observe(canvas);

  const tools = make("div", { class: "tools" },
    choice("tool", ["Brush", "Eraser"], 0, (i) => { state.erase = i === 1; }),
    slider("brush size", { min: 0.005, max: 0.3, step: 0.005, value: state.radius },
      (v) => `${text(100 * v)} %`, (v) => { state.radius = v; redraw(); }),
    press("Clear", () => act(() => 0)), press("Invert", () => act((dark) => 1 - dark)), told);
  const board = make("div", {}, tools, make("figure", {}, canvas, make("figcaption", {}, "Red is unknown: the field is fitted to the rest.")));
  root.replaceChildren(empty, board);

  const show = async () => {
    const value = props.value;
    const known = Boolean(value && value.picture && value.size);
    empty.hidden = known;
    board.hidden = !known;
    if (known) {
      const [height, width] = value.size;
      const mask = value.mask ?? null;
      const other = state.id !== value.id || !state.size || !alike([...value.size], state.size);
      if (other) {
        Object.assign(state, { id: value.id, size: [height, width], mask: new Mask(height, width), shown: null, cursor: null });
        canvas.style.aspectRatio = `${clamp(width / height, 0.25, 6)}`;
        canvas.style.maxWidth = `calc(70vh * ${clamp(width / height, 0.25, 6)})`;
      }
      const { mask: target } = state;
      try {
        if (mask !== state.shown) {
          state.shown = mask;
          if (mask) target.load(await decoded(mask));
          else target.change(() => 0);
        }
        const picture = await decoded(value.picture);
        if (state.mask !== target) return; // another picture came meanwhile
        state.picture = picture;
        tell();
      } catch (error) {
        told.textContent = `The picture cannot be shown: ${error.message}`;
      }
      redraw();
    }
    ready(root);
  };
  watch("value", show);
  show();
};
