// A table: {columns, rows} of texts; a heading sorts by its column.

// Numbers go by their value, others by their letters; "-" comes last.
function inOrder(a, b) {
  const [x, y] = [a, b].map((cell) => parseFloat(cell.replaceAll(",", "")));
  if (Number.isNaN(x) || Number.isNaN(y)) {
    return Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b);
  }
  return x - y;
}

widgets.table = (root, { columns, rows }) => {
  const body = make("tbody");
  const fill = (sorted) => body.replaceChildren(...sorted.map((row) =>
    make("tr", {}, ...row.map((cell, i) => (i ? make("td", {}, cell) : make("th", { scope: "row" }, cell))))));
  let by = null;
  let down = false;
  const sort = () => {
    const sorted = by === null ? rows : rows.toSorted((a, b) => inOrder(a[by], b[by]));
    fill(by !== null && down ? sorted.reverse() : sorted);
  };
  const heads = columns.map((name, i) => {
    const head = make("th", { scope: "col", "aria-sort": "none" });
    head.append(make("button", { type: "button", onclick: () => {
      down = by === i && !down;
      by = i;
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sort();
    } }, name));
    return head;
  });
  fill(rows);
  root.append(make("div", { class: "scroll tall" },
    make("table", { class: "figures" }, make("thead", {}, make("tr", {}, ...heads)), body)));
  return {
    update: (fresh) => {
      if (!alike(fresh.columns, columns)) return false;
      rows = fresh.rows;
      sort();
      return true;
    },
  };
};
