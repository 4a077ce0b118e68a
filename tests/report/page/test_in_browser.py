"""The page in chromium: it opens, moves, filters and sorts, in both themes, on a phone and on a screen."""

import dataclasses
import re

import numpy as np
import pytest
from browser import PROGRAM, browser
from report_pages import made_up, wide_tree

from hierjax.evaluation.scores import NodeScores
from hierjax.report.page.findings.findings import About
from hierjax.report.page.sections.comparison import Pair
from hierjax.report.page.write import render
from hierjax.tree.label_tree import LabelTree

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs chromium: apt-get install chromium")

HOSTILE = (
  "<script>window.hacked = 1</script>",
  "</script><img src=x onerror='hacked = 1'>",
  "\"quoted\" '&amp;' {{ 7 }}",
)
WIDTHS = (400, 1280, 1600)


@pytest.fixture(scope="module")
def window():
  with browser() as opened:
    yield opened


@pytest.fixture(scope="module")
def found():
  return made_up(wide_tree(4, 5))


@pytest.fixture(scope="module")
def file(found, tmp_path_factory):
  path = tmp_path_factory.mktemp("pages") / "report.html"
  path.write_text(render(found))
  return path


def type_into(window, selector, word):
  field = f"document.querySelector({selector!r})"
  window.run(f"(f => {{ f.value = {word!r}; f.dispatchEvent(new Event('input')); }})({field})")


def text(window, selector):
  return window.run(f"document.querySelector({selector!r}).textContent")


def numbers(window, selector):
  return [float(number) for number in re.findall(r"\d+\.?\d*", text(window, selector).replace(",", ""))]


def click(window, selector):
  window.run(f"document.querySelector({selector!r}).dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_every_width_in_both_themes_without_an_error(window, file, width, dark):
  """Once, the page was 530 pixels wide on a phone of 400."""
  window.open(file, width, dark=dark)
  assert window.messages == []
  assert [address for address in window.requests if not address.startswith(("data:", "file:"))] == []
  assert window.run("document.documentElement.scrollWidth <= innerWidth")
  colour = window.run("getComputedStyle(document.body).backgroundColor")
  assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 200) == dark


def test_the_theme_has_a_switch(window, file):
  window.open(file, dark=False)
  seen = []
  for _ in range(3):
    click(window, "#theme")
    seen.append((text(window, "#theme"), window.run("getComputedStyle(document.body).backgroundColor")))
  assert [name for name, _ in seen] == ["Theme: light", "Theme: dark", "Theme: system"]
  assert seen[0][1] == seen[2][1] != seen[1][1]


def test_text_is_readable_in_both_themes(window, file):
  """The contrast of WCAG 2, at least 4.5."""
  script = """(() => {
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const channel = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const ground = (e) => {
      const colour = parse(getComputedStyle(e).backgroundColor);
      return colour.length < 4 || colour[3] > 0.9 ? colour : ground(e.parentElement);
    };
    return ['.quiet', 'nav a', '.good', '.bad', '.card h3', '.lead', 'summary', 'td', '.file'].map((s) => {
      const e = document.querySelector('main ' + s) ?? document.querySelector(s);
      const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort();
      return (b + 0.05) / (a + 0.05);
    });
  })()"""
  for dark in (False, True):
    window.open(file, dark=dark)
    assert min(window.run(script)) >= 4.5


def test_the_tree_opens_by_mouse_and_keyboard(window, file, found):
  window.open(file)
  scores = NodeScores.of(found.predictions, found.tree)
  drawn = lambda: window.run("[...document.querySelectorAll('[data-node]')].map(e => Number(e.dataset.node))")  # noqa: E731
  window.run("[...document.querySelectorAll('#tree-controls button')].find(b => b.textContent == 'Close all').click()")
  assert sorted(drawn()) == [-1, 0, 1, 2, 3]
  click(window, '[data-node="0"]')
  assert set(found.tree.children(0)) <= set(drawn()) and "t0" in text(window, "#details h3")
  assert f"{100 * scores.recall(0):.1f}%" in text(window, "#details dl")
  assert f"{100 * scores.precision(0):.1f}%" in text(window, "#details dl")
  assert window.run("document.querySelector('[data-node=\"0\"]').getAttribute('aria-expanded')") == "true"
  window.run("document.querySelector('[data-node=\"1\"]').focus()")
  window.key("ArrowRight")
  assert set(found.tree.children(1)) <= set(drawn())
  window.key("ArrowRight")
  assert window.run("Number(document.activeElement.dataset.node)") in found.tree.children(1)
  window.key("ArrowLeft")
  window.key("ArrowLeft")
  assert not set(found.tree.children(1)) & set(drawn())


def test_the_details_of_a_node_have_its_confusions_and_photographs(window, file, found):
  window.open(file)
  labels, ends = found.facts.label_ends, found.predictions.ends
  leaf = int(np.bincount(labels[~found.predictions.right]).argmax())
  window.run(f"choose({leaf})")
  others = np.bincount(ends[(labels == leaf) & (ends != leaf)])
  shown = text(window, "#details .bars")
  assert found.tree.names[int(others.argmax())] in shown and str(others.max()) in shown
  right, wrong = window.run("[...document.querySelectorAll('#details .thumbs')].map(e => e.children.length)")
  assert right and wrong
  said = window.run("[...document.querySelectorAll('#details .thumbs img')].map(e => e.alt)")
  assert all(found.tree.names[leaf] in alt for alt in said)


def test_size_is_of_images_and_colour_of_recall(window, file, found):
  window.open(file)
  scores = NodeScores.of(found.predictions, found.tree)
  seen = window.run(
    "[...document.querySelectorAll('g[data-node]')].map(e => [e, e.querySelector('circle:not(.ring)')])"
    ".map(([e, circle]) => [Number(e.dataset.node), Number(circle.getAttribute('r')), circle.classList[0]])"
  )
  rows = sorted((int(scores.labelled[node]), radius) for node, radius, _ in seen if node >= 0)
  assert [radius for _, radius in rows] == sorted(radius for _, radius in rows)
  steps = [0.25, 0.5, 0.7, 0.85, 0.95]
  for node, _, colour in seen:
    if node >= 0:
      assert colour == f"c{sum(scores.recall(node) >= step for step in steps)}"


def test_the_slider_moves_the_numbers_and_the_answers(window, file, found):
  window.open(file)
  data = window.run("data.thresholds")
  answers = set()
  for i in (0, 40, 70, len(data["grid"]) - 1):
    type_into(window, "#threshold-slider", str(i))
    assert float(text(window, "#threshold-value")) == data["grid"][i]
    assert numbers(window, "#coverage") == [pytest.approx(100 * data["coverage"][i], abs=0.06)]
    if data["accuracy"][i] is not None:
      assert numbers(window, "#selective-accuracy") == [pytest.approx(100 * data["accuracy"][i], abs=0.06)]
    mix = window.run("[...document.querySelectorAll('#threshold-mix i')].map(e => e.getBoundingClientRect().width)")
    shares = [*data["levels"][i], 1 - data["coverage"][i]]
    np.testing.assert_allclose(np.array(mix) / sum(mix), shares, atol=2e-3)
    answers.add(text(window, "#threshold-examples"))
  assert len(answers) == 4


def test_an_example_answers_as_abstaining_does(window, file, found):
  window.open(file)
  names = {found.name_of(row): row for row in range(len(found.numbers))}
  rows = [names[name] for name in window.run("data.examples.map(i => images[i].name)")]
  for threshold in (0.0, 0.5, 0.9):
    window.run(
      f"(s => {{ s.value = data.thresholds.grid.indexOf({threshold}); s.dispatchEvent(new Event('input')); }})"
      "(document.getElementById('threshold-slider'))"
    )
    said = window.run("[...document.querySelectorAll('#threshold-examples .answer')].map(e => e.textContent)")
    for row, answer in zip(rows, said, strict=True):
      kept = found.predictions.paths[row][found.predictions.probability[row] >= threshold]
      nodes = [node for node in kept.tolist() if node >= 0]
      right = all(node in found.predictions.labels[row] for node in nodes)
      sign = "–" if not nodes else "✓" if right else "✗"
      assert answer == f"{sign} {found.tree.names[nodes[-1]] if nodes else 'no answer'}"


def test_the_gallery_shows_a_group_and_a_node(window, file, found):
  window.open(file)
  shown = "[...document.querySelectorAll('#gallery-photos figure')].map(e => images[e.dataset.image])"
  for group, mask in enumerate(found.predictions.groups.values()):
    click(window, f'[data-group="{group}"]')
    assert {image["group"] for image in window.run(shown)} == {group}
    assert f"{mask.sum():,}" in text(window, f'[data-group="{group}"]')
  click(window, '[data-group="1"]')
  window.run("choose(2)")
  below = {2, *found.tree.children(2)}
  images = window.run(shown)
  assert images and all(image["label"] in below or image["end"] in below for image in images)
  click(window, "#gallery-clear")
  assert len(window.run(shown)) >= len(images)


def test_a_search_finds_nodes(window, file):
  window.open(file)
  type_into(window, "#gallery-controls input", "b13")
  assert window.run("[...document.querySelectorAll('#gallery-controls li')].map(e => e.textContent)") == ["t2 > b13"]
  window.run("document.querySelector('#gallery-controls li button').click()")
  assert "b13" in text(window, "#gallery-clear")


def test_the_table_of_classes_is_sorted_searched_and_saved(window, file, found):
  window.open(file)
  scores = NodeScores.of(found.predictions, found.tree)
  column = "[...document.querySelectorAll('#classes-table tbody tr')].map(e => e.children[{}].textContent)"
  header = "document.querySelectorAll('#classes-table th button')[{}].click()"
  window.run(header.format(3))
  recall = [float(cell.rstrip("%")) for cell in window.run(column.format(3)) if cell != "–"]
  assert recall == sorted(recall, reverse=True) and len(recall) == found.tree.num_nodes
  window.run(header.format(3))
  assert [float(cell.rstrip("%")) for cell in window.run(column.format(3))] == recall[::-1]
  assert window.run("document.querySelectorAll('#classes-table th')[3].getAttribute('aria-sort')") == "ascending"
  type_into(window, "#classes-controls input", "t1")
  assert all("t1" in name for name in window.run(column.format(0)))
  saved = window.run(
    "new Promise(done => { const make = URL.createObjectURL; URL.createObjectURL = (blob) => { blob.text().then(done); "
    "return make(blob); }; document.getElementById('classes-save').click(); })"
  )
  lines = [line.split(",") for line in saved.splitlines()]
  assert lines[0][:6] == ["class", "level", "images", "predicted", "right", "recall"] and len(lines) == 7
  for name, _, images, predicted, right, recall, *_ in lines[1:]:
    node = found.tree.find(name.split(" > "))
    counts = scores.labelled[node], scores.predicted[node], scores.right[node]
    assert (int(images), int(predicted), int(right)) == counts
    assert float(recall) == pytest.approx(scores.recall(node))


def test_bars_of_a_column_begin_at_one_place(window, file):
  """Once, a bar began where the number before it ended."""
  window.open(file)
  left = "e.children[{}].querySelector('.bar').getBoundingClientRect().left"
  lefts = f"[...document.querySelectorAll('#classes-table tbody tr')].map(e => {left})"
  for column in (3, 4):
    assert np.ptp(window.run(lefts.format(column))) < 0.5


def test_the_heat_map_has_the_counts_and_frames_of_the_tree(window, file, found):
  window.open(file)
  scores = NodeScores.of(found.predictions, found.tree)
  titles = window.run("[...document.querySelectorAll('#heat .cell title')].map(e => e.textContent)")
  right = [title for title in titles if " right, " in title]
  assert len(right) == (scores.right[4:] > 0).sum()
  ends = found.facts.label_ends
  for title in titles:
    if found_pair := re.match(r"t\d > (b\d+) predicted as t\d > (b\d+): (\d+)", title):
      label, predicted = (found.tree.names.index(name) for name in found_pair.groups()[:2])
      assert int(found_pair[3]) == ((ends == label) & (found.predictions.ends == predicted)).sum()
  assert len(window.run("[...document.querySelectorAll('#heat .block title')].map(e => e.textContent)")) == 4
  window.run("(s => { s.value = 0; s.dispatchEvent(new Event('change')); })(document.getElementById('heat-level'))")
  assert "4 labels" in text(window, "#heat-note")


def test_hostile_names_do_nothing(window, tmp_path):
  tree = wide_tree(3, 3, lambda level, i: f"{HOSTILE[i % 3]} {level} {i}")
  about = About(HOSTILE[0], HOSTILE[1], HOSTILE[2], [(HOSTILE[0], HOSTILE[1])], config=HOSTILE[1], notes=[HOSTILE[0]])
  found = made_up(tree, count=60, about=about, name_of=lambda row: f"{HOSTILE[row % 3]} {row}.jpg")
  other = dataclasses.replace(made_up(tree, count=60, signal=1.0), name_of=found.name_of)
  path = tmp_path / "hostile.html"
  path.write_text(render(found, other=Pair.of((HOSTILE[0], HOSTILE[1]), found, other)))
  window.open(path)
  for node in range(-1, tree.num_nodes):
    window.run(f"choose({node})")
  type_into(window, "#tree-controls input", "script")
  assert window.run("window.hacked === undefined") and window.messages == []
  assert window.run("document.querySelectorAll('script').length") == 2
  assert window.run("document.querySelectorAll('img[src=x]').length") == 0
  assert HOSTILE[0] in text(window, "h1") and HOSTILE[1] in text(window, "#details")


def test_sixteen_thousand_nodes_stay_fluid(window, tmp_path):
  sizes = [20, *[20] * 20, *[40] * 400]
  names = [f"node number {i}" for i in range(20 + 400 + 16_000)]
  tree = LabelTree.from_children(names, [*sizes, *[0] * 16_000])
  path = tmp_path / "large.html"
  path.write_text(render(made_up(tree, count=1500, pictures=8)))
  assert path.stat().st_size < 5_000_000
  window.open(path)
  assert window.messages == [] and window.run("document.querySelectorAll('[data-node]').length") < 200
  took = window.run(
    "(() => { const start = performance.now(); for (const node of [3, 60, 9000, -1, 15000, 200]) choose(node); "
    "return (performance.now() - start) / 6; })()"
  )
  assert took < 1000  # milliseconds of a slow machine that does other things; of a free one, a tenth


def test_it_prints_without_controls(window, file):
  window.open(file)
  assert window.pdf().startswith(b"%PDF")
  window.medium("print")
  shown = "['nav', '#theme', '.controls', '.slider'].map(s => getComputedStyle(document.querySelector(s)).display)"
  assert window.run(shown) == ["none"] * 4
  window.medium("")
