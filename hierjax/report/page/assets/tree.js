// The label tree as SVG: only opened nodes are drawn. On a wide page it grows to the right, on a narrow one downwards.

(() => {
  const canvas = byId("tree-svg"), details = byId("details"), MORE = 30, WIDE = 620;
  const open = new Set([ROOT]), most = new Map();
  let chosen = ROOT, focused = ROOT, rows = [];

  const largest = Math.max(1, tree.total);
  const radius = (node) => 3.5 + 9.5 * Math.sqrt(tree.images(node) / largest);
  const thickness = (node) => Math.max(1, 20 * Math.sqrt(tree.images(node) / largest));
  const judged = (node) => tree.images(node) + tree.predicted(node) > 0;

  // The visible nodes from top to bottom: those below an open node follow it, the largest first.
  function visible() {
    const found = [];
    const walk = (node, depth, above) => {
      const row = { node, depth, above, below: [] };
      found.push(row);
      if (above) above.below.push(row);
      if (!open.has(node)) return;
      const children = tree.children(node).filter(judged).sort((a, b) => tree.images(b) - tree.images(a) || a - b);
      const shown = most.get(node) ?? MORE;
      children.slice(0, shown).forEach((child) => walk(child, depth + 1, row));
      const left = children.length - shown, without = tree.children(node).length - children.length;
      if (left > 0 || without > 0) {
        const rest = { rest: node, left: Math.max(left, 0), without, depth: depth + 1, above: row, below: [] };
        found.push(rest);
        row.below.push(rest);
      }
    };
    walk(ROOT, 0, null);
    return found;
  }

  // Gives every row its place, and returns the height.
  function place(width) {
    const wide = width >= WIDE, deepest = Math.max(1, ...rows.map((row) => row.depth));
    const step = wide ? Math.min(210, (width - 250) / deepest) : 20, height = wide ? 27 : 32;
    let next = height / 2 + 6;
    const put = (row) => {
      row.x = 18 + row.depth * step;
      if (wide && row.below.length) {
        row.below.forEach(put);
        row.y = (row.below[0].y + row.below[row.below.length - 1].y) / 2;
        return;
      }
      row.y = next;
      next += height;
      row.below.forEach(put);
    };
    put(rows[0]);
    return next;
  }

  function link(row, wide) {
    const { above } = row;
    const bend = (above.x + row.x) / 2;
    const d = wide
      ? `M${above.x} ${above.y}C${bend} ${above.y} ${bend} ${row.y} ${row.x} ${row.y}`
      : `M${above.x} ${above.y}V${row.y}H${row.x}`;
    const style = row.node === undefined ? "c-none" : recallClass(tree.recall(row.node));
    const stroke = row.node === undefined ? 1 : wide ? thickness(row.node) : 1.5;
    return svg("path", { class: `link ${style}`, d, "stroke-width": stroke.toFixed(1) });
  }

  function spoken(node) {
    const share = tree.recall(node);
    return `${tree.name(node)}: ${count(tree.images(node))} ${data.things}${share === null ? "" : `, recall ${percent(share)}`}`;
  }

  function circle(row, wide) {
    const { node } = row, r = radius(node), opened = open.has(node), inner = tree.hasChildren(node), above = wide && opened && node !== ROOT;
    const share = tree.recall(node);
    const rate = svg("tspan", { class: "rate" }, `  ${share === null ? "" : `${percent(share)} of `}${count(tree.images(node))}`);
    const name = svg("text", above ? { x: row.x - r, y: row.y - r - 5 } : { x: row.x + r + 7, y: row.y + 4.5 }, shortened(tree.name(node)), rate);
    if (node === ROOT && wide) fill(name, { x: Math.max(4, row.x - 14), y: row.y - r - 7 }, []);
    const parts = [svg("circle", { class: "ring", cx: row.x, cy: row.y, r: r + 3 }), svg("circle", { class: recallClass(share), cx: row.x, cy: row.y, r }), name];
    if (inner && r > 5) parts.splice(2, 0, svg("text", { class: "plus", x: row.x, y: row.y + 4, "aria-hidden": "true" }, opened ? "–" : "+"));
    return svg("g", {
      class: `node${opened ? " open" : ""}${node === chosen ? " picked" : ""}`, role: "treeitem", "data-node": node, tabindex: node === focused ? 0 : -1,
      "aria-level": row.depth + 1, "aria-expanded": inner ? String(opened) : null, "aria-selected": String(node === chosen), "aria-label": spoken(node),
      on: { click: () => pick(node, true), focus: () => { focused = node; } },
    }, svg("title", {}, `${tree.text(node) === "no path" ? "all labels" : tree.text(node)}\n${spoken(node)}`), ...parts);
  }

  const shortened = (name) => (name.length > 30 ? `${name.slice(0, 28)}…` : name);

  function rest(row) {
    const words = [row.left ? `${count(row.left)} more` : "", row.without ? `${count(row.without)} without ${data.things}` : ""].filter(Boolean).join(", ");
    const more = () => { most.set(row.rest, (most.get(row.rest) ?? MORE) + 100); draw(); };
    const text = svg("text", { x: row.x + 4, y: row.y + 4.5, class: "rate" }, words);
    if (!row.left) return svg("g", { class: "node rest" }, text);
    return svg("g", { class: "node rest", role: "button", tabindex: 0, on: { click: more, keydown: (e) => { if (e.key === "Enter") more(); } } }, text);
  }

  function draw() {
    const width = canvas.parentElement.clientWidth || 800, wide = width >= WIDE, had = canvas.contains(document.activeElement);
    rows = visible();
    const height = place(width);
    canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    canvas.setAttribute("height", height);
    const links = rows.filter((row) => row.above).map((row) => link(row, wide));
    canvas.replaceChildren(...links, ...rows.map((row) => (row.node === undefined ? rest(row) : circle(row, wide))));
    if (had) canvas.querySelector(`[data-node="${focused}"]`)?.focus({ preventScroll: true });
  }

  function pick(node, turn) {
    if (turn && tree.hasChildren(node) && node !== ROOT) {
      if (open.has(node) && chosen === node) open.delete(node);
      else open.add(node);
    }
    focused = node;
    choose(node);
  }

  function show(node) {
    chosen = node;
    for (const above of tree.path(node).slice(0, -1)) {
      open.add(above);
      const children = tree.children(tree.parent[above]).length;
      if (children > MORE) most.set(tree.parent[above], children);
    }
    if (node !== ROOT && tree.children(tree.parent[node]).length > MORE) most.set(tree.parent[node], tree.children(tree.parent[node]).length);
    if (node !== ROOT) focused = node;
    draw();
    describe(node);
  }

  canvas.addEventListener("keydown", (event) => {
    const order = rows.filter((row) => row.node !== undefined).sort((a, b) => a.y - b.y || a.x - b.x).map((row) => row.node);
    const at = order.indexOf(focused), opened = open.has(focused);
    const move = (node) => { if (node !== undefined) { focused = node; draw(); canvas.querySelector(`[data-node="${node}"]`)?.focus(); } };
    const keys = {
      ArrowDown: () => move(order[at + 1]), ArrowUp: () => move(order[at - 1]), Home: () => move(order[0]), End: () => move(order[order.length - 1]),
      ArrowRight: () => (opened ? move(rows.find((row) => row.node === focused)?.below[0]?.node) : tree.hasChildren(focused) && (open.add(focused), draw())),
      ArrowLeft: () => (opened && focused !== ROOT ? (open.delete(focused), draw()) : focused !== ROOT && move(tree.parent[focused])),
      Enter: () => pick(focused, true), " ": () => pick(focused, true),
    };
    if (!keys[event.key] || event.target.classList.contains("rest")) return;
    keys[event.key]();
    event.preventDefault();
  });

  // The details of a node.

  const term = (name, ...value) => [make("dt", {}, name), make("dd", {}, ...value)];

  function shareText(right, of) {
    if (!of) return "–";
    const [low, high] = wilson(right, of);
    return `${percent(right / of, 1)} (${percent(low)} to ${percent(high)}), ${count(right)} of ${count(of)}`;
  }

  function pairsOf(node, from, to) {
    const found = [], pairs = data.tree.pairs;
    for (let i = 0; i < pairs.length; i += 3) if (pairs[i + from] === node) found.push([pairs[i + to], pairs[i + 2]]);
    return found.sort((a, b) => b[1] - a[1]);
  }

  function confusionList(title, pairs) {
    if (!pairs.length) return [];
    const lines = pairs.slice(0, 6).map(([node, number]) => {
      const name = node === ROOT ? "no node of this level" : tree.name(node);
      const link = node === ROOT ? name : make("button", { type: "button", class: "plain", title: tree.text(node), on: { click: () => choose(node) } }, name);
      return make("li", {}, make("span", {}, link), bar(number / pairs[0][1]), make("span", { class: "n" }, count(number)));
    });
    return [make("h4", {}, title), make("ul", { class: "bars" }, ...lines)];
  }

  function samples(title, found) {
    if (!found.length) return [];
    const figures = found.slice(0, 6).map((image) => make("figure", {}, photo(image) ?? image.name, make("figcaption", { class: "quiet" }, image.end === ROOT ? "no path" : tree.name(image.end))));
    return [make("h4", {}, title), make("div", { class: "thumbs" }, ...figures)];
  }

  function describe(node) {
    const above = tree.path(node).slice(0, -1).flatMap((one) => [make("button", { type: "button", class: "plain", on: { click: () => choose(one) } }, tree.name(one)), " > "]);
    const own = node === ROOT ? images : images.filter((image) => image.labelPath.includes(node));
    const rightHere = (image) => (node === ROOT ? image.group === 0 : judgeAt(image, node));
    const facts = node === ROOT
      ? [...term(data.things, count(tree.total)), ...term("whole path right", shareText(data.groupCounts[0], tree.total))]
      : [
        ...term("level", LEVELS[tree.level[node]]), ...term(data.things, count(tree.images(node))),
        ...term("recall", shareText(tree.right(node), tree.images(node))),
        ...term("precision", shareText(tree.right(node), tree.predicted(node))),
      ];
    details.replaceChildren(
      make("p", { class: "crumbs" }, ...(above.length ? above : [node === ROOT ? "the root" : "top level"])),
      make("h3", {}, tree.name(node)),
      make("dl", { class: "facts" }, ...facts),
      ...(node === ROOT ? [] : confusionList(`Its ${data.things} predicted as`, pairsOf(node, 0, 1))),
      ...(node === ROOT ? [] : confusionList("Others predicted as it", pairsOf(node, 1, 0))),
      ...samples("Right here ✓", own.filter(rightHere)),
      ...samples("Wrong here ✗, with the prediction", own.filter((image) => !rightHere(image))),
      ...(own.length ? [] : [make("p", { class: "small quiet" }, "None of its images is among those of this page.")]),
      make("p", {}, make("a", { href: "#gallery" }, "See them below")),
    );
  }

  const judgeAt = (image, node) => tree.path(image.end).includes(node);

  // Controls.

  function deeper() {
    const closed = rows.filter((row) => row.node !== undefined && tree.hasChildren(row.node) && !open.has(row.node));
    closed.slice(0, 200).forEach((row) => open.add(row.node));
    draw();
  }

  byId("tree-controls").append(
    finder("Find a label", choose),
    make("button", { type: "button", id: "tree-deeper", on: { click: deeper } }, "Open one level"),
    make("button", { type: "button", on: { click: () => { open.clear(); open.add(ROOT); most.clear(); choose(ROOT); } } }, "Close all"),
  );
  byId("tree-scale").append(
    ...STEP_NAMES.map((name, i) => make("li", {}, make("span", { class: `swatch c${i}` }), `recall ${name}`)),
    make("li", {}, make("span", { class: "swatch c-none" }), `no ${data.things}`),
  );
  // At first as many nodes are open as fit a screen, the largest first.
  const waiting = tree.children(ROOT).filter(judged).sort((a, b) => tree.images(b) - tree.images(a));
  for (let room = 27 - waiting.length; waiting.length; ) {
    const node = waiting.shift(), below = tree.children(node).filter(judged);
    if (tree.level[node] > 1 || !below.length || below.length > Math.min(room + 1, MORE)) continue;
    open.add(node);
    room -= below.length - 1;
    waiting.push(...below.sort((a, b) => tree.images(b) - tree.images(a)));
  }
  follow(show);
  let width = 0;
  new ResizeObserver(() => {
    const now = canvas.parentElement.clientWidth;
    if (now !== width) { width = now; draw(); }
  }).observe(canvas.parentElement);
})();
