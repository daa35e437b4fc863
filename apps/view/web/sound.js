// Players, and their waves and spectrograms on one axis of time. Tracks are WAV of 16 bits.

const WAV_HEADER = 44;

// The mean over channels of a track, from -1 to 1.
function wave(track) {
  const raw = bytes(track.src.slice(track.src.indexOf(",") + 1)).buffer;
  const samples = new Int16Array(raw, WAV_HEADER, (raw.byteLength - WAV_HEADER) >> 1);
  const made = new Float32Array(samples.length / track.channels);
  for (let i = 0; i < made.length; i++) {
    let sum = 0;
    for (let c = 0; c < track.channels; c++) sum += samples[i * track.channels + c];
    made[i] = sum / (32768 * track.channels);
  }
  return made;
}

async function decoded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

widgets.sound = async (root, data) => {
  const structure = (one) => [one.rate, one.start,
    one.tracks.map((t) => [t.name, t.colour, t.channels, Boolean(t.error)]),
    one.spectrograms.map((s) => [s.label, s.bar && s.bar.map])];
  const waves = data.tracks.map(wave);
  const samples = waves[0].length;
  const view = new View(samples, 1, { stretch: true, least: 64 });
  const extent = [data.start, data.start + samples / data.rate, "seconds"];
  let current = null;

  const tick = () => {
    view.marker = current.currentTime * data.rate;
    view.redraw();
    if (!current.paused) requestAnimationFrame(tick);
  };
  const players = data.tracks.map((track) => {
    const audio = make("audio", { controls: true, preload: "auto", src: track.src, "aria-label": track.name });
    audio.addEventListener("play", () => {
      if (current && current !== audio) {
        if (!current.paused) audio.currentTime = current.currentTime;
        current.pause();
      }
      current = audio;
      tick();
    });
    // what came while it played is taken when it pauses
    audio.addEventListener("pause", () => exchange(audio));
    audio.addEventListener("seeked", () => { current = current || audio; if (current === audio) tick(); });
    return audio;
  });
  const waiting = new Map();
  const exchange = (audio) => {
    const source = waiting.get(audio);
    if (!source || !audio.paused) return;
    waiting.delete(audio);
    const place = audio.currentTime;
    audio.src = source;
    if (place > 0) audio.currentTime = place;
  };
  const pick = ([x]) => {
    current = current || players[players.length > 1 ? 1 : 0];
    current.currentTime = clamp(x, 0, samples - 1) / data.rate;
  };
  const series = data.tracks.map((track, i) =>
    ({ name: track.name, colour: `--c${track.colour}`, values: waves[i] }));
  const panes = [];
  for (const error of [false, true]) {
    const group = series.filter((one, i) => Boolean(data.tracks[i].error) === error);
    if (group.length) {
      panes.push(plotPane(view, group,
        { label: error ? "wave of the error" : "wave", extent, unit: "full scale", pick, height: error ? 150 : 220 }));
    }
  }
  const pictures = await Promise.all(data.spectrograms.map((one) => decoded(one.picture)));
  const spectrograms = [];
  for (const [k, one] of data.spectrograms.entries()) {
    spectrograms.push(new Pane(view, (context, box) => drawPicture(context, box, view, pictures[k], true),
      { label: one.label, bar: one.bar, height: 210, pick, axes: { x: extent, y: [0, data.rate / 2000, "kHz"] } }));
  }
  root.append(
    make("div", { class: "players" }, ...data.tracks.map((track, i) =>
      make("figure", {}, players[i], make("figcaption", {}, track.name)))),
    make("div", { class: "tools" }, zoomer(view)),
    make("div", { class: "panes wide" }, ...[...panes, ...spectrograms].map((pane) => pane.figure)),
    make("p", { class: "hint" }, "Click a wave to go there; a player that is started while another " +
      "plays goes on from its place."));
  return {
    update: async (fresh) => {
      if (!alike(structure(fresh), structure(data))) return false;
      const drawn = fresh.tracks.map((track, i) => (track.src === data.tracks[i].src ? series[i].values : wave(track)));
      if (drawn.some((one) => one.length !== samples)) return false;
      const images = await Promise.all(fresh.spectrograms.map((one) => decoded(one.picture)));
      fresh.tracks.forEach((track, i) => {
        if (track.src !== data.tracks[i].src) waiting.set(players[i], track.src);
        exchange(players[i]);
        series[i].values = drawn[i];
      });
      panes.forEach((pane) => pane.refresh(extent));
      spectrograms.forEach((pane, k) => {
        pictures[k] = images[k];
        pane.relabel(fresh.spectrograms[k].label, fresh.spectrograms[k].bar);
      });
      data = fresh;
      view.redraw();
      return true;
    },
    close: () => players.forEach((audio) => audio.pause()),
  };
};
