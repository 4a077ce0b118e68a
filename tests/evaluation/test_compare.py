import csv
import math
from fractions import Fraction

import jax
import numpy as np
import pytest
from commands import MESH, run_command
from PIL import Image

from hierjax.data.source import ArraySource
from hierjax.errors import UserError
from hierjax.evaluation.predictions import Predictions
from hierjax.evaluation.several_runs.compare import Comparison, compare, comparison_table, differences_table, mcnemar
from hierjax.inference.images import distinct_names, same_images
from hierjax.inference.loaded_run import LoadedRun
from hierjax.report.plots import comparison as module
from hierjax.report.plots.comparison import draw_comparison
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.tree.label_tree import PAD


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 5), (5, 1), (7, 7), (30, 12), (0, 9), (700, 670), (3000, 0)])
def test_mcnemar_is_twice_the_binomial_tail(b, c):
  n = b + c
  tail = Fraction(sum(math.comb(n, i) for i in range(min(b, c) + 1)), 2**n)
  np.testing.assert_allclose(mcnemar(b, c), float(min(Fraction(1), 2 * tail)), rtol=1e-12)


def test_mcnemar_by_hand():
  assert mcnemar(1, 5) == mcnemar(5, 1) == 2 * (1 + 6) / 64
  assert mcnemar(0, 1) == mcnemar(4, 4) == 1.0
  assert mcnemar(3000, 0) == 0.0  # below what a float can hold


@pytest.fixture
def comparison(rng, small_config):
  """Two invented tables of predictions for 60 images."""
  run = Run.from_config(small_config())
  nodes = rng.choice(run.tree.leaves[:4], (60, 1))
  images = rng.integers(0, 255, (60, 20, 20, 3), dtype=np.uint8)

  def predictions():
    right, p = rng.random(60) < 0.6, rng.random(60).astype(np.float32)
    end = np.where(right, nodes[:, 0], 1 + rng.choice(run.tree.leaves[:4], 60)).astype(np.int32)
    counted, paths = rng.random(60) < 0.9, np.maximum(run.tree.encode(end, "stop"), PAD)
    probability = np.where(paths >= 0, p[:, None], 0)
    empty, of_label = np.zeros(60), rng.random(60).astype(np.float32)
    return Predictions(counted, right, right, run.tree.encode(nodes[:, 0]), paths, probability, empty, of_label)

  return Comparison(("a", "b$"), run, "test", ArraySource(images, nodes, "toys"), (predictions(), predictions()))


def test_counts_and_cases_are_those_of_a_loop(comparison):
  a, b = comparison.predictions
  counts, gains = np.zeros((2, 2), int), {0: [], 1: []}
  for i in range(60):
    if a.counted[i] and b.counted[i]:
      counts[int(not a.right[i]), int(not b.right[i])] += 1
      if a.right[i] != b.right[i]:
        gain = a.label_probability[i] - b.label_probability[i]
        gains[int(b.right[i])].append((gain if a.right[i] else -gain, i))
  np.testing.assert_array_equal(comparison.counts(), counts)
  for by, found in gains.items():
    assert comparison.won(by).tolist() == [i for _, i in sorted(found, reverse=True)]
  text = comparison_table(comparison)
  assert f"{counts.sum()} images of test" in text
  assert [line.split()[-2:] for line in text.splitlines()[3:5]] == [[str(n) for n in row] for row in counts]
  assert f"p = {mcnemar(int(counts[0, 1]), int(counts[1, 0])):.3g}" in text


def test_the_table_and_the_picture_say_the_same(comparison, tmp_path, monkeypatch):
  texts = []
  original = module.Page.text

  def text(page, left, top, text, **how):
    texts.append((left, top, text + how.get("ending", ""), how.get("bold", False)))
    original(page, left, top, text, **how)

  monkeypatch.setattr(module.Page, "text", text)
  path = draw_comparison(RunFolder(tmp_path), comparison)
  with Image.open(path) as picture:
    assert picture.width > 1000
  rows = list(csv.DictReader(path.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
  shown = [*comparison.won(0)[:12], *comparison.won(1)[:6]]
  assert [row["image"] for row in rows] == [f"toys example {i}" for i in shown]
  said = [text for _, _, text, _ in texts]
  counts = comparison.counts()
  assert all(f"{count:,}" in said for count in counts.ravel().tolist())
  test = (
    f"McNemar's exact test, {counts[0, 1]} against {counts[1, 0]}: p = {mcnemar(*counts[[0, 1], [1, 0]].tolist()):.3g}"
  )
  assert test in said
  captions = [(text, bold) for _, _, text, bold in texts if text.endswith(")")]
  assert len(captions) == 2 * len(rows)
  for row, first, second in zip(rows, captions[::2], captions[1::2], strict=True):
    for (caption, bold), which in ((first, "first"), (second, "second")):
      name = row[f"{which}_predicted"].rsplit("/", 1)[-1]
      assert caption == f"{name} ({float(row[f'{which}_probability']):.2f})"
      assert bold == ((row["only_right"] == "a") == (which == "first"))
    gain = float(row["first_label_probability"]) - float(row["second_label_probability"])
    np.testing.assert_allclose(float(row["gain"]), gain if row["only_right"] == "a" else -gain, atol=2e-6)


def test_runs_that_agree_have_a_picture_that_says_so(comparison, tmp_path):
  same = Comparison(
    comparison.names, comparison.run, "test", comparison.source, (comparison.predictions[0], comparison.predictions[0])
  )
  assert comparison_table(same).endswith("0 against 0: p = 1")
  assert draw_comparison(RunFolder(tmp_path), same).exists()


def test_answers_are_those_of_the_runs(context_run, make_run, small_config):
  second = small_config(neck=dict(name="none"), data=dict(crop=12), batch_size=24)
  runs = context_run, make_run(second, seed=1, name="second")
  found = compare(*(LoadedRun.open(folder, MESH) for folder in runs))
  assert found.names == ("first", "second") and found.split == "test" and len(found.source) == 16
  true = found.source.nodes[:, 0]
  for folder, predictions in zip(runs, found.predictions, strict=True):
    run = Run.from_folder(folder)
    _, variables = run.restored_variables(folder, MESH)
    edge = (20 - run.data.crop) // 2
    pixels = found.source.read(np.arange(16))[:, edge : 20 - edge, edge : 20 - edge].astype(np.float32)
    logits = jax.jit(run.method.module.apply)(variables, (pixels / 255 - 0.5) / 0.25)  # of a softmax over the leaves
    prob = np.asarray(jax.nn.softmax(logits))
    leaves = run.tree.leaves
    np.testing.assert_array_equal(predictions.ends, leaves[prob.argmax(axis=1)])
    np.testing.assert_array_equal(predictions.right, predictions.ends == true)
    np.testing.assert_allclose(predictions.end_probability, prob.max(axis=1), rtol=1e-4)
    own = np.searchsorted(leaves, true)
    np.testing.assert_allclose(predictions.label_probability, prob[np.arange(16), own], rtol=1e-4)
    assert predictions.counted.all()
  accuracies = [f"{100 * predictions.right.mean():.2f}%" for predictions in found.predictions]
  (row,) = [line for line in differences_table(found).splitlines() if line.startswith("path accuracy")]
  assert row.split()[2:4] == accuracies and row.split()[5] == "to"


def without_weights(folder):
  return LoadedRun(folder, Run.from_folder(folder), 1, {}, MESH)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"tree": dict(levels=2)}, "have different label trees"),
    ({"data": dict(examples=120)}, "are not judged on the same images"),
    ({"data": dict(objects=2)}, "are not judged on the same images"),
  ],
)
def test_runs_that_cannot_be_compared_are_both_named(context_run, tmp_path, small_config, changes, message):
  other, config = RunFolder(tmp_path / "other"), small_config(neck=dict(name="none"), **changes)
  other.begin(config, Run.from_config(config).tree, "")
  with pytest.raises(UserError, match=message) as error:
    compare(without_weights(context_run), without_weights(other))
  assert str(context_run.path) in str(error.value) and str(other.path) in str(error.value)


def test_images_with_several_labels_are_refused(tmp_path, small_config):
  folders = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
  config = small_config(data=dict(objects=2))
  for folder in folders:
    folder.begin(config, Run.from_config(config).tree, "")
  with pytest.raises(UserError, match="'shapes' have several label paths"):
    compare(*map(without_weights, folders))


def test_other_pixels_under_the_same_labels_are_found(context_run):
  run = Run.from_folder(context_run)
  source = run.source("test")
  changed = ArraySource(source.read(np.arange(16)) // 2, source.nodes)
  assert same_images((run, run), source, source)
  assert not same_images((run, run), source, changed)


def test_images_that_cannot_be_read_are_left_out_of_the_comparison(context_run):
  run = Run.from_folder(context_run)
  source = run.source("test")
  images = source.read(np.arange(16))
  broken = ArraySource(images, source.nodes, bad={0: "broken", 7: "broken"})
  assert same_images((run, run), broken, broken)
  assert same_images((run, run), source, broken)
  images[7] = 255 - images[7]  # not looked at
  assert same_images((run, run), source, broken)
  images[8] = 255 - images[8]
  assert not same_images((run, run), source, broken)


def test_parts_of_a_set_with_the_same_labels_are_not_the_same_images(small_config):
  def part(resize, split_seed):
    # Its own validation images are to test on, so those to validate on are carved: few, so that some labels coincide.
    data = dict(resize=resize, split_seed=split_seed, test_split="validation", validation=0.04)
    run = Run.from_config(small_config(data=data, tree=dict(levels=1), neck=dict(name="none")))
    return run, run.source("validation")

  first, same = part(20, 0), part(24, 0)
  others = (part(24, seed) for seed in range(1, 100))
  other = next(o for o in others if np.array_equal(o[1].nodes, first[1].nodes))
  assert not np.array_equal(other[1].indices, first[1].indices)
  assert same_images((first[0], same[0]), first[1], same[1])
  assert not same_images((first[0], other[0]), first[1], other[1])


def test_names_are_as_long_as_it_takes(tmp_path):
  assert distinct_names([RunFolder(tmp_path / name / "run") for name in "ab"]) == ("a/run", "b/run")


def test_a_run_is_not_compared_with_itself(context_run):
  with pytest.raises(UserError, match="is named twice: name each run once"):
    run_command("compare", context_run.path, context_run.path)
