// The confusions of a level as a heat map in the order of the tree, with the blocks of the levels above outlined.

(() => {
  const canvas = byId("heat");
  if (!canvas) return;
  const SIDE = 700, MARGIN = 6, MOST = 140, pairs = data.tree.pairs, order = depthFirst();
  let level = 0, inside = ROOT;

  // The nodes of a level below a node, in the order of the tree, of which there are images or predictions.
  const nodesOf = () => order.filter((node) => tree.level[node] === level && tree.contains(inside, node) && tree.images(node) + tree.predicted(node) > 0);

  function draw() {
    const nodes = nodesOf(), bins = Math.min(nodes.length, MOST), each = nodes.length / Math.max(bins, 1), side = (SIDE - 2 * MARGIN) / Math.max(bins, 1);
    const bin = new Map(nodes.map((node, i) => [node, Math.floor(i / each)]));
    const sums = new Float64Array(bins * bins), totals = new Float64Array(bins);
    let outside = 0;
    for (const node of nodes) { totals[bin.get(node)] += tree.images(node); sums[bin.get(node) * bins + bin.get(node)] += tree.right(node); }
    for (let i = 0; i < pairs.length; i += 3) {
      if (!bin.has(pairs[i])) continue;
      if (bin.has(pairs[i + 1])) sums[bin.get(pairs[i]) * bins + bin.get(pairs[i + 1])] += pairs[i + 2];
      else outside += pairs[i + 2];
    }
    const cells = [];
    for (let row = 0; row < bins; row++) {
      for (let column = 0; column < bins; column++) {
        const number = sums[row * bins + column];
        if (number) cells.push(cell(nodes, each, side, row, column, number, number / totals[row]));
      }
    }
    canvas.setAttribute("viewBox", `0 0 ${SIDE} ${SIDE}`);
    canvas.replaceChildren(svg("rect", { class: "block", x: MARGIN, y: MARGIN, width: SIDE - 2 * MARGIN, height: SIDE - 2 * MARGIN }), ...cells, ...blocks(nodes, each, side));
    const notes = [`${count(nodes.length)} labels of ${LEVELS[level]}${inside === ROOT ? "" : ` in ${tree.text(inside)}`}, in the order of the tree. On the diagonal: right; elsewhere: wrong. The darker, the larger the share of the row.`];
    if (bins < nodes.length) notes.push(`Each cell is ${each.toFixed(1)} neighbouring labels: choose a label above to see fewer of them.`);
    if (outside) notes.push(`${count(outside)} ${data.things} are predicted outside of these, or not down to this level.`);
    if (data.tree.pairsLeftOut) notes.push(`${count(data.tree.pairsLeftOut)} rare pairs are left out.`);
    byId("heat-note").textContent = notes.join(" ");
  }

  function cell(nodes, each, side, row, column, number, share) {
    const name = (i) => { const from = nodes[Math.ceil(i * each - 1e-9)], to = nodes[Math.min(Math.ceil((i + 1) * each - 1e-9), nodes.length) - 1]; return from === to || each === 1 ? tree.text(from) : `${tree.name(from)} … ${tree.name(to)}`; };
    const words = row === column && each === 1 ? `${name(row)}: ${count(number)} right, ${percent(share)}` : `${name(row)} predicted as ${name(column)}: ${count(number)}, ${percent(share)}`;
    const box = { x: (MARGIN + column * side).toFixed(2), y: (MARGIN + row * side).toFixed(2), width: Math.max(side, 1).toFixed(2), height: Math.max(side, 1).toFixed(2) };
    const open = () => { if (row !== column || each === 1) choose(nodes[Math.floor(row * each)]); };
    return svg("rect", { class: `cell ${row === column ? "right" : "wrong"}`, ...box, "fill-opacity": (0.12 + 0.88 * Math.sqrt(Math.min(share, 1))).toFixed(3), on: { click: open } }, svg("title", {}, words));
  }

  // Frames around neighbours with the same ancestor, thicker for higher levels.
  function blocks(nodes, each, side) {
    const found = [];
    for (let up = 0; up < level; up++) {
      let start = 0;
      nodes.forEach((node, i) => {
        const here = tree.path(node)[up];
        if (i + 1 < nodes.length && tree.path(nodes[i + 1])[up] === here) return;
        const from = MARGIN + (start / each) * side, size = ((i + 1 - start) / each) * side;
        if (i + 1 - start < nodes.length) found.push(svg("rect", { class: "block", x: from.toFixed(2), y: from.toFixed(2), width: size.toFixed(2), height: size.toFixed(2), "stroke-width": Math.max(0.6, 1.8 - 0.6 * up) }, svg("title", {}, tree.text(here))));
        if (up === 0 && size > 20) found.push(caption(tree.name(here), from, size));
        start = i + 1;
      });
    }
    return found.map((frame) => { frame.setAttribute("pointer-events", "none"); return frame; });
  }

  // The name of a top-level block, beside it where there is more room.
  function caption(name, from, size) {
    const before = from > SIDE - from - size;
    return svg("text", { x: before ? from - 6 : from + size + 6, y: from + 14, "text-anchor": before ? "end" : "start" }, name);
  }

  const select = make("select", { id: "heat-level", on: { change: () => { level = Number(select.value); draw(); } } }, ...LEVELS.map((name, i) => make("option", { value: i }, name)));
  const clear = make("button", { type: "button", hidden: true, on: { click: () => within(ROOT) } });
  function within(node) {
    inside = node;
    if (node !== ROOT && level <= tree.level[node]) level = Math.min(tree.level[node] + 1, LEVELS.length - 1);
    if (node !== ROOT && !tree.hasChildren(node)) inside = tree.parent[node];
    if (inside !== ROOT && !nodesOf().length) level = tree.level[inside] + 1;
    select.value = level;
    clear.hidden = inside === ROOT;
    clear.textContent = `in ${tree.name(inside)} ✕`;
    clear.setAttribute("aria-label", `Show the whole tree again, not only ${tree.name(inside)}`);
    draw();
  }
  byId("heat-controls").append(make("label", { for: "heat-level" }, "Level"), select, finder("Only inside a label", within), clear);
  while (level + 1 < LEVELS.length) {
    level += 1;
    if (nodesOf().length > MOST) { level -= 1; break; }
  }
  select.value = level;
  draw();
})();
