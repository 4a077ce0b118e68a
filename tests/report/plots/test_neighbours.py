import csv
import functools
import json
import shutil

import jax
import numpy as np
import pytest
from commands import MESH, run_command
from PIL import Image

from hierjax.data.source import ArraySource, View
from hierjax.errors import UserError
from hierjax.inference.loaded_run import LoadedRun
from hierjax.report.plots import neighbours as neighbours_picture
from hierjax.report.plots.neighbour_search import (
  LAYERS,
  NEAREST,
  Grid,
  Nearest,
  NeighbourQuery,
  find_grid,
  find_neighbours,
  neighbours_table,
)
from hierjax.report.plots.neighbours import HEADER, draw_neighbours
from hierjax.report.plots.style import ACCENT, BAD, GOOD
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run


@pytest.fixture(scope="module")
def folder(context_run):
  return context_run


@pytest.fixture(scope="module")
def answer(folder):
  return find_neighbours(LoadedRun.open(folder, MESH), NeighbourQuery(queries=3, seed=4, searched=90))


@pytest.mark.parametrize(("count", "most"), [(3, 1), (20, 1), (3, 2), (60, 5)])
def test_a_search_in_batches_is_a_sort_of_the_nearest_regions_of_all_images(count, most, rng):
  distance = rng.integers(0, 12, (2, 15, 4)).astype(np.float32)  # with ties
  mask = np.ones(15, np.float32)
  mask[[3, 14]] = 0
  found, update = Nearest.none(2, count), jax.jit(functools.partial(Nearest.updated, most=most))
  for rows in np.split(np.arange(15), 3):
    found = update(found, distance[:, rows], np.int32(100 + rows), mask[rows])
  found = jax.device_get(found)

  images = [image for image in range(15) if mask[image]]
  for query in range(2):
    nearest = [(image, cell) for image in images for cell in np.argsort(distance[query, image], kind="stable")[:most]]
    order = sorted(nearest, key=lambda region: distance[query][region])[:count]  # stable: earlier images first
    missing = count - len(order)
    assert found.image[query].tolist() == [100 + image for image, _ in order] + [-1] * missing
    assert found.cell[query].tolist()[: len(order)] == [cell for _, cell in order]
    values = [distance[query][region] for region in order] + [np.inf] * missing
    np.testing.assert_array_equal(found.distance[query], values)


def test_a_region_is_the_window_of_table_i():
  grid = Grid(index=0, rows=3, columns=3, height=13, width=13, layers=LAYERS)  # window 5, stride 4
  boxes = 13 * np.array([[box.top, box.left, box.bottom, box.right] for box in map(grid.box, range(9))])
  expected = [[4 * r, 4 * c, 4 * r + 5, 4 * c + 5] for r in range(3) for c in range(3)]
  np.testing.assert_allclose(boxes, expected)
  uneven = Grid(index=0, rows=2, columns=1, height=3, width=4, layers=LAYERS).box(1)
  np.testing.assert_allclose([uneven.top, uneven.left, uneven.bottom, uneven.right], [1 / 3, 0, 1, 1])


def regions(folder, source):
  """Returns the context and pooled features of each image's 3 x 3 regions, all images at once."""
  run = Run.from_folder(folder)
  _, variables = run.restored_variables(folder, MESH)
  pixels = source.read(np.arange(len(source)))[:, 2:18, 2:18].astype(np.float32) / 255

  @jax.jit
  def maps(variables, inputs):
    return run.method.module.apply(variables, inputs, method=lambda m, x: m.neck.regions(m.backbone(x), 1))

  pooled, context = maps(variables, (pixels - 0.5) / 0.25)
  return {"context map": np.asarray(context).reshape(-1, 9, 4), "pooled map": np.asarray(pooled).reshape(-1, 9, 4)}


def test_the_answer_is_that_of_an_exhaustive_search(folder, answer):
  assert tuple(answer.found) == LAYERS and len(answer.searched) == 90
  assert not np.array_equal(answer.found["context map"].image, answer.found["pooled map"].image)
  asked, searched = regions(folder, answer.queries), regions(folder, answer.searched)
  for layer, found in answer.found.items():
    for query, cell in enumerate(answer.cells):
      x, y = asked[layer][query, cell].astype(np.float64), searched[layer].astype(np.float64)
      distance = ((x - y) ** 2 / (abs(x) + abs(y) + 1e-10)).sum(axis=-1)
      np.testing.assert_allclose(found.distance[query], np.sort(distance.min(axis=1))[:NEAREST], rtol=1e-3, atol=1e-6)
      np.testing.assert_allclose(
        distance[found.image[query], found.cell[query]], found.distance[query], rtol=1e-3, atol=1e-6
      )
      assert len(set(found.image[query].tolist())) == NEAREST


def rgb(colour):
  return tuple(bytes.fromhex(colour[1:]))


def test_the_picture_and_the_table_say_what_was_found(folder, answer, monkeypatch):
  framed = []
  draw_frame = neighbours_picture.frame
  monkeypatch.setattr(neighbours_picture, "frame", lambda *how: framed.append(how[-1]) or draw_frame(*how))
  path = draw_neighbours(folder, answer)
  assert sorted(p.name for p in path.parent.iterdir()) == ["neighbours.csv", "neighbours.png"]
  with Image.open(path) as picture:
    colours = set(map(tuple, np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()))
  assert {rgb(ACCENT), rgb(BAD)} <= colours  # a region asked about, and a neighbour of another label
  header, *rows = csv.reader(path.with_suffix(".csv").read_text(encoding="utf-8").splitlines())
  assert tuple(header) == HEADER and len(rows) == 3 * (1 + 2 * NEAREST)
  rows = [dict(zip(header, row, strict=True)) for row in rows]
  queries = [row for row in rows if row["rank"] == "0"]
  for row in rows:
    expected = "" if row["rank"] == "0" else str(int(row["label"] == queries[int(row["query"]) - 1]["label"]))
    assert row["same_label"] == expected
  right = {"1": GOOD, "0": BAD}
  assert [c for c in framed if c in (GOOD, BAD)] == [right[r["same_label"]] for r in rows if r["rank"] != "0"]
  for query, row in enumerate(queries):
    box = answer.grid.box(int(answer.cells[query]))
    assert [float(row[side]) for side in ("top", "left", "bottom", "right")] == [
      16 * box.top, 16 * box.left, 16 * box.bottom, 16 * box.right
    ]  # fmt: skip
  hits = sum(row["same_label"] == "1" for row in rows if row["layer"] == "context map")
  assert neighbours_table(answer).splitlines()[-2].split() == ["context", "map", str(hits), str(3 * NEAREST)]


def test_a_seed_fixes_what_is_asked(folder, answer):
  again = find_neighbours(LoadedRun.open(folder, MESH), NeighbourQuery(queries=3, seed=4, searched=5))
  np.testing.assert_array_equal(again.queries.indices, answer.queries.indices)
  for found in again.found.values():  # only 5 images, so 5 answers
    assert ((found.image >= 0).sum(axis=1) == 5).all()
  draw_neighbours(folder, again)


@pytest.fixture
def broken(folder, tmp_path, monkeypatch):
  """Returns a function that gives a run like `folder`'s that skips bad images, some of its test images being bad."""
  shutil.copytree(folder.path, tmp_path / "run")
  config = folder.config()
  config["data"]["on_bad_image"] = "skip"
  (tmp_path / "run" / "config.json").write_text(json.dumps(config))
  open_split = Run.source

  def make(bad):
    def source(run, split):
      found = open_split(run, split)
      if split != "test":
        return found
      images = ArraySource(found.read(np.arange(len(found))), found.nodes, bad={int(i): f"{i} is bad" for i in bad})
      return View(images, np.arange(len(found)), found.nodes)

    monkeypatch.setattr(Run, "source", source)
    return RunFolder(tmp_path / "run")

  return make


def test_a_query_that_cannot_be_read_is_dropped(broken, answer):
  found = find_neighbours(
    LoadedRun.open(broken(answer.queries.indices[1:2]), MESH), NeighbourQuery(queries=3, seed=4, searched=90)
  )
  kept = [0, 2]
  np.testing.assert_array_equal(found.queries.indices, answer.queries.indices[kept])
  np.testing.assert_array_equal(found.queries.nodes, answer.queries.nodes[kept])
  np.testing.assert_array_equal(found.cells, answer.cells[kept])
  for layer, nearest in found.found.items():
    np.testing.assert_array_equal(nearest.image, answer.found[layer].image[kept])
    np.testing.assert_allclose(nearest.distance, answer.found[layer].distance[kept], rtol=1e-5, atol=1e-7)


def test_queries_of_which_none_can_be_read_get_a_clear_sentence(broken):
  with pytest.raises(UserError, match="--seed 4: none of the test images that it chooses can be read"):
    find_neighbours(LoadedRun.open(broken(range(16)), MESH), NeighbourQuery(queries=3, seed=4, searched=5))


def test_layers_that_are_equal_are_shown_once(small_config):
  spp = Run.from_config(small_config(neck=dict(name="context", cell="none", scales=(1, (2, 3)), hidden=(8,))))
  assert find_grid(spp, "2x3").layers == ("pooled map",)
  assert (find_grid(spp, "2x3").rows, find_grid(spp, "2x3").columns) == (2, 3)
  srn = Run.from_config(small_config())
  assert find_grid(srn, "1").layers == ("pooled map",) and find_grid(srn, "3").layers == LAYERS
  assert find_grid(srn, "3x3") == find_grid(srn, "3") and find_grid(srn, "1x1") == find_grid(srn, "1")
  assert find_grid(srn, "") == find_grid(srn, "3") and find_grid(spp, "") == find_grid(spp, "2x3")
  with pytest.raises(UserError, match="--scale 6: the scales of this run, in cells a side, are 1, 2x3"):
    find_grid(spp, "6")


def test_a_run_without_regions_gets_a_clear_sentence(small_config):
  with pytest.raises(UserError, match=r"config\.neck\.name = 'none': this run has no regions"):
    find_grid(Run.from_config(small_config(neck=dict(name="none"))), "3")


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--queries=0"], "--queries 0: choose from 1 to 100"),
    (["--searched=0"], "--searched 0: at least 1"),
    (["--seed", "-1"], "--seed -1: must be 0 or more"),
    (["--scale=2"], "--scale 2: the scales of this run, in cells a side, are 1, 3"),
  ],
)
def test_mistakes_on_the_command_line_end_in_a_sentence(folder, flags, message):
  with pytest.raises(UserError, match=message):
    run_command("plot neighbours", folder.path, *flags)


def test_against_another_run_its_layer_is_compared(folder, make_run, small_config, tmp_path):
  """Fig. 4: the context map of this run, and the pooled map of one without recurrences, each as by itself."""
  plain = make_run(small_config(neck=dict(name="context", cell="none", scales=(1, 3), hidden=(8,))), 1, name="spp")
  ours, theirs = (LoadedRun.open(run, MESH) for run in (folder, plain))
  wanted = NeighbourQuery(queries=3, seed=4, searched=90)
  both = find_neighbours(ours, wanted, theirs)
  alone = [find_neighbours(run, wanted) for run in (ours, theirs)]
  assert tuple(both.found) == ("context map", "spp: pooled map")
  for layer, single in zip(both.found, alone, strict=True):
    expected = single.found["context map" if single is alone[0] else "pooled map"]
    jax.tree.map(np.testing.assert_array_equal, both.found[layer], expected)
  other_data = LoadedRun.open(make_run(small_config(data=dict(examples=72)), 1, name="less"), MESH)
  with pytest.raises(UserError, match=r"--against .*less: its (test|train) images are not those of"):
    find_neighbours(ours, wanted, other_data)


def test_every_region_of_an_image_is_a_query_and_may_be_a_neighbour(folder):
  """Fig. 4: the neighbours are the nearest of all regions of all training images."""
  wanted = NeighbourQuery(queries=12, seed=4, searched=4, every=True)
  run = LoadedRun.open(folder, MESH)
  found = find_neighbours(run, wanted, run)
  assert found.cells.tolist() == [*range(9), *range(3)]
  assert len(set(found.queries.indices[:9].tolist())) == len(set(found.queries.indices[9:].tolist())) == 1
  asked, searched = (regions(folder, s)["context map"].astype(np.float64) for s in (found.queries, found.searched))
  for nearest in found.found.values():
    for query, cell in enumerate(found.cells):
      x = asked[query, cell]
      distance = ((x - searched) ** 2 / (abs(x) + abs(searched) + 1e-10)).sum(axis=-1)
      np.testing.assert_allclose(nearest.distance[query], np.sort(distance.ravel())[:NEAREST], rtol=1e-3, atol=1e-6)
      own = nearest.image[query], nearest.cell[query]
      np.testing.assert_allclose(distance[own], nearest.distance[query], rtol=1e-3, atol=1e-6)
      assert len(set(zip(*map(np.ndarray.tolist, own), strict=True))) == NEAREST  # of 4 images, each region once
