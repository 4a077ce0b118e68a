import math

import numpy as np
import pytest

from hierjax.nn.layers.recurrence import diagonals

GRIDS = [(rows, columns) for rows in range(1, 13) for columns in range(rows, 31)]
DIRECTIONS = ("nw", "ne", "sw", "se")


@pytest.fixture(params=[3, diagonals._UNROLLED, 50], ids="unrolled to {}".format)
def unrolled(request, monkeypatch):
  """How many diagonals at most are steps of their own: nearly none, as users have it, all."""
  monkeypatch.setattr(diagonals, "_UNROLLED", request.param)
  diagonals.layout_of.cache_clear()
  yield request.param
  diagonals.layout_of.cache_clear()


def rows_of(t, rows, columns):
  """Returns the rows that have a cell on diagonal t, by looking at all of them."""
  return {r for r in range(rows) if 0 <= t - r < columns}


@pytest.mark.usefixtures("unrolled")
def test_each_cell_is_once_in_the_step_of_its_diagonal():
  for rows, columns in GRIDS:
    runs = diagonals.schedule(rows, columns)
    assert [run.first + i for run in runs for i in range(run.steps)] == list(range(rows + columns - 1))
    seen = []
    for run in runs:
      cells = diagonals.run_cells(run, rows, columns)
      assert cells.shape == (run.steps, run.bottom - run.top)
      for step, window in np.argwhere(cells >= 0):
        r, q = divmod(cells[step, window], columns)
        assert (r, q) == (run.top + window, run.first + step - r), (rows, columns, run)
        seen.append(r * columns + q)
    assert sorted(seen) == list(range(rows * columns)), (rows, columns)


@pytest.mark.usefixtures("unrolled")
def test_each_cell_of_each_direction_is_found_at_its_place():
  for rows, columns in GRIDS:
    layout = diagonals.layout_of(rows, columns, DIRECTIONS)
    assert layout.place.shape == (4, rows * columns)
    for order, place in zip(layout.order, layout.place, strict=True):
      np.testing.assert_array_equal(order[place], np.arange(rows * columns), err_msg=f"{rows} x {columns}")


@pytest.mark.usefixtures("unrolled")
def test_a_layout_knows_where_its_runs_start_and_what_is_inside():
  for rows, columns in GRIDS:
    layout = diagonals.layout_of(rows, columns, DIRECTIONS)
    sizes = [run.steps * (run.bottom - run.top) for run in layout.runs]
    assert list(layout.starts) == [sum(sizes[:n]) for n in range(len(sizes) + 1)]
    assert layout.order.shape == (4, sum(sizes))
    for run, inside in zip(layout.runs, layout.inside, strict=True):
      cells = [rows_of(run.first + i, rows, columns) for i in range(run.steps)]
      expected = [[r in diagonal for r in range(run.top, run.bottom)] for diagonal in cells]
      found = np.ones_like(expected) if inside is None else inside
      np.testing.assert_array_equal(found, expected, err_msg=f"{rows} x {columns}, {run}")


@pytest.mark.usefixtures("unrolled")
def test_a_run_of_several_diagonals_has_the_states_before_them_too():
  for rows, columns in GRIDS:
    layout = diagonals.layout_of(rows, columns, DIRECTIONS)
    kept, starts = [], [0]
    for n, run in enumerate(layout.runs):
      before = [None] * (run.bottom - run.top if run.steps > 1 else 0)
      kept += before + layout.order[:, layout.starts[n] : layout.starts[n + 1]].T.tolist()
      starts.append(len(kept))
    assert list(layout.state_starts) == starts
    for k, places in enumerate(layout.state_place):
      assert [kept[place][k] for place in places] == list(range(rows * columns)), (rows, columns)


def test_a_direction_starts_in_its_corner():
  frames = diagonals.frames(2, 3, DIRECTIONS).tolist()
  assert frames == [[0, 1, 2, 3, 4, 5], [2, 1, 0, 5, 4, 3], [3, 4, 5, 0, 1, 2], [5, 4, 3, 2, 1, 0]]


@pytest.mark.usefixtures("unrolled")
def test_a_layout_knows_whose_right_neighbour_is_in_the_same_image():
  for rows, columns, images in ((1, 1, 3), (2, 3, 4), (3, 3, 2), (4, 5, 6)):
    layout = diagonals.layout_of(rows, images * columns, DIRECTIONS, images)
    earlier = diagonals.Run(0, 0, 0, 0)
    for run, joined in zip(layout.runs, layout.joined, strict=True):
      top, bottom = diagonals.rows_before(run, earlier)
      for i in range(run.steps):
        for row in range(top, bottom):
          column = run.first + i - row  # of the cell to the right of the step before's
          if 0 < column < images * columns:
            same = (column - 1) // columns == column // columns
            assert same == (joined is None or joined[i, row - top]), (run, i, row)
      earlier = run


def test_a_grid_of_several_images_wastes_no_more_than_one():
  for rows, columns in ((14, 14), (20, 28), (28, 28)):
    for images in (1, 2, 4, 8):
      layout = diagonals.layout_of(rows, images * columns, DIRECTIONS, images)
      assert layout.starts[-1] <= 1.16 * rows * columns * images
      assert len(layout.runs) <= (16 if images == 1 else 9)
      share = 1 if images == 1 else 1 / 3
      assert max(run.steps for run in layout.runs) <= math.ceil(share * (rows + images * columns - 1))


def test_how_many_images_lie_side_by_side():
  assert diagonals.images_abreast(6, 6, 32) == 1  # a small grid's diagonals are steps of their own
  assert [diagonals.images_abreast(28, 28, b) for b in (1, 4, 7, 8, 32, 256)] == [1, 1, 1, 2, 8, 8]
  assert diagonals.images_abreast(14, 14, 32) == 4  # 8 would leave 56 rows a product


def test_windows_hold_what_they_need_and_little_more(unrolled):
  """A run of several steps carries its states in its window, so that also holds the diagonal before the first."""
  for rows, columns in GRIDS:
    runs = diagonals.schedule(rows, columns)
    scanned = rows + columns - 1 > unrolled
    slack = max(1, int(rows * diagonals._SLACK)) if scanned else 0
    for run in runs:
      window, several = set(range(run.top, run.bottom)), run.steps > 1
      spans = [rows_of(t, rows, columns) for t in range(run.first - several, run.first + run.steps)]
      assert set().union(*spans) <= window, (rows, columns, run)
      assert len(window) - min(map(len, spans[several:])) <= slack, (rows, columns, run)
    assert len(runs) == rows + columns - 1 or scanned
    assert len(runs) < rows + columns - 1 or not scanned, (rows, columns)
