// The data, what the sections share, and the theme. All scripts of the page are one, in the order of write.py.

const data = JSON.parse(document.getElementById("data").textContent);
const ROOT = -1, LEVELS = data.tree.levels;
const SIGNS = { right: ["✓", "good"], wrong: ["✗", "bad"], unknown: ["?", "quiet"] };

const byId = (id) => document.getElementById(id);

// Makes an element; children are elements or text, which is never markup.
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") Object.entries(value).forEach(([event, listener]) => element.addEventListener(event, listener));
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const percent = (share, digits = 0) => (share === null ? "–" : `${(100 * share).toFixed(digits)}%`);
const count = (number) => number.toLocaleString("en");

// The tree: children are ranges of nodes, breadth-first.

const tree = (() => {
  const { names, children, labelled, predicted, right } = data.tree;
  const offsets = [0];
  for (const number of children) offsets.push(offsets[offsets.length - 1] + number);
  const parent = new Int32Array(names.length).fill(ROOT), level = new Int32Array(names.length);
  for (let node = 0; node < names.length; node++) {
    for (let child = offsets[node + 1]; child < offsets[node + 2]; child++) {
      parent[child] = node;
      level[child] = level[node] + 1;
    }
  }
  const range = (node) => [offsets[node + 1], offsets[node + 2]];
  const path = (node) => { const nodes = []; for (; node !== ROOT; node = parent[node]) nodes.unshift(node); return nodes; };
  const total = data.groupCounts.reduce((sum, number) => sum + number, 0);
  return {
    size: names.length, parent, level, path, total,
    name: (node) => (node === ROOT ? "all labels" : names[node]),
    text: (node) => (node === ROOT ? "no path" : path(node).map((one) => names[one]).join(" > ")),
    children: (node) => { const [from, to] = range(node); return Array.from({ length: to - from }, (_, i) => from + i); },
    hasChildren: (node) => range(node)[1] > range(node)[0],
    contains: (node, other) => { while (other > node) other = parent[other]; return node === other || node === ROOT; },
    images: (node) => (node === ROOT ? total : labelled[node]),
    predicted: (node) => (node === ROOT ? total : predicted[node]),
    right: (node) => (node === ROOT ? data.groupCounts[0] : right[node]),
    recall: (node) => (node === ROOT || !labelled[node] ? null : right[node] / labelled[node]),
    precision: (node) => (node === ROOT || !predicted[node] ? null : right[node] / predicted[node]),
  };
})();

// Returns all nodes, each before those below it, siblings side by side.
function depthFirst() {
  const order = [], waiting = tree.children(ROOT).reverse();
  while (waiting.length) {
    const node = waiting.pop();
    order.push(node);
    for (const child of tree.children(node).reverse()) waiting.push(child);
  }
  return order;
}

// Returns Wilson's 95% interval of a share.
function wilson(right, of) {
  const z = 1.959964, share = right / of, below = 1 + z * z / of;
  const middle = (share + z * z / (2 * of)) / below;
  const spread = (z / below) * Math.sqrt(share * (1 - share) / of + z * z / (4 * of * of));
  return [Math.max(0, middle - spread), Math.min(1, middle + spread)];
}

const STEPS = [0.25, 0.5, 0.7, 0.85, 0.95], STEP_NAMES = ["below 25%", "25–50%", "50–70%", "70–85%", "85–95%", "95–100%"];
const recallClass = (share) => (share === null ? "c-none" : `c${STEPS.filter((step) => share >= step).length}`);

// Images: those of the page, of the set's.

const images = data.images.map((row, number) => {
  const [name, group, label, open, labelProbability, picture, end, probabilities, otherEnd, otherProbabilities] = row;
  const other = otherEnd === undefined;
  return {
    number, name, group, label, open, labelProbability, picture, end, probabilities,
    answerEnd: other ? end : otherEnd, answerProbabilities: other ? probabilities : otherProbabilities,
    labelPath: tree.path(label),
  };
});

// Returns whether a label says that a node is right, wrong or nothing.
function judge(image, node) {
  const known = image.labelPath[tree.level[node]];
  if (known !== undefined) return known === node ? "right" : "wrong";
  return image.open && tree.contains(image.label, node) ? "unknown" : "wrong";
}

function photo(image) {
  if (image.picture < 0) return null;
  const alt = `${image.name}, labelled ${tree.text(image.label)}, predicted ${tree.text(image.end)}`;
  return make("img", { class: `photo${data.pixelated ? " pixelated" : ""}`, src: data.pictures[image.picture], alt });
}

const bar = (share) => make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width: ${(100 * share).toFixed(1)}%` }));

// Returns a path, a node a line: a sign, the name, and the probability as a bar and a number.
function pathList(image, end, probabilities, kept = Infinity) {
  const lines = tree.path(end).map((node, i) => {
    const [sign, style] = SIGNS[judge(image, node)];
    const share = data.thresholds ? [make("span", { class: "n" }, percent(probabilities[i])), bar(probabilities[i])] : [];
    const known = make("span", { class: style, title: judge(image, node) }, sign);
    return make("li", { class: i < kept ? "" : "cut" }, known, make("span", {}, tree.name(node)), ...share);
  });
  return make("ol", { class: "path" }, ...(lines.length ? lines : [make("li", {}, make("span", { class: "bad" }, "✗"), make("span", {}, "no path"))]));
}

// The chosen node, which sections follow.

const followers = [];
const follow = (listener) => followers.push(listener);
function choose(node) {
  followers.forEach((listener) => listener(node));
}

// Returns a field that finds nodes by their names.
function finder(label, found) {
  const list = make("ul", { hidden: true });
  const input = make("input", { type: "search", placeholder: label, "aria-label": label, autocomplete: "off" });
  const close = () => { list.hidden = true; list.replaceChildren(); };
  const take = (node) => { input.value = ""; close(); found(node); };
  input.addEventListener("input", () => {
    const word = input.value.trim().toLowerCase(), hits = [];
    for (let node = 0; word && node < tree.size && hits.length < 12; node++) {
      if (tree.name(node).toLowerCase().includes(word)) hits.push(node);
    }
    list.replaceChildren(...hits.map((node) => make("li", {}, make("button", { type: "button", on: { click: () => take(node) } }, tree.text(node)))));
    if (word && !hits.length) list.append(make("li", { class: "quiet small" }, "no label has this in its name"));
    list.hidden = !word;
  });
  const box = make("div", { class: "finder" }, input, list);
  box.addEventListener("keydown", (event) => {
    const first = list.querySelector("button");
    if (event.key === "Escape") close();
    if (event.key === "Enter" && event.target === input && first) first.click();
    if (event.key === "ArrowDown" && first) {
      const buttons = [...list.querySelectorAll("button")];
      buttons[Math.min(buttons.indexOf(document.activeElement) + 1, buttons.length - 1)].focus();
      event.preventDefault();
    }
  });
  box.addEventListener("focusout", (event) => { if (!box.contains(event.relatedTarget)) close(); });
  return box;
}

// Pictures of the sections that are text, and the theme.

for (const image of document.querySelectorAll("img[data-picture]")) image.src = data.pictures[image.dataset.picture];

(() => {
  const button = byId("theme"), themes = ["system", "light", "dark"];
  let theme = 0;
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    button.textContent = `Theme: ${themes[theme]}`;
    if (theme) document.documentElement.dataset.theme = themes[theme];
    else delete document.documentElement.dataset.theme;
  });
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
})();
