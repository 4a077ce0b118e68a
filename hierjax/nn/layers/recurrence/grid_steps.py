"""Parts of the recurrence over a grid: neighbours on a diagonal, the steps of a run, products, and arrays by place.

The letters of the shapes are those of `grid_recurrence.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hierjax.nn.layers.recurrence.cells import State
from hierjax.nn.layers.recurrence.diagonals import Layout, Run

Rows = tuple[int, int]  # the first, and the one after the last
Neighbours = tuple[int, ...]  # 0 is the one above, 1 the one to the left
Where = Bool[np.ndarray, "steps r"] | None  # None for everywhere
Step = int | Int[Array, ""]
T = TypeVar("T")

# Channels. With fewer, XLA concatenates a step's gradients of the gates twice, for the product and to store them. If
# they were stored over the gates that they come from, each step would copy those of all steps.
FEWEST_OVER = 32


# Neighbours. `have` are the rows of the diagonal before, `want` those of this one. The neighbour above a cell lies a
# row higher on the diagonal before, the one to its left in the same row.


def neighbour_rows(have: Rows) -> tuple[Rows, Rows]:
  """Returns the rows of the cells whose upper neighbour is on the diagonal before, and of those whose left one is."""
  return (have[0] + 1, have[1] + 1), have


def common_rows(one: Rows, other: Rows) -> Rows:
  """Returns the rows that are in both ranges."""
  return max(one[0], other[0]), min(one[1], other[1])


def with_rows(x: Float[Array, "*k r b d"], have: Rows, want: Rows) -> Float[Array, "*k s b d"]:
  """Returns `x`, which has the rows `have`, with the rows `want`: cut, or with rows of zeros added."""
  if have == want:
    return x
  edges = [(0, 0, 0)] * (x.ndim - 3) + [(have[0] - want[0], want[1] - have[1], 0)] + [(0, 0, 0)] * 2
  return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)


def in_rows(state: State, have: Rows, want: Rows) -> State:
  """Returns a state with the rows `have` as one with the rows `want`."""
  found: State = jax.tree.map(lambda s: with_rows(s, have, want), state)
  return found


def neighbour_states(state: T, joined: Where, i: Step | slice) -> tuple[T, T]:
  """Returns the states above the cells of diagonal i, and to their left: zeros there where another image ends."""
  return state, only(joined, i, state)


def step_products(run: Run, have: Rows) -> list[tuple[Neighbours, Rows]]:
  """Returns the products of a step of `run`, each by its neighbours, whose states are multiplied, and its rows.

  No product has a row for a missing neighbour. Only in a loop, where such rows are few, one product takes both
  neighbours.
  """
  want = (run.top, run.bottom)
  if run.steps > 1:
    return [((0, 1), want)]
  return [((side,), common_rows(there, want)) for side, there in enumerate(neighbour_rows(have))]


def beside(sides: tuple[State, State], which: Neighbours, have: Rows, met: Rows) -> Float[Array, "k r b i"]:
  """Returns the states h of some neighbours, side by side, for the rows `met`."""
  return jnp.concatenate([with_rows(sides[side].h, neighbour_rows(have)[side], met) for side in which], axis=-1)


def product_kernels(layout: Layout, *kernels: Float[Array, "k d g"]) -> dict[Neighbours, Float[Array, "k _i g"]]:
  """Returns the kernels of all products, by their neighbours, from the kernels W^r and W^c."""
  products = sorted({which for run in layout.runs for which, _ in step_products(run, (0, 0))})
  return {which: jnp.concatenate([kernels[side] for side in which], axis=1) for which in products}


def summed_memory(sides: tuple[State, State], have: Rows, want: Rows) -> Float[Array, "k r b d"] | None:
  """Returns the sum of the memories of the upper and the left neighbours of the cells of `want`; None for the SRN."""
  if sides[0].c is None:
    return None
  found: Any = sum(with_rows(side.c, there, want) for side, there in zip(sides, neighbour_rows(have), strict=True))
  return found


def summed_outer(pairs: list[tuple[Float[Array, "k _ b i"], Float[Array, "k _ b j"]]]) -> Float[Array, "k i j"]:
  """Returns the gradient of a kernel.

  The gradients of the pairs are added where they are smaller than the states. Otherwise the states are concatenated and
  make one product. On two cores, with 6 x 6 cells of 256 channels, the second way is 3 times as fast at batch 1, and
  the first 1.2 times at batch 32.

  Args:
    pairs: the inputs of the kernel's products, by runs or parts, and the derivatives of their results.
  """
  (h, dpre), *_ = pairs
  width, gates = h.shape[-1], dpre.shape[-1]
  rows = sum(h.shape[1] for h, _ in pairs) / len(pairs) * h.shape[2]
  if rows * (width + gates) > width * gates / 2:
    found: Any = sum(outer(h, dpre) for h, dpre in pairs)
    return found
  return outer(*(jnp.concatenate(side, axis=1) for side in zip(*pairs, strict=True)))


# Arrays.


def only(where: Where, i: Step | slice, state: T) -> T:
  """Returns a state's arrays f[... r b d] with zeros where `where` is False, for diagonal i or a slice of them."""
  if where is None:
    return state
  found: T = jax.tree.map(lambda s: jnp.where(jnp.asarray(where)[i][..., None, None], s, jnp.zeros_like(s)), state)
  return found


class Loop(NamedTuple):
  """The steps of a run, in their order or reversed.

  Attributes:
    run: the run.
    over: whether a loop may write a step's result over its input `given`.
    reverse: whether the last step comes first.
  """

  run: Run
  over: bool = True
  reverse: bool = False


_StepFunction = Callable[[State, Any, Any], tuple[State, Any]]


def take_steps(
  loop: Loop, step: _StepFunction, state: State, given: Float[Array, "k p b g"] | None
) -> tuple[State, Any, Any]:
  """Returns the last state of a run, the results of its steps, f[k p b g] or None, and the states.

  A single step has one state, the one after it. A loop has those before each step and then the last, or None in
  reverse. If they were stored as they are computed, XLA would compute them twice, for the next step and to store them.

  Args:
    loop: the steps.
    step: (state, i, given) -> (state, result), for diagonal i.
    state: before the first step.
    given: the inputs of all steps, by place.
  """
  run, over, reverse = loop
  if run.steps == 1:
    state, result = step(state, 0, given)
    return state, result, state
  rows, on_cpu = run.bottom - run.top, jax.default_backend() == "cpu"

  def here(given: Any, i: Step) -> Any:
    return jax.tree.map(lambda g: diagonal(g, 0, i, (run.top, run.bottom)), given)

  def put(kept: Float[Array, "k _p b d"], new: Float[Array, "k r b d"], i: Step) -> Float[Array, "k _p b d"]:
    return jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), i * rows, axis=1)

  def buffer(new: Any, some: Float[Array, "k _ b _"], steps: int) -> Array:
    # Each step writes its own values over these. They are values of the state, for each image its own, or XLA would
    # allocate the buffers of all runs first. To write a step's bfloat16 numbers, XLA's CPU backend would convert those
    # of all steps.
    dtype = jnp.float32 if on_cpu else new.dtype
    return jnp.broadcast_to(some[:, :1, :, :1].astype(dtype), (new.shape[0], steps * rows, *new.shape[2:]))

  result = jax.eval_shape(lambda given: step(state, 0, here(given, 0))[1], given)
  over = over and on_cpu and result is not None and state.h.shape[-1] >= FEWEST_OVER  # on other devices untried
  over = over and given is not None and given.dtype == jnp.float32
  results = given if over else jax.tree.map(lambda new: buffer(new, state.h, run.steps), result)
  states = None if reverse else jax.tree.map(lambda s: buffer(s, s, run.steps + 1), state)

  def body(n: Step, carry: tuple[State, Any, Any]) -> tuple[State, Any, Any]:
    i = run.steps - 1 - n if reverse else n
    state, results, states = carry
    states = None if reverse else jax.tree.map(lambda kept, s: put(kept, s, i), states, state)
    state, new = step(state, i, here(results if over else given, i))
    return state, jax.tree.map(lambda kept, new: put(kept, new, i), results, new), states

  last, results, states = jax.lax.fori_loop(0, run.steps, body, (state, results, states))
  if not over:
    results = jax.tree.map(lambda kept, new: kept.astype(new.dtype), results, result)
  if not reverse:
    states = jax.tree.map(lambda kept, s: put(kept, s, run.steps).astype(s.dtype), states, last)
  return last, results, states


def products_by_direction(x: Float[Array, "k r b i"], kernel: Float[Array, "k i j"]) -> Float[Array, "k r b j"]:
  """Returns the products of each direction, in the kernel's dtype with float32 sums."""
  return jnp.einsum("krbi,kij->krbj", x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)


def many_back(kernel: Float[Array, "k i j"]) -> Callable[[Array], Array]:
  """Returns the product with the transposed kernel, f[k r b j] -> f[k r b i].

  It is transposed once. Otherwise XLA would read it across its rows in each step's product: 8% more time in all.
  """
  turned = jax.lax.optimization_barrier(jnp.swapaxes(kernel, 1, 2))
  return lambda dy: products_by_direction(dy, turned)


def few_back(kernel: Float[Array, "k i j"]) -> Callable[[Array], Array]:
  """Returns the same product, for so few rows that transposing the kernel takes as long as several products.

  With the kernel on the left nothing is transposed: 10% faster in all for 6 rows, as fast for 48, 10% slower for 192.
  """
  product = functools.partial(jnp.einsum, "kij,krbj->kirb", kernel, preferred_element_type=jnp.float32)
  return lambda dy: jnp.moveaxis(product(dy.astype(kernel.dtype)), 1, 3)


def outer(x: Float[Array, "k r b i"], dy: Float[Array, "k r b j"]) -> Float[Array, "k i j"]:
  """Returns the gradient of a kernel, float32, from the inputs `x` of its products and their results' derivatives."""
  dy = dy.astype(x.dtype)
  if jax.device_count() > 1:  # a batch that is split over devices stays so, and each sums its own images
    return jnp.einsum("krbi,krbj->kij", x, dy, preferred_element_type=jnp.float32)
  k, r, b, _ = x.shape  # one axis of rows: over two, XLA copies both sides first
  x, dy = (a.reshape(k, r * b, a.shape[-1]) for a in (x, dy))
  return jnp.einsum("kmi,kmj->kij", x, dy, preferred_element_type=jnp.float32)


def input_parts(layout: Layout) -> list[slice]:
  """Returns the parts of the runs, each with one product for its inputs: XLA runs two products on two cores.

  Without loops, there are two parts of about as many cells. With loops, each run is a part, and its product runs in
  parallel with the steps of others.
  """
  count = len(layout.runs)
  if any(run.steps > 1 for run in layout.runs):
    return [slice(n, n + 1) for n in range(count)]
  middle = min(range(count), key=lambda n: abs(layout.starts[n] - layout.starts[-1] / 2))
  return [half for half in (slice(0, middle), slice(middle, count)) if half.start < half.stop]


def diagonal(x: Float[Array, "k p b d"], first: int, i: Step, window: Rows) -> Float[Array, "k r b d"]:
  """Returns diagonal i of those that begin at place `first`."""
  rows = window[1] - window[0]
  return jax.lax.dynamic_slice_in_dim(x, first + i * rows, rows, axis=1)


def by_place(x: Float[Array, "b h w c"], layout: Layout, runs: slice) -> Float[Array, "k p b c"]:
  """Returns the cells of some runs, by place."""
  cells = jnp.moveaxis(x.reshape(x.shape[0], -1, x.shape[-1]), 1, 0)
  places = slice(layout.starts[runs.start], layout.starts[runs.stop])
  return cells.at[layout.order[:, places]].get(mode="promise_in_bounds")


def by_cell(
  x: Float[Array, "k p b d"], place: Int[np.ndarray, "k cells"], shape: tuple[int, ...]
) -> Float[Array, "b h w d"]:
  """Returns the map, float32, of values by place, summed over the directions; `shape` begins with (b, h, w)."""
  y: Any = sum(x[k].at[places].get(mode="promise_in_bounds").astype(jnp.float32) for k, places in enumerate(place))
  return jnp.moveaxis(y, 0, 1).reshape(*shape[:3], -1)
