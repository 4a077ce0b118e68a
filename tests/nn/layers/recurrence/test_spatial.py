import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hierjax.errors import UserError
from hierjax.nn.layers.recurrence import diagonals, grid_recurrence
from hierjax.nn.layers.recurrence.grid_steps import FEWEST_OVER
from hierjax.nn.layers.recurrence.sequence import LSTM
from hierjax.nn.layers.recurrence.spatial import DIRECTIONS, SpatialRNN, spatial_recurrence
from spatial_oracle import Gradients, own_input_only, recurrence, recurrence_gradients

GATES = {"srn": 1, "lstm": 4}
ARGUMENTS = Gradients._fields
# What adds up over a large grid is compiled as users have it: unoptimised sums are less exact.
as_users_have_it = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})


def draw(rng, cell, directions, rows, columns, b=2, c=3, d=4, drive=True, scale=0.7, biases=0.5):
  """Returns the arguments of a recurrence in float64, its states of order 1, and a gradient of its output."""
  k, g = len(directions), GATES[cell] * d
  x, s, dy = (rng.normal(size=(b, rows, columns, n)) for n in (c, d, d))
  kernels = [rng.normal(size=(k, n, g)) * size / np.sqrt(n) for n, size in ((c, 1), (d, scale), (d, scale))]
  return (x, s if drive else None, *kernels, biases * rng.normal(size=(k, g))), dy


def single(arrays):
  return jax.tree.map(lambda a: np.asarray(a, np.float32), arrays)


@functools.partial(jax.jit, static_argnames=("cell", "directions"))
def run(*arguments, cell, directions):
  return spatial_recurrence(*arguments, cell=cell, directions=directions)


def run_and_differentiate(arguments, dy, cell, directions):
  y, back = jax.vjp(functools.partial(spatial_recurrence, cell=cell, directions=directions), *arguments)
  return y, Gradients(*back(dy))


def distance(a, b):
  """Returns max|a - b| / max|b| of each array that `b` has, by its name; where b is all 0, max|a|."""
  pairs = zip((a[0], *a[1]), (b[0], *b[1]), strict=True)
  named = {
    name: (np.asarray(u, float), v) for name, (u, v) in zip(("y", *ARGUMENTS), pairs, strict=True) if v is not None
  }
  assert all(np.isfinite(u).all() for u, _ in named.values())  # of NaN, nothing is larger than another
  return {name: np.abs(u - v).max() / (np.abs(v).max() or 1) for name, (u, v) in named.items()}


def by_the_equations(arguments, dy, cell, directions):
  how = {"cell": cell, "directions": directions}
  return recurrence(*arguments, **how), recurrence_gradients(*arguments, dy=dy, **how)


@pytest.mark.parametrize("cell", GATES)
def test_the_oracles_gradients_are_its_differences(rng, cell):
  arguments, dy = draw(rng, cell, DIRECTIONS, 3, 4)
  gradients = recurrence_gradients(*arguments, cell=cell, directions=DIRECTIONS, dy=dy)
  for n, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
    step = 1e-6 * rng.normal(size=argument.shape)
    above, below = (
      recurrence(*arguments[:n], argument + s, *arguments[n + 1 :], cell=cell, directions=DIRECTIONS)
      for s in (step, -step)
    )
    assert ((above - below) * dy).sum() / 2 == pytest.approx((gradient * step).sum(), rel=1e-6), ARGUMENTS[n]


@pytest.mark.parametrize(
  ("cell", "rows", "columns", "directions", "sizes"),
  [
    ("srn", 3, 5, ("nw", "ne", "sw", "se"), {"b": 1, "d": 16}),
    ("srn", 5, 2, ("se", "ne", "nw"), {"c": 5, "drive": False}),
    ("srn", 9, 12, ("sw", "ne"), {"b": 1, "c": 2, "d": 6}),
    ("lstm", 1, 1, ("ne",), {}),
    ("lstm", 6, 7, ("se", "sw", "ne"), {"b": 1, "c": 6, "d": 12, "drive": False}),
    ("lstm", 13, 13, ("nw", "ne", "sw", "se"), {"c": 8, "d": 8}),
  ],
)
def test_values_and_all_gradients_are_the_equations(rng, cell, rows, columns, directions, sizes):
  """Few examples of a wide state, and many of a narrow one: a kernel's gradient is summed in another way for each."""
  arguments, dy = draw(rng, cell, directions, rows, columns, **sizes)
  compiled = (as_users_have_it if rows * columns > 150 else jax.jit)(run_and_differentiate, static_argnums=(2, 3))
  ours = compiled(single(arguments), single(dy), cell, directions)
  off = distance(ours, by_the_equations(arguments, dy, cell, directions))
  assert {a.dtype for a in jax.tree.leaves(ours)} == {np.dtype("float32")}
  assert set(off) == {"y", *ARGUMENTS} - ({"drive"} if arguments[1] is None else set())
  assert max(off.values()) <= 1e-5, off


@pytest.mark.parametrize("cell", ["srn", pytest.param("lstm", marks=pytest.mark.slow)])
def test_on_a_large_grid_it_is_as_exact_as_a_plain_loop(rng, cell):
  how = cell, ("nw", "se")
  arguments, dy = draw(rng, *how, 24, 8)
  exact = by_the_equations(arguments, dy, *how)
  plain = distance(by_the_equations(single(arguments), single(dy), *how), exact)
  compiled = as_users_have_it(run_and_differentiate, static_argnums=(2, 3))
  ours = distance(compiled(single(arguments), single(dy), *how), exact)
  assert all(ours[name] <= 3 * plain[name] for name in plain), (ours, plain)


@pytest.fixture
def unroll(monkeypatch):
  """Sets how many diagonals at most are steps of their own; grids of more have loops, and images side by side."""

  def set_to(diagonals_at_most, fewest_rows=100):
    monkeypatch.setattr(diagonals, "_UNROLLED", diagonals_at_most)
    monkeypatch.setattr(diagonals, "_FEWEST_ROWS", fewest_rows)
    diagonals.layout_of.cache_clear()

  yield set_to
  diagonals.layout_of.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize(("scale", "biases", "plain_times"), [(0.5, 0.1, 0), (0.7, 0.5, 4)])
def test_values_and_all_gradients_are_the_equations_on_random_shapes(
  cell, seed, scale, biases, plain_times, unroll, monkeypatch
):
  """Within 1e-5 where the neighbours' kernels are as large as new layers have them, and the biases small.

  With larger ones gates stay open, and over 13 x 13 cells an LSTM's memories may grow so much that a plain float32 loop
  is off by more than that: there, within 4 times of what it is. Every second seed on one device, with loops, and images
  side by side where the batch has several.
  """
  rng = np.random.default_rng([seed, len(cell)])
  rows, columns = (13, 13) if seed < 2 else rng.integers(1, 14, 2).tolist()
  directions = tuple(rng.permutation(DIRECTIONS)[: rng.integers(1, 5)].tolist())
  sizes = dict(zip("bcd", rng.integers(1, (9, 25, 41)).tolist(), strict=True))
  sizes |= {"drive": bool(rng.integers(2)), "scale": scale, "biases": biases}
  arguments, dy = draw(rng, cell, directions, rows, columns, **sizes)
  if seed % 2:
    unroll(3, fewest_rows=1)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
  fresh = lambda *given: run_and_differentiate(*given, cell, directions)  # noqa: E731 - of a known one, JAX has the trace
  found = as_users_have_it(fresh)(single(arguments), single(dy))
  exact = by_the_equations(arguments, dy, cell, directions)
  off = distance(found, exact)
  plain = distance(by_the_equations(single(arguments), single(dy), cell, directions), exact)
  allowed = max(1e-5, plain_times * max(plain.values()))
  assert max(off.values()) <= allowed, (rows, columns, directions, sizes, off, plain)


@pytest.mark.parametrize("cell", GATES)
# From so many channels on, loops write the gates over the inputs' product, and their gradients over the gates.
@pytest.mark.parametrize("width", [4, FEWEST_OVER])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
def test_diagonals_in_loops_are_the_same_as_single_ones(rng, cell, width, dtype, tolerance, unroll):
  how = cell, ("nw", "se")
  (x, drive, *weights), dy = single(draw(rng, *how, 4, 6, d=width))
  arguments = (x.astype(dtype), drive.astype(dtype), *weights)

  def text_and_result(diagonals_at_most):
    unroll(diagonals_at_most)
    fresh = lambda *given: run_and_differentiate(*given, *how)  # noqa: E731 - of a known one, JAX has the trace
    lowered = jax.jit(fresh).lower(arguments, dy)
    return lowered.as_text(), jax.tree.map(lambda a: np.asarray(a, float), lowered.compile()(arguments, dy))

  (unrolled, expected), (looped, found) = text_and_result(9), text_and_result(3)
  assert "stablehlo.while" in looped and "stablehlo.while" not in unrolled
  assert any(mask is not None for mask in diagonals.layout_of(4, 6, how[1]).inside)
  off = distance(found, expected)
  assert set(off) == {"y", *ARGUMENTS} and max(off.values()) <= tolerance, off


@pytest.mark.parametrize(
  ("cell", "rows", "columns", "images", "directions", "diagonals_at_most", "drive", "width"),
  [
    ("srn", 3, 3, 4, DIRECTIONS, 3, True, 4),
    ("lstm", 5, 4, 6, ("se", "nw"), 3, True, 4),
    ("lstm", 2, 4, 5, ("sw", "ne"), 3, False, FEWEST_OVER),
    ("lstm", 3, 2, 3, ("nw", "se"), 50, True, 4),  # each diagonal a step of its own
  ],
)
def test_images_side_by_side_know_nothing_of_each_other(
  rng, cell, rows, columns, images, directions, diagonals_at_most, drive, width, unroll, monkeypatch
):
  unroll(diagonals_at_most)
  monkeypatch.setattr(jax, "device_count", lambda: 1)  # the tests see more, and one has sums of its own
  monkeypatch.setattr(grid_recurrence, "images_abreast", lambda *_: images)
  low, high = sorted((rows, columns))
  layout = diagonals.layout_of(low, high * images, directions, images)
  assert any(run.steps > 1 for run in layout.runs) == (diagonals_at_most == 3)
  assert any(where is not None for where in layout.joined)
  arguments, dy = draw(rng, cell, directions, rows, columns, b=2 * images, d=width, drive=drive)
  fresh = lambda *given: run_and_differentiate(*given, cell, directions)  # noqa: E731 - of a known one, JAX has the trace
  off = distance(jax.jit(fresh)(single(arguments), single(dy)), by_the_equations(arguments, dy, cell, directions))
  assert set(off) == {"y", *ARGUMENTS} - (set() if drive else {"drive"})
  assert max(off.values()) <= 1e-5, off


@pytest.mark.parametrize("width", [FEWEST_OVER - 1, FEWEST_OVER])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_step_of_a_loop_copies_what_all_steps_keep(rng, dtype, width, unroll):
  """XLA does so, silently, where it cannot tell that a step reads what none wrote before, or to write bfloat16."""
  unroll(3)
  how = "lstm", ("nw", "se")
  (x, _, *weights), dy = single(draw(rng, *how, 4, 20, d=width))
  arguments = (x.astype(dtype), None, *weights)
  text = as_users_have_it(lambda *given: run_and_differentiate(*given, *how)).lower(arguments, dy).compile().as_text()
  computations = dict(re.findall(r"^%([\w.-]+) \((.*?)^\}", text, re.MULTILINE | re.DOTALL))
  bodies = [computations[name] for name in set(re.findall(r"body=%([\w.-]+)", text))]
  assert len(bodies) > 1
  for body in bodies:
    inside = [body, *(computations[name] for name in re.findall(r"calls=%([\w.-]+)", body))]
    for computation in inside:
      made = re.findall(r" = \w+\[2,(\d+),2,(\d+)\]\S* (?:copy|convert)\(", computation)  # [k r b d]
      assert all(int(rows) <= 4 or int(channels) < width for rows, channels in made), computation


def test_without_a_gradient_a_loop_keeps_no_gates(rng, unroll):
  unroll(3)
  arguments, _ = single(draw(rng, "lstm", ("nw",), 4, 20, d=FEWEST_OVER))
  text = run.lower(*arguments, cell="lstm", directions=("nw",)).compile().as_text()
  assert "while(" in text
  gates = 4 * FEWEST_OVER
  assert not re.search(rf",{gates}\]\S* dynamic-update-slice\(", text)


def test_images_side_by_side_in_bfloat16(rng, unroll, monkeypatch):
  unroll(3)
  how = "lstm", ("nw", "se")
  (x, drive, *weights), dy = single(draw(rng, *how, 3, 4, b=4))
  arguments = (x.astype(jnp.bfloat16), drive.astype(jnp.bfloat16), *weights)
  found = []
  for images in (1, 4):
    monkeypatch.setattr(grid_recurrence, "images_abreast", lambda *_, images=images: images)
    y, gradients = jax.jit(lambda *given: run_and_differentiate(*given, *how))(arguments, dy)
    assert gradients.x.dtype == gradients.drive.dtype == jnp.bfloat16
    found.append(jax.tree.map(lambda a: np.asarray(a, float), (y, gradients)))
  off = distance(*found)
  assert max(off.values()) <= 0.02, off


def test_only_images_of_one_device_lie_side_by_side(rng, unroll, monkeypatch):
  unroll(3, fewest_rows=1)
  seen, layout_of = set(), diagonals.layout_of
  monkeypatch.setattr(grid_recurrence, "layout_of", lambda *given: seen.add(given[-1]) or layout_of(*given))
  how = {"cell": "lstm", "directions": ("nw",)}
  arguments, dy = single(draw(rng, *how.values(), 2, 3, b=24, d=FEWEST_OVER))
  for backend, devices, images in (("cpu", 1, 8), ("cpu", 4, 6), ("cpu", 8, 3), ("cpu", 16, 3), ("gpu", 1, 1)):
    with monkeypatch.context() as patch:
      patch.setattr(jax, "device_count", lambda devices=devices: devices)
      patch.setattr(jax, "default_backend", lambda backend=backend: backend)
      jax.eval_shape(lambda *given: spatial_recurrence(*given, **how), *arguments)
    assert seen == {images}
    seen.clear()
  mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
  split, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("batch",), ()))
  placed = jax.device_put((arguments, dy), ((split, split, whole, whole, whole, whole), split))
  compiled = jax.jit(lambda *given: run_and_differentiate(*given, **how)).lower(*placed).compile()
  assert seen == {6}
  text = compiled.as_text()
  assert "all-reduce" in text  # of the weights' gradients
  assert not any(op in text for op in ("all-gather", "all-to-all", "collective-permute"))
  off = distance(compiled(*placed), jax.jit(lambda *given: run_and_differentiate(*given, **how))(arguments, dy))
  assert max(off.values()) <= 1e-6, off


@pytest.mark.parametrize(("cell", "rows", "columns"), [("srn", 3, 4), ("lstm", 4, 3)])
def test_a_mirrored_map_and_swapped_directions_give_the_mirrored_map(rng, cell, rows, columns):
  (x, drive, *weights), _ = single(draw(rng, cell, DIRECTIONS, rows, columns))
  y = run(x, drive, *weights, cell=cell, directions=DIRECTIONS)
  for axis, swapped in ((2, ["ne", "nw", "se", "sw"]), (1, ["sw", "se", "nw", "ne"])):
    order = [DIRECTIONS.index(d) for d in swapped]
    flipped = run(
      np.flip(x, axis), np.flip(drive, axis), *(w[order] for w in weights), cell=cell, directions=DIRECTIONS
    )
    np.testing.assert_allclose(np.flip(flipped, axis), y, atol=1e-5)


def test_several_directions_are_the_sum_of_single_ones(rng):
  directions = ("sw", "ne", "nw")
  (x, drive, *weights), _ = single(draw(rng, "srn", directions, 2, 3))
  alone = [
    run(x, drive, *(w[k : k + 1] for w in weights), cell="srn", directions=(direction,))
    for k, direction in enumerate(directions)
  ]
  np.testing.assert_allclose(run(x, drive, *weights, cell="srn", directions=directions), sum(alone), atol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def ordinary(cell, inputs, kernel):
  """Returns the states of an RNN with ReLU, or an LSTM, over `inputs[b l g]`, which hold W_x x + b."""
  if cell == "lstm":
    return LSTM(kernel.shape[0]).apply({"params": {"hidden": {"kernel": kernel}}}, inputs)
  rnn = nn.RNN(nn.SimpleCell(kernel.shape[0], activation_fn=nn.relu))
  as_it_is = {"kernel": np.eye(*kernel.shape, dtype=np.float32), "bias": np.zeros(kernel.shape[1], np.float32)}
  return rnn.apply({"params": {"cell": {"i": as_it_is, "h": {"kernel": kernel}}}}, inputs)


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("side", ["row", "column"])
def test_one_row_or_column_is_an_ordinary_recurrence_both_ways(rng, cell, side):
  (x, _, w_x, w_row, w_column, bias), _ = single(draw(rng, cell, DIRECTIONS, 1, 5, drive=False))
  kernel, forward = (w_column, "w") if side == "row" else (w_row, "n")  # from the west, nw and sw go along a row alike
  expected = 0
  for k, direction in enumerate(DIRECTIONS):
    inputs = x[:, 0] @ w_x[k] + bias[k]
    way = slice(None, None, 1 if forward in direction else -1)
    expected += np.asarray(ordinary(cell, inputs[:, way], kernel[k]))[:, way]
  grid = x if side == "row" else np.swapaxes(x, 1, 2)
  y = run(grid, None, w_x, w_row, w_column, bias, cell=cell, directions=DIRECTIONS)
  np.testing.assert_allclose(np.asarray(y).reshape(expected.shape), expected, atol=1e-5)


def test_the_drive_enters_every_gate_of_every_direction(rng):
  (x, drive, _, *recurrent), _ = single(draw(rng, "lstm", DIRECTIONS, 2, 3, c=4))
  as_it_is = np.tile(np.eye(4, dtype=np.float32), (4, 1, 4))
  driven, given, without = (
    run(x, s, as_it_is, *recurrent, cell="lstm", directions=DIRECTIONS)
    for x, s in ((x, drive), (x + drive, np.zeros_like(drive)), (x, np.zeros_like(drive)))
  )
  np.testing.assert_allclose(driven, given, atol=1e-5)
  assert np.abs(driven - without).min() > 1e-6


def layer_and_arguments(rng, cell, **fields):
  """Returns a SpatialRNN, and random arguments of its recurrence, in float64."""
  layer = SpatialRNN(width=4, cell=cell, **fields)
  return layer, draw(rng, cell, layer.directions, 2, 3, c=4)[0]


def apply(layer, x, drive, *weights):
  return layer.apply({"params": dict(zip(ARGUMENTS[2:], weights, strict=True))}, x, drive)


@pytest.mark.parametrize("cell", GATES)
def test_the_module_is_the_recurrence_and_has_its_weights(rng, key, cell):
  layer, arguments = layer_and_arguments(rng, cell, directions=("ne", "sw"))
  x, drive, *weights = single(arguments)
  shapes = jax.eval_shape(layer.init, key, x)["params"]
  assert {name: leaf.shape for name, leaf in shapes.items()} == {
    name: w.shape for name, w in zip(ARGUMENTS[2:], weights, strict=True)
  }
  y = jax.jit(functools.partial(apply, layer))(x, drive, *weights)
  np.testing.assert_allclose(y, recurrence(*arguments, cell=cell, directions=("ne", "sw")), atol=1e-5)


@pytest.mark.parametrize("cell", GATES)
def test_without_neighbours_a_cell_depends_on_itself_alone(rng, key, cell):
  layer, arguments = layer_and_arguments(rng, cell, neighbours="input")
  x, drive, *weights = jax.device_put(single(arguments))

  @functools.partial(jax.jit, static_argnums=0)
  def influence(layer):
    """Returns the map, and how much each cell's input moves its cell (1, 1)."""
    y, back = jax.vjp(lambda x: apply(layer, x, drive, *weights), x)
    return y, jnp.abs(back(jnp.zeros_like(y).at[:, 1, 1].set(1.0))[0]).sum((0, 3))

  y, moves = influence(layer)
  np.testing.assert_allclose(y, own_input_only(*arguments, cell=cell, directions=DIRECTIONS), atol=1e-5)
  assert np.argwhere(moves).tolist() == [[1, 1]]
  assert (influence(layer.clone(neighbours="states"))[1] > 0).all()
  shapes = [jax.eval_shape(SpatialRNN(4, cell, neighbours=n).init, key, x) for n in ("states", "input")]
  assert jax.tree.map(jnp.shape, shapes[0]) == jax.tree.map(jnp.shape, shapes[1])


@pytest.mark.parametrize("cell", GATES)
def test_bf16_is_float32_within_its_tolerance(rng, cell):
  layer, arguments = layer_and_arguments(rng, cell)
  arguments = single(arguments)

  @functools.partial(jax.jit, static_argnums=0)
  def value_and_gradients(layer, arguments):
    def total(arguments):
      y = apply(layer, *arguments)
      return y.astype(jnp.float32).sum(), y

    return jax.grad(total, has_aux=True)(arguments)

  exact, exact_y = value_and_gradients(layer, arguments)
  half, half_y = value_and_gradients(layer.clone(dtype=jnp.bfloat16), arguments)
  assert {g.dtype for g in half} == {np.dtype("float32")}  # as the parameters are
  off = distance((half_y, half), jax.device_get((exact_y, exact)))
  assert 0 < max(off.values()) <= 0.05, off


def refusal(change, cell="lstm", directions=("nw", "se")):
  """Returns what is said to the arguments of a 2x3 map of 3 channels and width 4, one of them changed."""
  arguments = dict(zip(ARGUMENTS, single(draw(np.random.default_rng(0), "lstm", ("nw", "se"), 2, 3)[0]), strict=True))
  with pytest.raises(UserError) as caught:
    spatial_recurrence(*(arguments | change).values(), cell=cell, directions=directions)
  message = str(caught.value)
  assert "\n" not in message
  return message


@pytest.mark.usefixtures("without_shape_checks")
def test_unknown_cells_and_directions_are_refused():
  assert "gru" in (message := refusal({}, cell="gru")) and "srn" in message and "lstm" in message
  for directions in (("nw", "up"), (), ("nw", "nw")):
    message = refusal({}, directions=directions)
    assert all(direction in message for direction in (*DIRECTIONS, repr(directions)))


@pytest.mark.parametrize(
  ("name", "wrong", "right"),
  [
    ("drive", (2, 2, 3, 5), (2, 2, 3, 4)),
    ("drive", (2, 3, 2, 4), (2, 2, 3, 4)),
    ("input_kernel", (2, 5, 16), (2, 3, 16)),
    ("row_kernel", (2, 4, 12), (2, 4, 16)),
    ("column_kernel", (1, 4, 16), (2, 4, 16)),
    ("bias", (2, 4), (2, 16)),
  ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_channels_that_do_not_match_are_refused(name, wrong, right):
  message = refusal({name: np.zeros(wrong, np.float32)})
  assert all(part in message for part in (name, str(wrong), str(right)))


@pytest.mark.usefixtures("without_shape_checks")
def test_the_module_refuses_before_it_makes_weights(key):
  x = jnp.zeros((1, 2, 2, 3))
  for fields, drive, parts in (
    ({"cell": "gru"}, None, ("gru", "srn", "lstm")),
    ({"directions": ()}, None, DIRECTIONS),
    ({"directions": ("nw", "north")}, None, ("north", *DIRECTIONS)),
    ({"neighbours": "input"}, None, ("3", "4")),
    ({}, jnp.zeros((1, 2, 2, 3)), ("drive", "4")),
  ):
    with pytest.raises(UserError) as caught:
      jax.eval_shape(SpatialRNN(width=4, **fields).init, key, x, drive)
    assert all(part in str(caught.value) for part in parts)
