"""What a page says, against the predictions that it is of; names that would like to be markup; its size."""

import dataclasses
import re

import numpy as np
import pytest
from report_pages import Page, made_up, wide_tree

from hierjax.evaluation.label_errors import label_errors
from hierjax.evaluation.metrics.measure import facts_of, measured
from hierjax.evaluation.scores import NodeScores, known_part
from hierjax.report.page.findings.findings import About
from hierjax.report.page.sections.comparison import Pair, taken
from hierjax.report.page.sections.gallery import chosen, groups_of
from hierjax.report.page.sections.nodes import level_pairs
from hierjax.report.page.sections.summary import of_hundred
from hierjax.report.page.sections.thresholds import changing
from hierjax.report.page.write import render
from hierjax.types import Prediction

SECTIONS = [
  "summary", "tree", "gallery", "threshold", "confusions", "calibration", "learning", "classes", "labels", "provenance",
]  # fmt: skip


@pytest.fixture(scope="module")
def found():
  return made_up(wide_tree(4, 5))


@pytest.fixture(scope="module")
def page(found):
  return Page(render(found))


def test_the_sections_stand_in_their_order(page):
  assert [section["id"] for section in page.of("section")] == SECTIONS
  assert [link["href"] for link in page.of("a") if link["href"] != "#summary" or "class" not in link] == [
    f"#{name}" for name in SECTIONS
  ]


def test_the_summary_counts_of_a_hundred_images(found, page):
  groups = found.predictions.groups
  shares = of_hundred([int(mask.sum()) for mask in groups.values()])
  assert sum(shares) == 100
  said = [int(number) for number in re.findall(r"\d+", page.text.split("Of 100 photographs")[1][:200])][:3]
  assert said == shares
  for share, mask in zip(shares, groups.values(), strict=True):
    assert abs(share - 100 * mask.mean()) < 1


def test_hundredths_are_of_the_largest_remainders():
  assert of_hundred([1, 1, 1]) == [34, 33, 33] and of_hundred([0, 0, 5]) == [0, 0, 100]
  assert of_hundred([299, 1, 0]) == [100, 0, 0] and of_hundred([0, 0]) == [0, 0]


def test_every_card_and_metric_has_its_interval(found, page):
  metrics = measured(found.facts)
  for name in ("path_accuracy", "coverage_95"):
    low, high = metrics["intervals"][name]
    assert f"{100 * metrics[name]:.2f}%" in page.text
    assert f"95% interval: {100 * low:.2f}% to {100 * high:.2f}%" in page.text
  for level, value in enumerate(metrics["level_accuracy"]):
    assert f"level {level + 1} accuracy" in page.text and f"{100 * value:.2f}%" in page.text


def test_three_accuracies_of_a_level_are_told_apart_in_words(page):
  words = " ".join(page.text.split())
  assert "Level accuracy is of the decoded path; raw level accuracy of the model's own best node" in words
  assert "So the three differ" in words
  assert "Of the predicted nodes alone" in words and "as it does in level accuracy" in words


def test_the_tree_has_the_counts_of_each_node(found, page):
  tree, scores = page.data["tree"], NodeScores.of(found.predictions, found.tree)
  for name in ("labelled", "predicted", "right"):
    assert tree[name] == getattr(scores, name).tolist()
  assert tree["names"] == list(found.tree.names) and sum(tree["children"]) == found.tree.num_nodes


def test_confusions_of_a_level_are_counted_one_by_one(found):
  labels, paths = found.predictions.labels, known_part(found.predictions)
  counts = {}
  for label, path in zip(labels.tolist(), paths.tolist(), strict=True):
    for a, b in zip(label, path, strict=True):
      if a >= 0 and a != b:
        counts[a, b] = counts.get((a, b), 0) + 1
  assert {(a, b): n for a, b, n in level_pairs(found.predictions, found.tree).tolist()} == counts


def test_the_gallery_has_every_group_and_label_before_any_has_many(found):
  rows = chosen(found, most=90)
  groups, ends = groups_of(found.predictions)[rows], found.facts.label_ends[rows]
  assert len(set(rows)) == 90 and len(set(groups.tolist())) == 3
  for group in range(3):
    counts = np.bincount(ends[groups == group], minlength=found.tree.num_nodes)
    available = np.bincount(
      found.facts.label_ends[groups_of(found.predictions) == group], minlength=found.tree.num_nodes
    )
    least = counts.max() - 1
    assert (counts >= np.minimum(available, least)).all()


def test_images_have_their_labels_paths_and_probabilities(found, page):
  names = {found.name_of(row): row for row in range(len(found.numbers))}
  assert len(page.data["images"]) > 200
  for name, group, label, _, label_probability, picture, end, probabilities in page.data["images"]:
    row = names[name]
    assert list(found.predictions.groups.values())[group][row] and label == found.facts.label_ends[row]
    assert end == found.predictions.ends[row] and page.data["pictures"][picture].startswith("data:image/png;base64,")
    np.testing.assert_allclose(probabilities, found.predictions.probability[row][: len(probabilities)], atol=1e-5)
    assert label_probability == pytest.approx(found.predictions.label_probability[row], abs=1e-5)


def test_thresholds_have_the_metrics_of_evaluate(found, page):
  confidence = np.minimum.accumulate(found.predictions.probability, axis=1)
  data = page.data["thresholds"]
  for i in (0, 30, 60, len(data["grid"]) - 1):
    named = ((confidence >= data["grid"][i]) & (found.predictions.paths >= 0)).sum(axis=1)
    assert data["coverage"][i] == pytest.approx((named > 0).mean(), abs=1e-5)
    for level in range(2):
      assert data["levels"][i][level] == pytest.approx((named == level + 1).mean(), abs=1e-5)
    right = [
      (found.predictions.paths[row][:n] == found.predictions.labels[row][:n]).all() for row, n in enumerate(named) if n
    ]
    assert data["accuracy"][i] == (pytest.approx(np.mean(right), abs=1e-5) if right else None)
  ends = found.predictions.end_probability[changing(found)]
  assert ends.min() < 0.4 and ends.max() > 0.8  # so that moving the threshold changes some of them


def test_labels_in_doubt_are_ordered_by_the_number_that_they_show(found, page):
  """Once, the "surest mistakes" were ordered by one probability and labelled with another."""
  doubts = label_errors(found.predictions.labels, found.facts.scored.nodes.label, found.likely, found.tree)
  section = page.text.split("Labels that are likely wrong")[1].split("Provenance")[0]
  blocks = re.split(r"level \d: \d+ in doubt", section)[1:]
  assert blocks
  for block, level in zip(blocks, [t for t in range(2) if len(doubts.at(t))], strict=True):
    margins = [float(text.replace("\N{MINUS SIGN}", "-")) for text in re.findall(r"margin (\S+)", block)]
    wanted = doubts.margin[doubts.at(level), level][: len(margins)]
    assert margins == sorted(margins)
    np.testing.assert_allclose(margins, wanted, atol=6e-4)
    labels = [float(text) for text in re.findall(r"label: .*? (\d+\.\d+)%", block)]
    np.testing.assert_allclose(labels, 100 * doubts.label[doubts.at(level), level][: len(labels)], atol=6e-3)


HOSTILE = [
  "<script>alert(1)</script>",
  "</script><b>x",
  "a \"quoted\" 'name'",
  "{{ 7 * 7 }}",
  "&amp;",
  "<!--",
  "=1+1",
  "x > y",
]


def hostile_findings():
  tree = wide_tree(2, 4, lambda level, i: f"{HOSTILE[i % len(HOSTILE)]} {level}")
  about = About(
    "<run>", "<i>split", "<b>things", [("<u>command", "</td><script>")], config='{"x": "</pre>"}', notes=["<s>"]
  )
  return made_up(tree, count=60, about=about, name_of=lambda row: f"</script><img src=x onerror=alert({row})>.jpg")


def test_names_are_text_wherever_they_stand():
  text = render(hostile_findings())
  page = Page(text)
  assert page.tags.count("script") == 2 and not {"u", "s", "run"} & set(page.tags)
  assert all("onerror" not in attributes for _, attributes in page.attributes)
  assert page.data["tree"]["names"][2].startswith(HOSTILE[0]) and page.data["name"] == "<run>"
  for words in ("<run>", "</script>", "{{ 7 * 7 }}", '"quoted"', "<s>", "</pre>"):
    assert words in page.text, words


def test_the_page_asks_for_nothing():
  page = Page(render(made_up(wide_tree(2, 3), count=40)))
  policy = next(meta["content"] for meta in page.of("meta") if "content" in meta and "default-src" in meta["content"])
  assert policy.startswith("default-src 'none'; img-src data:;") and "'sha256-" in policy
  assert not page.of("link") and not [one for one in page.of("script") if "src" in one]
  assert all(link["href"].startswith("#") for link in page.of("a"))


def test_tables_and_pictures_speak(page):
  assert all("scope" in one for one in page.of("th"))
  assert all(one["alt"] for one in page.of("img"))
  for one in page.of("svg"):
    assert one.get("role") in ("img", "tree") and one["aria-label"]


def test_ten_thousand_classes_take_less_than_five_megabytes():
  tree = wide_tree(100, 100, lambda level, i: f"a species with a long name {i}" if level else f"family {i}")
  found = made_up(tree, count=4000, pictures=0)
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (64, 160, 160, 3), dtype=np.uint8)  # the pictures that compress worst
  found = dataclasses.replace(found, pictures=lambda rows: [noise[row % 64] for row in rows], side=160)
  assert len(render(found).encode()) < 5_000_000


def test_predictions_without_probabilities_leave_out_what_needs_them(found):
  facts = dataclasses.replace(found.facts, scored=found.facts.scored.replace(nodes=None))
  page = Page(render(dataclasses.replace(found, facts=facts, likely=None, pictures=None, side=0, curves=())))
  assert page.data["thresholds"] is None and page.data["pictures"] == [] and len(page.data["images"]) > 200
  words = " ".join(page.text.split())
  assert "Not measured: these predictions have no probabilities" in words and "Not looked for" in words
  assert "learning" not in [section["id"] for section in page.of("section")]
  assert "There are no pictures here" in words


def test_without_any_known_label_the_page_says_so():
  found = made_up(wide_tree(2, 3), count=9)
  tree = found.tree
  prediction = Prediction.from_leaf_probs(np.full((9, 6), 1 / 6), tree)
  facts = facts_of(prediction, tree.encode(np.full(9, -1)), tree)
  page = Page(render(dataclasses.replace(found, facts=facts, shortened=facts.predictions)))
  assert "No label of these photographs is known" in page.text and page.data["images"] == []


def test_two_runs_stand_side_by_side(found):
  other = made_up(found.tree, signal=1.5)
  pair = Pair.of(("first", "second"), found, other)
  page = Page(render(found, other=pair))
  right = [one.predictions.right for one in (found, other)]
  only = [(a & ~b).sum() for a, b in (right, right[::-1])]
  words = " ".join(page.text.split())
  assert f"McNemar's exact test, {only[0]} against {only[1]}: p = " in words
  assert f"Only first is right: {only[0]}" in words and f"Only second is right: {only[1]}" in words
  for one in (found, other):
    assert words.count(f"{100 * measured(one.facts)['path_accuracy']:.2f}%") >= 2  # its card, and the table
  assert [section["id"] for section in page.of("section")][:3] == ["summary", "comparison", "tree"]


def test_the_images_that_differ_are_those_that_one_alone_has_right(found):
  other = made_up(found.tree, signal=1.5)
  pair = Pair.of(("first", "second"), found, other)
  gain = found.predictions.label_probability - other.predictions.label_probability
  for by, sign in ((0, 1), (1, -1)):
    rows = pair.won(by)
    assert (np.diff(sign * gain[rows]) <= 0).all()
    assert pair.first.predictions.right[rows].all() if by == 0 else not pair.first.predictions.right[rows].any()


def test_pairs_are_of_the_images_that_both_could_read(found):
  other = made_up(found.tree, signal=1.5)
  kept = np.flatnonzero(np.arange(300) % 7)
  pair = Pair.of(("a", "b"), dataclasses.replace(found), dataclasses.replace(other, numbers=np.arange(300)))
  assert len(pair.first.numbers) == 300
  pair = Pair.of(("a", "b"), taken(found, kept), other)
  assert pair.second.numbers.tolist() == kept.tolist() == pair.first.numbers.tolist()
  assert pair.first.name_of(3) == found.name_of(int(kept[3]))
