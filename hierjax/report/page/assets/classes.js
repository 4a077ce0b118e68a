// The table of classes: sorted by any column, searched, and saved as CSV.

(() => {
  const PAGE = 100, table = byId("classes-table");
  const worst = new Map();
  for (let i = 0; i < data.tree.pairs.length; i += 3) {
    const [label, predicted, number] = data.tree.pairs.slice(i, i + 3);
    if (number > (worst.get(label)?.[1] ?? 0)) worst.set(label, [predicted, number]);
  }
  const confused = (node) => { const pair = worst.get(node); return pair ? `${pair[0] === ROOT ? "(no node)" : tree.name(pair[0])} (${count(pair[1])})` : ""; };
  const COLUMNS = [
    { name: "class", of: (node) => tree.text(node), text: true },
    { name: "level", of: (node) => LEVELS[tree.level[node]], key: (node) => tree.level[node], text: true },
    { name: data.things, of: tree.images },
    { name: "recall", of: tree.recall, share: true },
    { name: "precision", of: tree.precision, share: true },
    { name: "most often confused with", of: confused, key: (node) => worst.get(node)?.[1] ?? 0, text: true },
  ];
  const all = depthFirst().filter((node) => tree.images(node) + tree.predicted(node) > 0);
  let column = null, falling = false, level = -1, word = "", shown = PAGE;

  function rows() {
    const found = all.filter((node) => (level < 0 || tree.level[node] === level) && tree.text(node).toLowerCase().includes(word));
    if (column === null) return found;
    const { key, of } = COLUMNS[column], value = key ?? of, sign = falling ? -1 : 1;
    const missing = (x) => x === null;
    return found.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
    });
  }

  function cell({ of, share, text }, node) {
    const value = of(node);
    if (share) return make("td", {}, value === null ? make("span", { class: "share" }, make("span", {}, "–")) : make("span", { class: "share" }, make("span", {}, percent(value, 1)), bar(value)));
    return make("td", { class: text ? "name" : "number" }, text ? value : count(value));
  }

  function line(node) {
    const name = make("button", { type: "button", class: "plain", on: { click: () => { choose(node); byId("tree").scrollIntoView(); } } }, tree.text(node));
    return make("tr", {}, make("th", { scope: "row", class: "name" }, name), ...COLUMNS.slice(1).map((one) => cell(one, node)));
  }

  function head() {
    return make("thead", {}, make("tr", {}, ...COLUMNS.map((one, i) => {
      const sorted = column === i ? (falling ? "descending" : "ascending") : "none", arrow = { none: "", ascending: " ↑", descending: " ↓" }[sorted];
      const sort = () => { falling = column === i ? !falling : !one.text; column = i; draw(); table.querySelectorAll("th button")[i].focus(); };
      return make("th", { scope: "col", "aria-sort": sorted, class: one.text || one.share ? "" : "number" }, make("button", { type: "button", on: { click: sort } }, `${one.name}${arrow}`));
    })));
  }

  function draw() {
    const found = rows();
    table.replaceChildren(head(), make("tbody", {}, ...found.slice(0, shown).map(line)));
    byId("classes-count").textContent = `${count(Math.min(shown, found.length))} of ${count(found.length)} nodes with ${data.things} or predictions`;
    byId("classes-more").hidden = found.length <= shown;
  }

  // A cell of CSV; a text that a spreadsheet would take for a formula gets an apostrophe.
  const quoted = (value) => {
    if (value === null) return "";
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };

  function csv() {
    const header = ["class", "level", "images", "predicted", "right", "recall", "precision", "confused with", "confused images"];
    const lines = rows().map((node) => {
      const [other, number] = worst.get(node) ?? [null, null];
      return [tree.text(node), LEVELS[tree.level[node]], tree.images(node), tree.predicted(node), tree.right(node), tree.recall(node), tree.precision(node), other === null ? null : other === ROOT ? "(no node)" : tree.text(other), number];
    });
    return [header, ...lines].map((cells) => cells.map(quoted).join(",")).join("\n") + "\n";
  }

  function save() {
    const link = make("a", { href: URL.createObjectURL(new Blob([csv()], { type: "text/csv" })), download: `${data.name}-classes.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search classes", on: { input: () => { word = search.value.trim().toLowerCase(); shown = PAGE; draw(); } } });
  const levels = make("select", { "aria-label": "Level of the classes", on: { change: () => { level = Number(levels.value); shown = PAGE; draw(); } } }, make("option", { value: -1 }, "all levels"), ...LEVELS.map((name, i) => make("option", { value: i }, name)));
  byId("classes-controls").append(search, levels, make("button", { type: "button", id: "classes-save", on: { click: save } }, "Save as CSV"));
  byId("classes-more").addEventListener("click", () => { shown += PAGE; draw(); });
  draw();
})();

choose(ROOT);
