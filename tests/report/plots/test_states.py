import csv
import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH, run_command
from matplotlib.colors import to_rgb

from hierjax.data.source import ArraySource, View
from hierjax.errors import UserError
from hierjax.inference.loaded_run import LoadedRun
from hierjax.report.plots import state_maps
from hierjax.report.plots import states as states_picture
from hierjax.report.plots.canvas import Page, name_points
from hierjax.report.plots.state_maps import (
  FEWEST,
  States,
  StateSample,
  Step,
  find_states,
  nearest_other,
  states_table,
  tsne,
)
from hierjax.report.plots.states import HEADER, draw_states, labels_at
from hierjax.report.plots.style import LIGHT, node_colours
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.tree.label_tree import PAD, STOP, LabelTree
from path_oracle import nodes_of

BAD = (3, 20)  # images of the training split


@pytest.fixture(scope="module")
def folder(make_run, small_config):
  """A run of CNN-RNN that has just begun; its set skips images that cannot be read."""
  config = small_config(neck=dict(name="none"), head=dict(name="path_rnn", width=6), data=dict(on_bad_image="skip"))
  return make_run(config, name="rnn")


@pytest.fixture(scope="module")
def found(folder):
  """What is found in 30 training images and two that cannot be read, all of the first 32."""
  open_split = Run.source

  def source(run, split):
    first = open_split(run, split)
    images = ArraySource(first.read(np.arange(32)), first.nodes[:32], "toys", bad=dict.fromkeys(BAD, "bad"))
    return View(images, np.arange(32), images.nodes)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Run, "source", source)
    return find_states(LoadedRun.open(folder, MESH), StateSample("train", images=32, seed=1))


def test_states_are_those_of_decoding_step_by_step(folder, found):
  run, tree = Run.from_folder(folder), found.run.tree
  head = run.method.module.head
  _, variables = run.restored_variables(folder, MESH)
  pixels = found.source.read(np.arange(30))[:, 2:18, 2:18].astype(np.float32)

  @jax.jit
  def start(inputs):
    features = run.method.module.apply(variables, inputs, method="features")
    return head.apply({"params": variables["params"]["head"]}, features, method="image_gates")

  @jax.jit
  def step(carry, previous, image):
    return head.apply({"params": variables["params"]["head"]}, carry, previous, image, method="step")

  assert found.source.indices.tolist() == [i for i in range(32) if i not in BAD]
  image = start((pixels / 255 - 0.5) / 0.25)
  carry = (jnp.zeros((30, 1, 6)), jnp.zeros((30, 1, 6)))
  last, going = np.full((30, 1), -1, np.int32), np.ones(30, bool)
  for t, own in enumerate(found.steps):
    carry, log_prob = step(carry, jnp.asarray(last), image)
    for i in np.flatnonzero(going):
      node = int(last[i, 0])
      below = [*tree.children(node)] or [STOP]
      best = max(below, key=lambda token: log_prob[i, 0, token if token >= 0 else tree.num_nodes])
      last[i], going[i] = max(node, best), best >= 0
    assert own.images.tolist() == np.flatnonzero(going).tolist()
    assert (found.paths[:, t] == np.where(going, last[:, 0], PAD)).all()
    np.testing.assert_allclose(own.states, np.asarray(carry[0])[going, 0], rtol=1e-4, atol=1e-6)
  assert len(found.steps) == tree.depth and len({len(own.images) for own in found.steps}) > 1  # some end early


def test_the_nearest_other_state_is_that_of_a_full_search(rng):
  x = rng.normal(size=(40, 7)).astype(np.float32)
  x[5] = x[9]  # equal states are each other's nearest
  distance = ((x[:, None].astype(np.float64) - x[None]) ** 2).sum(axis=-1)
  np.fill_diagonal(distance, np.inf)
  np.testing.assert_array_equal(nearest_other(x), distance.argmin(axis=1))
  np.testing.assert_array_equal(nearest_other(x[:2]), [1, 0])


def test_a_map_keeps_groups_apart_and_is_the_same_each_time(rng):
  group = np.repeat(np.arange(3), 10)
  x = (30 * rng.normal(size=(3, 60))[group] + rng.normal(size=(30, 60))).astype(np.float32)
  first = tsne(x)
  np.testing.assert_array_equal(first, tsne(x))
  assert first.shape == (30, 2)
  np.testing.assert_array_equal(group[nearest_other(first)], group)


def test_few_states_make_a_small_map_and_fewer_none(rng):
  x = rng.normal(size=(FEWEST, 3)).astype(np.float32)
  assert np.isfinite(tsne(x)).all()
  x[-1] = x[0]
  assert tsne(x) is None and tsne(x[:0]) is None


def test_the_table_the_summary_and_the_picture_say_what_was_found(folder, found):
  path = draw_states(folder, found)
  assert sorted(p.name for p in path.parent.iterdir()) == ["states.csv", "states.png"]
  rows = list(csv.DictReader(path.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
  assert tuple(rows[0]) == HEADER and len(rows) == sum(len(step.images) for step in found.steps)
  tree, names = found.run.tree, [found.source.name_of(i) for i in range(30)]
  lines = states_table(found).splitlines()
  assert lines[0].startswith("30 images of train")
  for number, (step, line) in enumerate(zip(found.steps, lines[3 : 3 + len(found.steps)], strict=True), 1):
    own = [row for row in rows if row["step"] == str(number)]
    assert [names.index(row["image"]) for row in own] == step.images.tolist()
    same_top, same_whole = [], []
    for row, image in zip(own, step.images, strict=True):
      assert row["label"] == tree.path_text(found.source.nodes[image, 0])
      assert row["predicted"] == tree.path_text(nodes_of(found.paths[image])[-1])
      if len(own) == 1:
        assert row["nearest"] == row["same_top_label"] == row["same_whole_label"] == ""
        continue
      label = next(other["label"] for other in own if other["image"] == row["nearest"])
      same_top.append(label.split("/")[0] == row["label"].split("/")[0])
      same_whole.append(label == row["label"])
      assert (row["same_top_label"], row["same_whole_label"]) == (f"{same_top[-1]:d}", f"{same_whole[-1]:d}")
    if step.places is not None:
      np.testing.assert_allclose([[float(row["x"]), float(row["y"])] for row in own], step.places, atol=1e-4)
    rates = [f"{100 * np.mean(same):.2f}%" if same else "-" for same in (same_top, same_whole)]
    assert line.split() == [str(number), str(len(own)), *rates]
  shutil.rmtree(path.parent)


def invented(found, tops, sizes, rng):
  """Returns steps of `sizes` random states of labels that are all on the top level."""
  n = max(sizes)
  tree = LabelTree.from_children([f"${i}" for i in range(tops)], [tops] + [0] * tops)
  nodes = np.minimum(np.arange(n) % (tops + 3), tops - 1)[:, None]  # of the last one there are four
  source = View(ArraySource(np.zeros((n, 2), np.float32), nodes), np.arange(n), nodes)
  steps = []
  for size in sizes:
    nearest = np.roll(np.arange(size), 1) if size > 1 else np.full(size, -1)
    places = rng.normal(size=(size, 2)).astype(np.float32) if size >= FEWEST else None
    steps.append(Step(np.arange(size), np.zeros((size, 1), np.float32), nearest, places))
  return States(dataclasses.replace(found.run, tree=tree), "test", source, nodes, tuple(steps))


def test_dots_have_the_colour_of_their_label_at_the_level_of_the_step(found, tmp_path, monkeypatch):
  drawn, named = [], []
  scatter, name = states_picture.Axes.scatter, states_picture.name_points
  monkeypatch.setattr(
    states_picture.Axes,
    "scatter",
    lambda axes, x, y, **how: drawn.append((x, y, how["c"])) or scatter(axes, x, y, **how),
  )
  monkeypatch.setattr(states_picture, "name_points", lambda axes, points: named.append(points) or name(axes, points))
  draw_states(RunFolder(tmp_path), found)
  tree, colours = found.run.tree, node_colours(found.run.tree)
  steps = [(number, step) for number, step in enumerate(found.steps) if step.places is not None]
  assert len(drawn) == len(steps) > 1
  for (number, step), (x, y, shown), points in zip(steps, drawn, named, strict=True):
    for place, colour in zip(np.stack([x, y], axis=1), shown, strict=True):
      (i,) = np.flatnonzero((step.places == place).all(axis=1))[:1]
      label = tree.path(int(found.labels[step.images[i]]))
      expected = colours[label[number]] if number < len(label) else to_rgb(LIGHT)
      np.testing.assert_allclose(colour, expected)
    for text, place in points.items():
      own = np.array([tree.names[node] == text if node >= 0 else False for node in labels_at(found, number)])
      np.testing.assert_allclose(place, np.median(step.places[own], axis=0))


def test_no_two_names_lie_on_each_other():
  page = Page(3.0, 3.0)
  axes = page.panel(0.2, 0.2, 2.6)
  axes.set(xlim=(0, 1), ylim=(0, 1))
  points = {"first": (0.5, 0.5), "second": (0.5, 0.505), "third": (0.5, 0.9), "$x$": (0.2, 0.1)}
  assert name_points(axes, {name: np.array(point) for name, point in points.items()}) == ["first", "third", "$x$"]


def test_steps_that_few_paths_reach_say_so(found, rng, tmp_path, monkeypatch):
  texts = []
  monkeypatch.setattr(states_picture.Page, "text", lambda page, left, top, text, **how: texts.append(text))
  few = invented(found, 3, (9, 2, 1, 0), rng)
  path = draw_states(RunFolder(tmp_path), few)
  assert sum("No map: fewer than 5 different states" in text for text in texts) == 3
  assert [text for text in texts if text.startswith("Step")][:2] == ["Step 1", "Step 2, that 2 of the paths reach"]
  assert sum("top label -, same whole label -" in text for text in texts) == 2
  *table, left_out = states_table(few).splitlines()
  assert [line.split()[2:] for line in table[-2:]] == [["-", "-"]] * 2
  assert left_out == "no map of step 2, 3, 4: fewer than 5 different states"
  last = path.with_suffix(".csv").read_text(encoding="utf-8").splitlines()[-1]
  assert last.endswith(",3,,,,,")


def test_a_head_without_states_is_named(context_run):
  with pytest.raises(UserError, match=r"config\.head\.name = 'flat': this head has no states to draw"):
    find_states(LoadedRun.open(context_run, MESH))


def test_images_of_which_none_can_be_read_get_a_clear_sentence(folder, monkeypatch):
  monkeypatch.setattr(
    state_maps, "_states_of", lambda *_: (np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros((0, 4, 6)))
  )
  with pytest.raises(UserError, match="--seed 0: none of the test images that it chooses can be read"):
    find_states(LoadedRun.open(folder, MESH), StateSample(images=5))


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--images=4"], "--images 4: choose from 5 to 10000"),
    (["--images=10001"], "--images 10001: choose from 5 to 10000"),
    (["--seed=-1"], "--seed -1: must be 0 or more"),
  ],
)
def test_mistakes_on_the_command_line_end_in_a_sentence(folder, flags, message):
  with pytest.raises(UserError, match=message):
    run_command("plot states", folder.path, *flags)
