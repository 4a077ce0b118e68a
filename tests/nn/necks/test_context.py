import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.nn.layers.recurrence.spatial import DIRECTIONS
from hierjax.nn.necks.context import ContextNeck
from hierjax.types import Features
from spatial_oracle import layer_of_scales, max_pool

WEIGHTS = ("input_kernel", "row_kernel", "column_kernel", "bias")


def features_of(x):
  return Features(stages=(np.zeros((len(x), 2), np.float32), x), pooled=np.zeros((len(x), 3), np.float32))


def shapes_of(neck, *shape):
  return jax.eval_shape(neck.init, jax.random.key(0), features_of(np.zeros(shape, np.float32))).get("params", {})


def draw(rng, neck, *shape):
  """Returns a random map and random parameters, in float64."""
  params = jax.tree.map(
    lambda s: rng.normal(size=s.shape) * s.shape[-2 if s.ndim > 2 else 0] ** -0.5, shapes_of(neck, *shape)
  )
  return rng.normal(size=shape), params


@functools.partial(jax.jit, static_argnames=("neck", "train"))
def run(neck, params, x, train=False):
  rngs = {"dropout": jax.random.key(1)} if train else None
  return neck.apply({"params": params}, features_of(x), train, rngs=rngs)


def single(tree):
  return jax.tree.map(lambda a: jax.device_put(np.float32(a)), tree)


def maps_by_the_equations(neck, params, x):
  """Returns the context map of every scale."""
  layers = params.get("context", {})
  scales = [(s, s) if isinstance(s, int) else s for s in neck.scales]
  weights = {n: [layers[f"scale_{n}"][w] for w in WEIGHTS] for n in range(len(scales)) if f"scale_{n}" in layers}
  links = {tuple(map(int, name.split("_")[1:])): layers[name]["kernel"] for name in layers if name.startswith("link")}
  return layer_of_scales(x, scales, weights, links, neck.cell, neck.directions, neck.resample, neck.neighbours)


def flat(maps):
  return np.concatenate([m.reshape(len(m), -1) for m in maps], axis=1)


def by_the_equations(neck, params, x):
  if neck.channels:
    x = np.maximum(x @ params["reduce"]["kernel"] + params["reduce"]["bias"], 0)
  y = flat(maps_by_the_equations(neck, params, x))
  for i in range(len(neck.hidden)):
    y = np.maximum(y @ params[f"hidden_{i}"]["kernel"] + params[f"hidden_{i}"]["bias"], 0)  # eq. 25
  return y


def near(a, b):
  assert a.shape == b.shape
  assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


@pytest.mark.parametrize(
  "neck",
  [
    ContextNeck("srn", scales=(1, 2, 3), hidden=(6, 5)),
    ContextNeck("lstm", scales=(1, (2, 1), (3, 4)), directions=("ne", "sw"), hidden=(6,)),
    ContextNeck("lstm", scales=(2, 3), links=False, directions=("se",), hidden=()),
    ContextNeck("srn", scales=(1, 2, 3), neighbours="input", hidden=()),
    ContextNeck("lstm", scales=(1, 2, 3), neighbours="relu", directions=("nw", "se"), hidden=()),
    ContextNeck("srn", scales=(1, 2), neighbours="relu", hidden=()),
    ContextNeck("srn", scales=(1, 2, 5), resample="floor", directions=("nw",), hidden=()),
    ContextNeck("none", scales=(1, 2, 3), hidden=(6, 5)),
    ContextNeck("lstm", channels=3, scales=(1, 2, 3), hidden=(6,)),
  ],
)
def test_it_is_the_equations_and_the_stages_pass(rng, neck):
  x, params = draw(rng, neck, 2, 7, 5, 4)
  features = jax.device_get(run(neck, single(params), single(x)))
  near(features.pooled, by_the_equations(neck, params, x))
  np.testing.assert_array_equal(features.stages[1], np.float32(x))
  np.testing.assert_array_equal(features.stages[2][:, 0, 0], features.pooled)  # its own, for heads that read stages
  assert len(features.stages) == 3 and features.pooled.dtype == jnp.float32


def test_gradients_reach_the_map_and_every_weight_as_the_equations_say(rng):
  neck = ContextNeck("lstm", scales=(1, 2, 3), directions=("nw", "se"), hidden=(5,))
  x, params = draw(rng, neck, 2, 5, 7, 3)
  dy = rng.normal(size=(2, 5))

  @jax.jit
  def differentiate(params, x, dy):
    return jax.grad(lambda params, x: (neck.apply({"params": params}, features_of(x)).pooled * dy).sum(), (0, 1))(
      params, x
    )

  gradients = jax.tree.leaves(jax.device_get(differentiate(*single((params, x, dy)))))
  leaves, treedef = jax.tree.flatten((params, x))
  for n, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
    step = rng.normal(size=leaf.shape)
    ends = [
      by_the_equations(neck, *jax.tree.unflatten(treedef, [*leaves[:n], leaf + s * step, *leaves[n + 1 :]]))
      for s in (1e-6, -1e-6)
    ]
    slope = ((ends[0] - ends[1]) * dy).sum() / 2e-6
    assert (gradient * step).sum() == pytest.approx(slope, rel=1e-4)
    assert abs(slope) > 1e-6


@pytest.mark.parametrize("neighbours", ["states", "input", "relu"])
@pytest.mark.parametrize(
  ("cell", "links", "published"),
  [
    ("srn", True, 2_752_512),
    ("lstm", True, 9_830_400),
    ("srn", False, 2_752_512 - 6 * 256**2),
    ("lstm", False, 9_830_400 - 6 * 256**2),
  ],
)
def test_the_published_numbers_of_weights(cell, links, published, neighbours):
  shapes = shapes_of(ContextNeck(cell, links=links, neighbours=neighbours), 1, 13, 13, 256)["context"]
  weights = [leaf for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0] if path[-1].key != "bias"]
  assert sum(leaf.size for leaf in weights) == published
  assert {leaf.shape[-2] for leaf in weights} == {256}


@pytest.mark.parametrize("cell", ["srn", "lstm"])
def test_a_cell_of_the_modified_cnn_reads_its_own_input_alone(rng, cell):
  neck = ContextNeck(cell, scales=(1, 2, 3), neighbours="input", hidden=())
  x, params = single(draw(rng, neck, 1, 6, 6, 3))

  @jax.jit
  def slope(x):
    return jax.grad(lambda x: neck.apply({"params": params}, features_of(x), 2, method="regions")[1][0, 0, 0].sum())(x)

  seen = (np.asarray(slope(x))[0] != 0).any(axis=-1)
  assert seen[:2, :2].any()  # cell (0, 0) of 3 x 3
  assert not seen[2:].any() and not seen[:, 2:].any()
  unlinked = neck.clone(links=False)
  kept = {"context": {name: leaf for name, leaf in params["context"].items() if not name.startswith("link")}}
  assert not np.allclose(run(neck, params, x).pooled, run(unlinked, kept, x).pooled)  # the links' weights count


@pytest.mark.parametrize("cell", ["srn", "lstm"])
@pytest.mark.parametrize(("neighbours", "own", "links"), [("input", (12, 36), 3), ("relu", (36, 144), 6)])
def test_how_many_matrices_learn_something_of_their_own(rng, cell, neighbours, own, links):
  """Of the paper's 36 and 144 matrices within scales and 6 links (READINGS Z14): those whose gradients differ."""
  neck = ContextNeck(cell, neighbours=neighbours, hidden=())
  x, weigh = single((rng.normal(-1, 1, size=(16, 6, 6, 3)), rng.normal(size=(1, 50 * 3))))

  features = jax.eval_shape(features_of, x)
  params = neck.lazy_init(jax.random.key(0), features)["params"]  # each draw by itself, not one program of all

  @jax.jit
  def gradients_at_the_start(params, x):
    return jax.grad(lambda p: (neck.apply({"params": p}, features_of(x)).pooled * weigh).sum())(params)

  found = {"within": [], "link": []}
  for name, leaves in gradients_at_the_start(params, x)["context"].items():
    for kernel in (np.asarray(leaf) for key, leaf in leaves.items() if key != "bias"):
      matrices = kernel.reshape(-1, 3, kernel.shape[-1] // 3, 3).swapaxes(1, 2).reshape(-1, 3, 3)  # by direction, gate
      found["link" if name.startswith("link") else "within"] += list(matrices)
  assert [len(found["within"]), len(found["link"])] == [{"srn": 36, "lstm": 144}[cell], 6]
  for kind, count in (("within", own[cell == "lstm"]), ("link", links)):
    different = []
    for matrix in found[kind]:
      if matrix.any() and not any(np.allclose(matrix, other, rtol=1e-3, atol=1e-6) for other in different):
        different.append(matrix)
    assert len(different) == count


def test_the_dense_layers_read_every_cell_of_every_scale():
  for neck, cells in ((ContextNeck(), 50), (ContextNeck("none"), 50), (ContextNeck("none", scales=(6,)), 36)):
    shapes = shapes_of(neck, 1, 13, 13, 256)
    assert shapes["hidden_0"]["kernel"].shape == (cells * 256, 4096)  # 12,800 and AlexNet's 9,216
    assert shapes["hidden_1"]["kernel"].shape == (4096, 4096)
    assert ("context" in shapes) == (neck.cell != "none")


def test_without_recurrent_weights_the_srn_is_four_times_the_pyramid(rng):
  neck = ContextNeck("srn", scales=(1, 2, 3), links=False, hidden=())
  x, params = draw(rng, neck, 2, 7, 5, 4)
  for weights in params["context"].values():
    weights |= {name: np.zeros_like(weights[name]) for name in WEIGHTS}
    weights["input_kernel"] += np.eye(4)
  pyramid = [max_pool(x, n, n) for n in (1, 2, 3)]
  expected = flat([pyramid[0], *(4 * np.maximum(map_, 0) for map_ in pyramid[1:])])
  near(np.asarray(run(neck, single(params), single(x)).pooled), expected)


@pytest.mark.parametrize("cell", ["srn", "none"])
def test_regions_are_the_maps_before_and_after(rng, cell):
  neck = ContextNeck(cell, scales=(1, 2, (2, 3)), hidden=(2,))
  x, params = draw(rng, neck, 2, 4, 5, 3)
  variables, features = {"params": single(params)}, features_of(single(x))
  regions = jax.jit(lambda v, f: [neck.apply(v, f, n, method="regions") for n in range(3)])
  found = jax.device_get(regions(variables, features))
  expected = maps_by_the_equations(neck, params, x)
  for (below, context), grid, map_ in zip(found, ((1, 1), (2, 2), (2, 3)), expected, strict=True):
    np.testing.assert_array_equal(below, np.float32(max_pool(x, *grid)))
    near(context, map_)
    if cell == "none" or grid == (1, 1):
      np.testing.assert_array_equal(below, context)


@pytest.mark.parametrize(
  ("neck", "dropped"),
  [
    (ContextNeck("srn", scales=(1, 2), hidden=()), True),  # on the recurrences' maps, Table I
    (ContextNeck("none", scales=(1, 2), hidden=()), False),
    (ContextNeck("none", scales=(1, 2), hidden=(20,)), True),
  ],
)
def test_dropout_acts_in_training_alone(rng, neck, dropped):
  x, params = single(draw(rng, neck, 3, 4, 4, 4))
  kept, trained = (np.asarray(run(neck, params, x, train=train).pooled) for train in (False, True))
  share = float((trained != kept)[kept != 0].mean())
  assert share > 0.3 if dropped else share == 0
  if dropped:
    np.testing.assert_allclose(trained, np.where(trained == 0, 0, 2 * kept), rtol=1e-5)
    assert 0.3 < float((trained == 0)[kept != 0].mean()) < 0.7


@pytest.mark.parametrize("cell", ["srn", "lstm", "none"])
def test_bf16_is_float32_within_its_tolerance(rng, cell):
  neck = ContextNeck(cell, scales=(1, 2), directions=("nw", "se"), hidden=(6,))
  x, params = single(draw(rng, neck, 2, 5, 4, 4))
  exact = np.asarray(run(neck, params, x).pooled)
  half = np.asarray(run(neck.clone(dtype=jnp.bfloat16), params, x.astype(jnp.bfloat16)).pooled)
  assert half.dtype == jnp.float32
  assert 0 < np.abs(half - exact).max() <= 0.03 * np.abs(exact).max()


@pytest.mark.parametrize(
  ("fields", "parts"),
  [
    ({"cell": "gru"}, ("'gru'", "none", "srn", "lstm")),
    ({"directions": ("nw", "north")}, ("'north'", *DIRECTIONS)),
    ({"directions": ()}, ("()", *DIRECTIONS)),
    ({"directions": ("nw", "nw")}, ("('nw', 'nw')", "once")),
    ({"scales": (6, 3, 1)}, ("(6, 3, 1)", "coarse to fine")),
    ({"scales": (1, 2, 2)}, ("(1, 2, 2)", "coarse to fine")),
    ({"scales": ()}, ("()", "one or more")),
    ({"scales": (0, 1)}, ("(0, 1)", "1 or more")),
    ({"scales": (1, (2, 0))}, ("(1, (2, 0))", "(rows, columns)")),
    ({"scales": (True, 2)}, ("(True, 2)", "whole number")),
    ({"resample": "nearest"}, ("'nearest'", "overlap", "floor")),
    ({"dropout": 1.0}, ("1.0", "below 1")),
    ({"hidden": (8, 0)}, ("(8, 0)", "1 or more")),
    ({}, ("6 x 6", "13 x 5")),  # the map is too small for the last scale
  ],
)
def test_bad_input_is_refused_with_what_is_allowed(fields, parts):
  with pytest.raises(UserError) as caught:
    shapes_of(ContextNeck(**fields), 1, 13, 5, 3)
  message = str(caught.value)
  assert "\n" not in message and all(part in message for part in parts), message
