// Zoom without end: a picture of all, and of what is looked at the pixels that the field has there.
// The value: {id, token, size: [h, w], picture, fit}; the place looked at is put into it as `crop`.

const REST = 120; // ms after the last move
const WIDEST = 1600; // pixels that are asked for
const LEAST = 1e-6; // samples across the closest look
const KEPT = 8; // answers

// Draw of a picture of the place `crop` what lies in the view.
function drawPart(context, box, view, image, [cy, cx, ch, cw]) {
  const left = Math.max(view.x, cx);
  const top = Math.max(view.y, cy);
  const w = Math.min(view.x + view.w, cx + cw) - left;
  const h = Math.min(view.y + view.h, cy + ch) - top;
  if (!(w > 0 && h > 0)) return;
  const [sx, sy] = [image.naturalWidth / cw, image.naturalHeight / ch];
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, (left - cx) * sx, (top - cy) * sy, w * sx, h * sy,
    box.x + ((left - view.x) / view.w) * box.w, box.y + ((top - view.y) / view.h) * box.h,
    (w / view.w) * box.w, (h / view.h) * box.h);
}

studio.deep = ({ element, props, watch, server }) => {
  const root = mounted(element);
  const empty = make("p", { class: "inr-empty" }, root.dataset.empty);
  const stand = make("div", { class: "inr-deep-stand" });
  const told = make("output", { "aria-live": "off" });
  const failed = make("p", { class: "inr-error", role: "alert", hidden: true });
  root.replaceChildren(empty, stand, told, failed);
  let scene = null; // all that belongs to one field: {key, view, pane, whole, answers, ...}

  const windowOf = ({ view }) => [view.y, view.x, view.h, view.w];
  const tell = (one) => {
    const { clientWidth } = one.pane.canvas;
    const { dense } = one;
    const round = (v) => String(Number(v.toPrecision(8)));
    const [y, x, h, w] = windowOf(one).map(round);
    const each = clientWidth ? `; ${text((clientWidth * dense) / one.view.w)} pixels a sample` : "";
    told.textContent = `x ${x}, y ${y}, ${w} x ${h} samples; ${text(one.view.zoom)} times${each}${one.asking ? "; rendering …" : ""}`;
  };
  const ask = async (one) => {
    const { pane, view } = one;
    if (one !== scene || !pane.canvas.clientWidth || !pane.canvas.isConnected) return;
    const crop = windowOf(one);
    const wide = Math.min(WIDEST, Math.max(1, Math.round(pane.canvas.clientWidth * one.dense)));
    const size = [Math.max(1, Math.round((wide * pane.canvas.clientHeight) / pane.canvas.clientWidth)), wide];
    const wanted = JSON.stringify([crop, size]);
    if (wanted === one.answered) return;
    if (one.asking) { one.again = true; return; } // one at a time: the renderer is not to be flooded
    one.asking = true;
    one.again = false;
    tell(one);
    let error = "";
    try {
      const answer = await server.inr_pixels({ token: one.token, crop, size });
      if (answer.error) error = answer.error;
      else {
        const image = await decoded(answer.picture);
        if (one !== scene) return;
        one.answered = wanted;
        one.answers = [...one.answers.slice(1 - KEPT), { image, crop }];
      }
    } catch (problem) {
      error = `The picture did not come: ${problem.message || problem}`;
    } finally {
      one.asking = false;
    }
    if (one !== scene) return;
    const moved = !alike(crop, windowOf(one));
    failed.textContent = error;
    failed.hidden = !error || moved;
    root.dataset.answered = wanted;
    if (props.value && !moved) props.value = { ...props.value, crop };
    view.redraw();
    tell(one);
    if (one.again || moved) later(one);
  };
  const later = (one) => {
    clearTimeout(one.timer);
    one.timer = setTimeout(() => ask(one), REST);
  };
  const build = (value) => {
    const [height, width] = value.size;
    const view = new View(width, height, { least: LEAST });
    const one = { key: keyOf(value), token: value.token, view, answers: [], answered: "", asking: false, again: false,
      timer: 0, last: "", whole: new Image(), dense: window.devicePixelRatio || 1 };
    one.whole.onload = () => { view.redraw(); ready(root); };
    one.whole.onerror = () => {
      failed.textContent = "The picture of all cannot be shown.";
      failed.hidden = false;
      ready(root);
    };
    one.whole.src = value.picture;
    one.pane = new Pane(view, (context, box) => {
      one.dense = window.devicePixelRatio || 1;
      if (one.whole.naturalWidth) drawPart(context, box, view, one.whole, [0, 0, height, width]);
      // the finer over the coarser
      for (const { image, crop } of one.answers.toSorted((a, b) => b.crop[3] - a.crop[3])) drawPart(context, box, view, image, crop);
      const now = JSON.stringify([windowOf(one), box.w, box.h]);
      if (now === one.last) return;
      one.last = now;
      tell(one);
      later(one);
    }, { label: root.dataset.label, ratio: clamp(width / height, 0.25, 6), tall: 75, bare: true });
    return one;
  };
  const keyOf = (value) => JSON.stringify([value.id, value.token, value.size, value.picture.length]);
  const show = () => {
    const value = props.value;
    const known = Boolean(value && value.picture && value.size);
    empty.hidden = known;
    stand.hidden = told.hidden = !known;
    if (!known) {
      scene = null;
      failed.hidden = true;
      stand.replaceChildren();
      ready(root);
      return;
    }
    if (scene && scene.key === keyOf(value)) {
      if (value.fit) scene.view.reset();
      return;
    }
    const before = scene;
    scene = build(value);
    if (before && !value.fit && before.view.width === scene.view.width && before.view.height === scene.view.height) {
      scene.view.set(before.view.x, before.view.y, before.view.w, before.view.h);
    }
    failed.hidden = true;
    stand.replaceChildren(make("div", { class: "tools" }, zoomer(scene.view)), scene.pane.figure,
      make("p", { class: "hint" }, root.dataset.hint));
  };
  watch("value", show);
  show();
};
