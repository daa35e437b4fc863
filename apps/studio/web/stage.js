// Sections of a page, the widgets of `inr view`, whose data are exchanged while something is fitted.
// The value: {id, sections: [{title, widget, data, notes}]}, or {id, ask} where the sections are what
// Python answers to `ask`, or null.

class Place {
  constructor(section) {
    this.title = section.title;
    this.widget = section.widget;
    this.body = make("div", { class: "inr-widget" });
    this.notes = make("div");
    this.element = make("section", { "aria-label": section.title },
      make("h3", {}, section.title), this.body, this.notes);
    this.handle = null;
    this.shown = null;
  }

  fits(section) {
    return section.title === this.title && section.widget === this.widget;
  }

  async show(section) {
    this.notes.replaceChildren(...(section.notes || []).map((note) => make("p", { class: "note" }, note)));
    if (same(section.data, this.shown)) return;
    try {
      const kept = this.handle && this.handle.update && (await this.handle.update(section.data));
      if (!kept) {
        this.close();
        this.handle = await widgets[section.widget](this.body, section.data);
      }
      this.shown = section.data;
    } catch (error) {
      this.close();
      this.body.append(make("p", { class: "note", role: "alert" }, `Not shown: ${error.message}`));
    }
  }

  close() {
    if (this.handle && this.handle.close) this.handle.close();
    this.handle = null;
    this.shown = null;
    this.body.replaceChildren();
  }
}

studio.stage = ({ element, props, watch, server }) => {
  const root = mounted(element);
  const empty = make("p", { class: "inr-empty" }, root.dataset.empty);
  const hint = make("p", { class: "hint", hidden: true }, root.dataset.hint);
  const failed = make("p", { class: "inr-error", role: "alert", hidden: true });
  root.replaceChildren(empty, hint, failed);
  let places = [];
  let waiting = null;
  let busy = false;

  // sections that were asked for; what was shown stays where none come
  const answered = async (value) => {
    let error = "";
    let sections = null;
    try {
      const answer = await server.inr_frame(value.ask);
      if (answer.error) error = answer.error;
      else sections = answer.sections;
    } catch (problem) {
      error = `The frame did not come: ${problem.message || problem}`;
    }
    failed.textContent = error;
    failed.hidden = !error;
    return sections;
  };
  const show = async (value) => {
    const sections = value && value.ask ? await answered(value) : (value && value.sections) || [];
    if (!sections) {
      ready(root);
      return;
    }
    empty.hidden = sections.length > 0;
    hint.hidden = !empty.hidden;
    const kept = sections.map((section, i) =>
      (places[i] && places[i].fits(section) ? places[i] : new Place(section)));
    for (const place of places) {
      if (kept.includes(place)) continue;
      place.close();
      place.element.remove();
    }
    places = kept;
    places.forEach((place, i) => {
      // those that stay are not moved: a player would stop
      const there = root.children[i + 1];
      if (there !== place.element) root.insertBefore(place.element, there);
    });
    for (const [i, place] of places.entries()) await place.show(sections[i]);
    root.sections = sections; // for who reads the page by a script
    root.dataset.shown = value ? value.id : "";
    ready(root);
  };
  // the latest value alone is shown when several came while one was being drawn
  const take = async () => {
    waiting = { value: plain(props.value || null) };
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        const { value } = waiting;
        waiting = null;
        await show(value);
      }
    } finally {
      busy = false;
    }
  };
  watch("value", take);
  take();
};
