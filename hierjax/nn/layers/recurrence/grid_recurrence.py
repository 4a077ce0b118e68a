"""The spatial recurrence of `spatial.py` over a grid of cells, computed by anti-diagonals, with its own VJP.

In the frame of a direction, which is flipped so that it starts in the upper left corner, a cell (r, q) depends only on
the cells (r-1, q) and (r, q-1). Both lie on the anti-diagonal before its own. So a grid of h x w cells takes h + w - 1
steps. Each step has one product for each neighbour, over all cells of a diagonal and all directions. No product has a
row for a missing neighbour, and no step has more cells than its diagonal, except in the loops of large grids; see
`diagonals.py`. There one product takes both neighbours, and on CPUs n images lie side by side in one grid, which takes
h + n w - 1 steps.

The VJP keeps h, c and the gates, and recomputes tanh(c) and the sums over neighbours. The kernels' gradients are
products over many cells, outside the chain of steps.

Letters of the shapes:

| letter | dimension |
|---|---|
| b, h, w, c | examples; height, width and channels of the map |
| k | directions |
| d | width of the state |
| g | pre-activations of all gates side by side: d for the SRN, 4 d for the LSTM, see `cells.py` |
| r, s | rows of a window of a diagonal |
| p | places: the cells of all diagonals, or of those of a run, one diagonal after the other |
| i, j | rows and columns of a kernel |

A diagonal is f[k r b d]: for each direction it is one piece of memory.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierjax.nn.layers.recurrence.cells import BACKWARD, FORWARD, GATES, State
from hierjax.nn.layers.recurrence.diagonals import Layout, Run, images_abreast, layout_of, rows_before
from hierjax.nn.layers.recurrence.grid_steps import (
  Loop,
  Neighbours,
  Rows,
  Step,
  Where,
  beside,
  by_cell,
  by_place,
  common_rows,
  diagonal,
  few_back,
  in_rows,
  input_parts,
  many_back,
  neighbour_rows,
  neighbour_states,
  only,
  product_kernels,
  products_by_direction,
  step_products,
  summed_memory,
  summed_outer,
  take_steps,
  with_rows,
)

_FEW = 16  # rows of a product


class Weights(NamedTuple):
  """The weights of a recurrence, for each direction.

  Attributes:
    input: W_x.
    row: W^r, of the state of the neighbour in the previous row.
    column: W^c, of the state of the neighbour in the previous column.
    bias: of each gate.
  """

  input: Float[Array, "k c g"]
  row: Float[Array, "k d g"]
  column: Float[Array, "k d g"]
  bias: Float[Array, "k g"]


class Setting(NamedTuple):
  """The static settings of a recurrence.

  Attributes:
    cell: `srn` or `lstm`.
    directions: the corners that the recurrences start from.
    images: the number of images that lie side by side in one map.
    keep_gates: whether the VJP will need the gates.
  """

  cell: str
  directions: tuple[str, ...]
  images: int = 1
  keep_gates: bool = True


def recurrence(
  setting: Setting, x: Float[Array, "b h w c"], drive: Float[Array, "b h w d"] | None, weights: Weights
) -> Float[Array, "b h w d"]:
  """Returns the result of `spatial.spatial_recurrence`, for a map with no more rows than columns."""
  b, h, w, _ = x.shape
  n = 1
  if jax.default_backend() == "cpu" and isinstance(b, int):
    n = images_abreast(h, w, b // math.gcd(b, jax.device_count()))  # of one device's images, so that none leaves it

  def abreast(maps: Float[Array, "b h w _c"]) -> Float[Array, "m h v _c"]:
    c = maps.shape[3]
    return jnp.swapaxes(maps.reshape(b // n, n, h, w, c), 1, 2).reshape(b // n, h, n * w, c)

  driven = None if drive is None else abreast(drive)
  y = _recurrence(setting._replace(images=n), abreast(x), driven, weights)
  d = y.shape[3]
  return jnp.swapaxes(y.reshape(b // n, h, n, w, d), 1, 2).reshape(b, h, w, d)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(
  setting: Setting, x: Float[Array, "b h w c"], drive: Float[Array, "b h w d"] | None, weights: Weights
) -> Float[Array, "b h w d"]:
  """Returns the sum of the states over the directions, for maps in each of which `setting.images` images lie."""
  return _forward(setting._replace(keep_gates=False), x, drive, weights)[0]


def _zero_state(setting: Setting, shape: tuple[int, int, int]) -> State:
  """Returns a state of zeros, `shape` being (rows, examples, width)."""
  zeros = jnp.zeros((len(setting.directions), *shape), jnp.float32)
  return State(zeros, zeros if setting.cell == "lstm" else None)


class _Trace(NamedTuple):
  """The stored arrays of a run: states before its steps and after them, and gates; `f[k p b d]` or `f[k p b g]`.

  For a run of several steps, `before` and `after` are the same: the states before each step and after the last.
  """

  before: State
  after: State
  gates: Any  # None for the SRN


class _Residuals(NamedTuple):
  x: Float[Array, "b h w c"]
  drive: Float[Array, "b h w d"] | None
  weights: Weights
  inputs: list[Float[Array, "k _ b c"]]  # by place, in parts, see `_parts`
  trace: list[_Trace]  # of each run


def _forward(
  setting: Setting, x: Float[Array, "b h w c"], drive: Float[Array, "b h w d"] | None, weights: Weights
) -> tuple[Float[Array, "b h w d"], _Residuals]:
  layout = layout_of(*x.shape[1:3], setting.directions, setting.images)
  inputs = [by_place(x, layout, part) for part in input_parts(layout)]
  given: list[Float[Array, "k _ b g"]] = []  # to each run
  for part, cells in zip(input_parts(layout), inputs, strict=True):
    inner = [start - layout.starts[part.start] for start in layout.starts[part.start + 1 : part.stop]]
    given += jnp.split(products_by_direction(cells, weights.input.astype(x.dtype)), inner, axis=1)
  kernels = product_kernels(layout, weights.row.astype(x.dtype), weights.column.astype(x.dtype))
  state, have, trace = _zero_state(setting, (0, x.shape[0], weights.row.shape[1])), (0, 0), []
  state = state._replace(h=state.h.astype(x.dtype))
  for n, run in enumerate(layout.runs):
    want = (run.top, run.bottom)
    if run.steps > 1:
      state, have = in_rows(state, have, want), want
    step = _ForwardStep(
      cell=setting.cell,
      run=run,
      have=have,
      inside=layout.inside[n],
      joined=layout.joined[n],
      kernels=kernels,
      bias=weights.bias,
      drive=None if drive is None else by_place(drive, layout, slice(n, n + 1)),
      dtype=x.dtype,
    )
    before = state
    state, gates, states = take_steps(Loop(run, over=setting.keep_gates), step, state, given[n])
    trace.append(_Trace(states if run.steps > 1 else before, states, gates))
    have = want
  h, trace = _stored(layout, trace)
  y = by_cell(h, layout.state_place, x.shape)
  return y, _Residuals(x, drive, weights, inputs, trace)


def _stored(layout: Layout, trace: list[_Trace]) -> tuple[Float[Array, "k p b d"], list[_Trace]]:
  """Returns the states h of all runs by place, and the trace with its single steps' states cut out of these."""
  # Behind a barrier and back, or XLA would compute an SRN's h again on the way back, and keep all that it is made of.
  h = jax.lax.optimization_barrier(jnp.concatenate([states.h for _, states, _ in trace], axis=1))
  for n, run in enumerate(layout.runs):
    if run.steps == 1:
      before, after, gates = trace[n]
      after = after._replace(h=h[:, layout.state_starts[n] : layout.state_starts[n + 1]])
      if n and layout.runs[n - 1].steps == 1:
        before = trace[n - 1].after  # the state after one step is the state before the next
      trace[n] = _Trace(before, after, gates)
  return h, trace


@dataclasses.dataclass(frozen=True)
class _ForwardStep:
  """A step of a run: (state, i, given) -> (state, gates), for the run's diagonal i.

  Attributes:
    cell: `srn` or `lstm`.
    run: the run.
    have: the rows of the state before a step.
    inside: the places of the run that are cells of the grid.
    joined: the cells of the step before that are of one image with the cell to their right.
    kernels: the kernels of the products, see `_kernels`.
    bias: of each gate.
    drive: the drive of the run's cells, by place.
    dtype: of the products and the state h.
  """

  cell: str
  run: Run
  have: Rows
  inside: Where
  joined: Where
  kernels: dict[Neighbours, Float[Array, "k _i g"]]
  bias: Float[Array, "k g"]
  drive: Float[Array, "k p b d"] | None
  dtype: Any

  def __call__(self, state: State, i: Step, given: Float[Array, "k r b g"]) -> tuple[State, Any]:
    have, want = self.have, (self.run.top, self.run.bottom)
    pre = given + self.bias.astype(jnp.float32)[:, None, None]
    if self.drive is not None:
      pre = pre + jnp.tile(diagonal(self.drive, 0, i, want).astype(jnp.float32), GATES[self.cell])
    sides = neighbour_states(state, self.joined, i)
    for which, met in step_products(self.run, have):
      pre = pre + with_rows(products_by_direction(beside(sides, which, have, met), self.kernels[which]), met, want)
    state, gates = FORWARD[self.cell](pre, summed_memory(sides, have, want), self.dtype)
    return only(self.inside, i, state), gates


def _backward(
  setting: Setting, residuals: _Residuals, dy: Float[Array, "b h w d"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w d"] | None, Weights]:
  x, drive, weights, inputs, trace = residuals
  layout = layout_of(*x.shape[1:3], setting.directions, setting.images)
  back = few_back if min(x.shape[1:3]) * x.shape[0] <= _FEW else many_back
  input_back = back(weights.input.astype(x.dtype))
  neighbours = product_kernels(layout, weights.row.astype(x.dtype), weights.column.astype(x.dtype))
  backs = {which: back(kernel) for which, kernel in neighbours.items()}
  last = layout.runs[-1]
  dgiven: list[Float[Array, "k _ b g"]] = []
  met_states: tuple[list[Any], list[Any]] = (
    [],
    [],
  )  # of W^r and of W^c: pairs of states and gradients, see `summed_outer`
  dstate = _zero_state(setting, (last.bottom - last.top, x.shape[0], weights.row.shape[1]))
  for n in reversed(range(len(layout.runs))):
    run, (before, _, gates) = layout.runs[n], trace[n]
    earlier = layout.runs[n - 1] if n else Run(0, 0, 0, 0)
    have, want = rows_before(run, earlier), (run.top, run.bottom)
    step = _BackwardStep(
      cell=setting.cell,
      run=run,
      have=have,
      inside=layout.inside[n],
      joined=layout.joined[n],
      backs=backs,
      trace=trace[n],
      dy=by_place(dy, layout, slice(n, n + 1)),
    )
    dstate, dpre, _ = take_steps(Loop(run, reverse=True), step, dstate, gates)
    dgiven.append(dpre)
    k, _, *rest = before.h.shape
    rows = have[1] - have[0]
    h = before.h[:, : run.steps * rows].reshape(k, run.steps, rows, *rest)
    sides = neighbour_states(h, layout.joined[n], slice(None))
    for pairs, side, there in zip(met_states, sides, neighbour_rows(have), strict=True):
      met = (
        want if run.steps > 1 else common_rows(there, want)
      )  # rows of zeros rather than a copy of all of a loop's dpre
      places = run.steps * (met[1] - met[0])
      pairs.append((with_rows(side, there, met).reshape(k, places, *rest), with_rows(dpre, want, met)))
    if run.steps > 1:
      dstate = in_rows(dstate, want, (earlier.top, earlier.bottom))

  dgiven = [jnp.concatenate(dgiven[::-1][part], axis=1) for part in input_parts(layout)]
  dx = by_cell(jnp.concatenate([input_back(part) for part in dgiven], axis=1), layout.place, x.shape)
  ddrive = None
  if drive is not None:
    by_gate: Any = [sum(jnp.split(part, GATES[setting.cell], axis=-1)) for part in dgiven]
    ddrive = by_cell(jnp.concatenate(by_gate, axis=1), layout.place, x.shape).astype(drive.dtype)
  dbias: Any = sum(jnp.sum(part, axis=(1, 2)) for part in dgiven)
  dkernels = map(summed_outer, [list(zip(inputs, dgiven, strict=True)), *met_states])
  dweights = (*dkernels, dbias)
  return dx.astype(x.dtype), ddrive, Weights(*(dw.astype(w.dtype) for dw, w in zip(dweights, weights, strict=True)))


@dataclasses.dataclass(frozen=True)
class _BackwardStep:
  """The derivative of a step of a run: (dstate, i, gates) -> (dstate before, dpre), for the run's diagonal i.

  Attributes:
    cell: `srn` or `lstm`.
    run: the run.
    have: the rows of the state before a step.
    inside: as in `_ForwardStep`.
    joined: as in `_ForwardStep`.
    backs: the products with the transposed kernels.
    trace: the stored arrays of the run.
    dy: the derivative of the result at the run's cells, by place.
  """

  cell: str
  run: Run
  have: Rows
  inside: Where
  joined: Where
  backs: dict[Neighbours, Callable[[Array], Array]]
  trace: _Trace
  dy: Float[Array, "k p b d"]

  def __call__(self, dstate: State, i: Step, gates: Float[Array, "k r b g"] | None) -> tuple[State, Array]:
    have, want = self.have, (self.run.top, self.run.bottom)
    after_first = want[1] - want[0] if self.run.steps > 1 else 0  # the place of the state after the first step
    sides = neighbour_states(jax.tree.map(lambda s: diagonal(s, 0, i, have), self.trace.before), self.joined, i)
    after = jax.tree.map(lambda s: diagonal(s, after_first, i, want), self.trace.after)
    dstate = dstate._replace(h=dstate.h + diagonal(self.dy, 0, i, want).astype(jnp.float32))
    dstate = only(self.inside, i, dstate)
    dpre, dmemory = BACKWARD[self.cell](dstate, summed_memory(sides, have, want), after, gates)
    dh: dict[int, Float[Array, "k _ b d"]] = {}
    for which, met in step_products(self.run, have):
      parts = jnp.split(self.backs[which](with_rows(dpre, want, met)), len(which), axis=-1)
      dh |= {side: with_rows(part, met, neighbour_rows(have)[side]) for side, part in zip(which, parts, strict=True)}
    above, left = (
      State(dh[side], None if dmemory is None else with_rows(dmemory, want, there))
      for side, there in enumerate(neighbour_rows(have))
    )
    before: State = jax.tree.map(jnp.add, above, only(self.joined, i, left))
    return before, dpre


_recurrence.defvjp(_forward, _backward)
