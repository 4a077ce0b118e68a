// The confidence threshold: what it does to all images, and to some.

(() => {
  const found = data.thresholds;
  if (!found) return;
  const slider = byId("threshold-slider"), SVG = byId("threshold").querySelector(".chart svg");
  const examples = data.examples.map((number) => images[number]);
  const dot = svg("circle", { class: "mark", r: 5 });
  SVG.append(dot);
  const scale = (name, value) => { const [low, high, from, size] = SVG.dataset[name].split(" ").map(Number); const at = (value - low) / (high - low); return name === "x" ? from + size * at : from + size * (1 - at); };

  const style = (level) => `m${Math.round((4 * (level + 1)) / LEVELS.length)}`;

  function numbers(i) {
    const accuracy = found.accuracy[i], coverage = found.coverage[i];
    byId("threshold-numbers").replaceChildren(
      make("div", {}, make("b", { id: "coverage" }, percent(coverage, 1)), make("span", {}, "coverage: get an answer")),
      make("div", {}, make("b", { id: "selective-accuracy" }, percent(accuracy, 1)), make("span", {}, "selective accuracy: of these answers are right")),
    );
    const parts = LEVELS.map((name, level) => [name, found.levels[i][level], style(level), `end at ${name}`]);
    parts.push(["abstained", 1 - coverage, "m-none", "no answer"]);
    const mix = byId("threshold-mix");
    mix.replaceChildren(...parts.map(([, share, colour]) => make("i", { class: colour, style: `width: ${(100 * share).toFixed(2)}%` })));
    mix.setAttribute("aria-label", parts.map(([, share, , words]) => `${percent(share, 1)} ${words}`).join(", "));
    byId("threshold-key").replaceChildren(...parts.map(([, share, colour, words]) => make("li", {}, make("span", { class: `swatch ${colour}` }), make("span", {}, words), make("b", {}, percent(share, 1)))));
    dot.setAttribute("cx", scale("x", coverage));
    dot.setAttribute("cy", accuracy === null ? -20 : scale("y", accuracy));
  }

  // The nodes of an answer: those down to the last one that is probable enough.
  function answer(image, threshold) {
    const nodes = tree.path(image.answerEnd);
    const stop = image.answerProbabilities.findIndex((probability) => probability < threshold);
    return stop < 0 ? nodes : nodes.slice(0, stop);
  }

  function example(image, threshold) {
    const nodes = answer(image, threshold), wrong = nodes.some((node) => judge(image, node) === "wrong");
    const said = nodes.length ? tree.name(nodes[nodes.length - 1]) : "no answer";
    const [sign, colour, word] = nodes.length ? (wrong ? ["✗", "bad", "wrong"] : ["✓", "good", "right"]) : ["–", "quiet", ""];
    return make("figure", {}, photo(image), make("figcaption", {},
      make("p", { class: "answer" }, make("span", { class: colour, title: word }, `${sign} `), said),
      pathList(image, image.answerEnd, image.answerProbabilities, nodes.length),
      make("p", { class: "file" }, `label: ${tree.text(image.label)}`)));
  }

  function draw() {
    const i = Number(slider.value), threshold = found.grid[i];
    byId("threshold-value").textContent = String(threshold);
    slider.setAttribute("aria-valuetext", `threshold ${threshold}, coverage ${percent(found.coverage[i])}, selective accuracy ${percent(found.accuracy[i])}`);
    numbers(i);
    byId("threshold-examples").replaceChildren(...examples.map((image) => example(image, threshold)));
  }

  const nearest = (value) => found.grid.reduce((best, at, i) => (Math.abs(at - value) < Math.abs(found.grid[best] - value) ? i : best), 0);
  const set = (value) => { slider.value = nearest(value); draw(); };
  const marks = [["no threshold", 0], ["0.5", 0.5], ["0.9", 0.9], ...found.marks.map(([name, value]) => [`${value}, ${name}`, value])];
  byId("threshold-marks").append(...marks.map(([name, value]) => make("button", { type: "button", on: { click: () => set(value) } }, name)));
  slider.max = found.grid.length - 1;
  slider.addEventListener("input", draw);
  set(found.marks.length ? found.marks[0][1] : 0.5);
})();
