// A form of hyperparameters. The value: {entries, given: {name: value}, errors: {name: text}}.
// An entry: {name, label, help, kind, default, placeholder, choices, min, max, step, unit, group}.

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const PAUSE = 150; // ms after the last key

// What a text says to an entry: {value} or {error}; neither where it is empty.
function readEntry(entry, typed) {
  const said = typed.trim();
  if (said === "") return {};
  if (entry.kind === "text") return { value: typed };
  if (entry.kind === "numbers") {
    const parts = said.replace(/^[[(]|[\])]$/g, "").split(/[\s,;]+/).filter(Boolean);
    const wrong = parts.find((part) => !NUMBER.test(part));
    return wrong === undefined ? { value: parts.map(Number) } : { value: said, error: `${wrong} is not a number` };
  }
  if (!NUMBER.test(said) || !Number.isFinite(Number(said))) return { value: said, error: `${said} is not a number` };
  const number = Number(said);
  if (entry.kind === "int" && !Number.isSafeInteger(number)) return { value: said, error: `${said} is not a whole number` };
  if (entry.min != null && number < entry.min) return { value: number, error: `at least ${text(entry.min)}` };
  if (entry.max != null && number > entry.max) return { value: number, error: `at most ${text(entry.max)}` };
  return { value: number };
}

function saidOf(value) {
  if (value == null) return "";
  return Array.isArray(value) ? value.join(", ") : String(value);
}

// The input of one entry: {control, read() -> {value} or {error} or {}, write(value)}.
function controlOf(entry, attributes) {
  const options = entry.kind === "bool" ? [true, false] : entry.choices;
  if (entry.kind === "bool" && typeof entry.default === "boolean") {
    const control = make("input", { type: "checkbox", ...attributes });
    return {
      control,
      read: () => (control.checked === entry.default ? {} : { value: control.checked }),
      write: (value) => { control.checked = value == null ? entry.default : value === true; },
    };
  }
  if (entry.kind === "bool" || entry.kind === "choice") {
    const name = (option) => (option === true ? "yes" : option === false ? "no" : String(option));
    const known = options.findIndex((option) => alike(option, entry.default));
    const control = make("select", attributes,
      known < 0 ? make("option", { value: "" }, saidOf(entry.placeholder) || "as it is by default") : null,
      ...options.map((option, i) => make("option", { value: i }, name(option))));
    return {
      control,
      read: () => (control.value === "" || Number(control.value) === known ? {} : { value: options[Number(control.value)] }),
      write: (value) => {
        const i = value == null ? known : options.findIndex((option) => alike(option, value));
        control.value = i < 0 ? "" : String(i);
      },
    };
  }
  const control = make("input", {
    type: "text", autocomplete: "off", spellcheck: "false", ...attributes,
    inputmode: entry.kind === "int" ? "numeric" : entry.kind === "float" ? "decimal" : "text",
    placeholder: entry.placeholder ?? saidOf(entry.default),
  });
  return { control, read: () => readEntry(entry, control.value), write: (value) => { control.value = saidOf(value); } };
}

function rangeOf({ min, max, unit }) {
  const bounds = min != null && max != null ? `${text(min)} to ${text(max)}`
    : min != null ? `at least ${text(min)}` : max != null ? `at most ${text(max)}` : "";
  return [bounds, unit].filter(Boolean).join(" ");
}

function rowOf(entry, changed, settle) {
  const [id, helpId, errorId] = ["entry", "help", "error"].map(freshName);
  const range = rangeOf(entry);
  const help = [entry.help, range].filter(Boolean).join(" · ");
  const error = make("p", { class: "inr-error", id: errorId });
  const made = controlOf(entry, { id, name: entry.name, "aria-describedby": help ? helpId : null,
    oninput: () => changed(), onchange: () => settle(), onblur: () => settle(),
    onkeydown: (event) => { if (event.key === "Enter") settle(); } });
  const element = make("div", { class: "inr-entry", "data-entry": entry.name },
    make("label", { for: id }, entry.label || entry.name), made.control,
    help ? make("p", { class: "inr-help", id: helpId }, help) : null, error);
  const tell = (said) => {
    error.textContent = said || "";
    error.hidden = !said;
    made.control.setAttribute("aria-invalid", String(Boolean(said)));
    made.control.setAttribute("aria-describedby", [help && helpId, said && errorId].filter(Boolean).join(" "));
  };
  tell("");
  return { entry, element, tell, ...made };
}

studio.form = ({ element, props, watch, trigger }) => {
  const root = mounted(element);
  let rows = [];
  let entries = null;
  let timer = 0;

  const current = () => {
    const given = {};
    const errors = {};
    for (const { entry, read } of rows) {
      const { value, error } = read();
      if (value !== undefined) given[entry.name] = value;
      if (error) errors[entry.name] = error;
    }
    return { given, errors };
  };
  const settle = (left = true) => {
    clearTimeout(timer);
    timer = 0;
    const { given, errors } = current();
    for (const { entry, control, tell } of rows) {
      // a number that is half typed is not called wrong yet
      const typing = !left && document.activeElement === control;
      if (!typing || !errors[entry.name]) tell(errors[entry.name]);
    }
    const { given: before = {}, errors: told = {} } = props.value || {};
    if (alike([given, errors], [before, told])) return;
    give(props, trigger, { ...props.value, given, errors });
  };
  const changed = () => {
    clearTimeout(timer);
    timer = setTimeout(() => settle(false), PAUSE);
  };
  // a click on a button outside must find what was typed just before it
  const flush = () => {
    if (!root.isConnected) document.removeEventListener("pointerdown", flush, true);
    else if (timer) settle();
  };
  document.addEventListener("pointerdown", flush, true);

  const show = () => {
    const value = props.value || {};
    const fresh = JSON.stringify(value.entries || []);
    if (fresh !== entries) {
      clearTimeout(timer);
      timer = 0;
      entries = fresh;
      rows = JSON.parse(fresh).map((entry) => rowOf(entry, changed, settle));
      const groups = new Map();
      for (const row of rows) groups.set(row.entry.group || "", [...(groups.get(row.entry.group || "") || []), row.element]);
      const sets = [...groups].map(([name, elements]) => make("fieldset", { class: "inr-group" },
        name ? make("legend", {}, name) : null, ...elements));
      root.replaceChildren(...(rows.length ? sets : [make("p", { class: "inr-empty" }, root.dataset.empty)]));
    }
    for (const { entry, control, write, tell } of rows) {
      // never under the fingers of who is typing
      if (document.activeElement !== control || !timer) write((value.given || {})[entry.name]);
      tell((value.errors || {})[entry.name]);
    }
    ready(root);
  };
  watch("value", show);
  show();
};
