// The gallery: images of a group, and of a node.

(() => {
  const PAGE = 24, all = images.filter((image) => image.group >= 0), place = byId("gallery-photos");
  let group = data.groupCounts.findLastIndex((number) => number > 0), node = ROOT, shown = PAGE;

  const matches = (image) => image.group === group && (node === ROOT || tree.contains(node, image.label) || tree.contains(node, image.end));

  function figure(image) {
    const lines = [make("p", { class: "label" }, tree.text(image.label)), pathList(image, image.end, image.probabilities)];
    if (image.group > 0 && data.thresholds) lines.push(make("p", { class: "file" }, `the label has ${percent(image.labelProbability)}`));
    return make("figure", { "data-image": image.number }, photo(image), make("figcaption", {}, ...lines, make("p", { class: "file" }, image.name)));
  }

  function draw() {
    const found = all.filter(matches), which = node === ROOT ? "" : ` of ${tree.text(node)}, by their label or prediction,`;
    place.replaceChildren(...found.slice(0, shown).map(figure));
    const here = all.filter((image) => image.group === group).length;
    byId("gallery-count").textContent = found.length
      ? `${count(Math.min(shown, found.length))} of ${count(found.length)}${which} that are on this page; it has ${count(here)} of the ${count(data.groupCounts[group])} that are ${data.groups[group]}.`
      : `None${which} on this page; of all ${data.things}, ${count(data.groupCounts[group])} are ${data.groups[group]}.`;
    byId("gallery-more").hidden = found.length <= shown;
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === group)));
    clear.hidden = node === ROOT;
    clear.textContent = `${tree.name(node)} ✕`;
    clear.setAttribute("aria-label", `Show all labels again, not only ${tree.name(node)}`);
  }

  const buttons = data.groups.map((name, i) => {
    const sign = ["✓", "◐", "✗"][i];
    const take = () => { group = i; shown = PAGE; draw(); };
    return make("button", { type: "button", "aria-pressed": "false", "data-group": i, on: { click: take } }, `${sign} ${name} ${count(data.groupCounts[i])}`);
  });
  const clear = make("button", { type: "button", id: "gallery-clear", on: { click: () => filter(ROOT) } });
  function filter(to) { node = to; shown = PAGE; draw(); }
  byId("gallery-controls").append(...buttons, finder("Only of a label", filter), clear);
  byId("gallery-more").addEventListener("click", () => { shown += PAGE; draw(); });
  if (group < 0) group = 0;
  follow(filter);
})();
