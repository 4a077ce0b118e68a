"""The recurrence of `spatial.py` over a grid of cells, by anti-diagonals and with its own VJP.

In the frame of a direction, flipped so that it starts in the upper left corner, a cell waits only for the cell above it
and the cell to its left, and both lie on the anti-diagonal before. So a grid of h x w cells takes h + w - 1 steps, each
of them one product a neighbour for all cells of a diagonal and all directions. No product has a row for a neighbour
that is not there, and no step more cells than its diagonal, but for the scans of large grids; see `diagonals.py`.

The VJP keeps h, c and the gates, and computes tanh(c) and the sums of neighbours again. Kernels' gradients are products
over many cells, outside the chain of steps.

Arrays are f[... k r b d]: k directions, the r rows of a diagonal's window, and then the batch, so that a diagonal is
one piece of memory. By place, f[k p b d], the diagonals of all runs lie one after the other.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.layers.diagonals import Layout, layout_of

GATES = {"srn": 1, "lstm": 4}
Rows = tuple[int, int]  # from the first to before the last
_FEW = 16  # rows of a product


class State(NamedTuple):
  """What a diagonal leaves to the next; zero outside the grid."""

  h: Any
  c: Any  # the memory of an LSTM; None for the SRN


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def recurrence(
  cell: str,
  directions: tuple[str, ...],
  x: Float[Array, "b h w c"],
  drive: Float[Array, "b h w d"] | None,
  input_kernel: Float[Array, "k c g"],
  row_kernel: Float[Array, "k d g"],
  column_kernel: Float[Array, "k d g"],
  bias: Float[Array, "k g"],
) -> Float[Array, "b h w d"]:
  """Returns what `spatial.spatial_recurrence` does, for a map with no more rows than columns."""
  return _forward(cell, directions, x, drive, input_kernel, row_kernel, column_kernel, bias)[0]


def _forward(cell, directions, x, drive, input_kernel, row_kernel, column_kernel, bias):
  layout = layout_of(*x.shape[1:3], directions)
  inputs = _by_place(x, layout)
  driven = None if drive is None else _by_place(drive, layout)
  given = []  # for each run, an array by place and the run's first place in it
  for half in _halves(layout):
    part = _product(_of_runs(inputs, layout, half), input_kernel.astype(x.dtype))
    given += [(part, layout.starts[n] - layout.starts[half.start]) for n in range(half.start, half.stop)]
  kernels = row_kernel.astype(x.dtype), column_kernel.astype(x.dtype)
  state, have, trace = _nothing(cell, directions, 0, x, row_kernel), (0, 0), []
  state = state._replace(h=state.h.astype(x.dtype))
  for n, run in enumerate(layout.runs):
    want = (run.top, run.bottom)
    if run.steps > 1:
      state, have = _in_rows(state, have, want), want

    def step(state, at, n=n, have=have, want=want):
      i, inside = at
      part, first = given[n]
      pre = _diagonal(part, first, i, want) + bias.astype(jnp.float32)[:, None, None]
      if driven is not None:
        pre = pre + jnp.tile(_diagonal(driven, layout.starts[n], i, want).astype(jnp.float32), GATES[cell])
      for kernel, there in zip(kernels, _there(have), strict=True):
        met = _both(there, want)
        pre = pre + _rows(_product(_rows(state.h, there, met), kernel), met, want)
      memory = None if state.c is None else _neighbours(state.c, have, want)
      state, gates = FORWARD[cell](pre, memory, x.dtype)
      state = _within(state, inside)
      return state, (state, gates)

    before = state
    at = np.arange(run.steps), layout.inside[n]
    state, (after, gates) = _scan(step, state, at, run.steps)
    trace.append((before, after, gates))
    have = want
  h = jnp.concatenate([_places(after.h) for _, after, _ in trace], axis=1)
  y = _by_cell(h, layout, x.shape)
  return y, (x, drive, input_kernel, row_kernel, column_kernel, bias, inputs, trace)


def _backward(cell, directions, residuals, dy):
  x, drive, input_kernel, row_kernel, column_kernel, bias, inputs, trace = residuals
  layout = layout_of(*x.shape[1:3], directions)
  dy = _by_place(dy, layout)
  back = _few_back if min(x.shape[1:3]) * x.shape[0] <= _FEW else _many_back
  input_back, *backs = (back(kernel.astype(x.dtype)) for kernel in (input_kernel, row_kernel, column_kernel))
  last = layout.runs[-1]
  dgiven: Any = []
  met_states: Any = [], []  # of W^r and of W^c
  dstate = _nothing(cell, directions, last.bottom - last.top, x, row_kernel)
  for n in reversed(range(len(layout.runs))):
    run, (before, after, gates) = layout.runs[n], trace[n]
    came_from = (layout.runs[n - 1].top, layout.runs[n - 1].bottom) if n else (0, 0)
    want = (run.top, run.bottom)
    have = came_from if run.steps == 1 else want

    def step(dstate, at, n=n, have=have, want=want):
      i, inside, before, after, gates = at
      dh = dstate.h + _diagonal(dy, layout.starts[n], i, want).astype(jnp.float32)
      dstate = _within(dstate._replace(h=dh), inside)
      memory = None if before.c is None else _neighbours(before.c, have, want)
      dpre, dmemory = BACKWARD[cell](dstate, memory, after, gates)
      dh = 0.0
      for product, there in zip(backs, _there(have), strict=True):
        met = _both(there, want)
        dh = dh + _rows(product(_rows(dpre, want, met)), met, there)
      dc = None if dmemory is None else sum(_rows(dmemory, want, there) for there in _there(have))
      return State(dh, dc), dpre

    befores = jax.tree.map(lambda b, a: jnp.concatenate([b[None], a[:-1]]) if len(a) > 1 else b[None], before, after)
    at = np.arange(run.steps), layout.inside[n], befores, after, gates
    dstate, dpre = _scan(step, dstate, at, run.steps, reverse=True)
    for pairs, there in zip(met_states, _there(have), strict=True):
      met = _both(there, want)
      pairs.append((_places(_rows(befores.h, there, met)), _places(_rows(dpre, want, met))))
    dgiven.append(_places(dpre))
    if run.steps > 1:
      dstate = _in_rows(dstate, want, came_from)

  dgiven = jnp.concatenate(dgiven[::-1], axis=1)
  dx = _by_cell(input_back(dgiven), layout, x.shape)
  ddrive = None
  if drive is not None:
    by_gate: Any = sum(jnp.split(dgiven, GATES[cell], axis=-1))
    ddrive = _by_cell(by_gate, layout, x.shape).astype(drive.dtype)
  drow_kernel, dcolumn_kernel = (_summed_outer(pairs) for pairs in met_states)
  return (
    dx.astype(x.dtype),
    ddrive,
    _outer(inputs, dgiven).astype(input_kernel.dtype),
    drow_kernel.astype(row_kernel.dtype),
    dcolumn_kernel.astype(column_kernel.dtype),
    jnp.sum(dgiven, axis=(1, 2)).astype(bias.dtype),
  )


recurrence.defvjp(_forward, _backward)


# The cells. `memory` is the sum of the neighbours' c. All but the state h and what is kept of the gates is float32.


def _srn(pre, memory, dtype):
  return State(nn.relu(pre).astype(dtype), None), None


def _srn_back(dstate, memory, after, gates):
  return jnp.where(after.h > 0, dstate.h, 0.0), None


def _lstm(pre, memory, dtype):
  width = pre.shape[-1] // 4
  open_gates, modulation = nn.sigmoid(pre[..., : 3 * width]), jnp.tanh(pre[..., 3 * width :])
  i, f, o = jnp.split(open_gates, 3, axis=-1)
  c = f * memory + i * modulation
  return State((o * jnp.tanh(c)).astype(dtype), c), (open_gates.astype(dtype), modulation.astype(dtype))


def _lstm_back(dstate, memory, after, gates):
  i, f, o = jnp.split(gates[0].astype(jnp.float32), 3, axis=-1)
  modulation, squashed = gates[1].astype(jnp.float32), jnp.tanh(after.c)
  dc = dstate.c + dstate.h * o * (1 - squashed**2)
  # In one array behind a barrier, or XLA would compute both again for each of the four gates.
  dh, dc = jnp.split(jax.lax.optimization_barrier(jnp.concatenate([dstate.h, dc], axis=-1)), 2, axis=-1)
  dpre = (
    dc * modulation * i * (1 - i),
    dc * memory * f * (1 - f),
    dh * squashed * o * (1 - o),
    dc * i * (1 - modulation**2),
  )
  return jnp.concatenate(dpre, axis=-1), dc * f


FORWARD = {"srn": _srn, "lstm": _lstm}
BACKWARD = {"srn": _srn_back, "lstm": _lstm_back}


# Neighbours. `have` are the rows of the diagonal before, `want` those of this one. The neighbour above a cell lies a
# row higher on the diagonal before, the one to its left in the same row.


def _there(have: Rows) -> tuple[Rows, Rows]:
  """Returns the rows of the cells that have the diagonal before above them, and of those that have it to their left."""
  return (have[0] + 1, have[1] + 1), have


def _both(one: Rows, other: Rows) -> Rows:
  return max(one[0], other[0]), min(one[1], other[1])


def _rows(x, have: Rows, want: Rows):
  """Cuts rows off, and adds zeros, so that `x` with the rows `have` has the rows `want`."""
  if have == want:
    return x
  edges = [(0, 0, 0)] * (x.ndim - 3) + [(have[0] - want[0], want[1] - have[1], 0)] + [(0, 0, 0)] * 2
  return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)


def _in_rows(state, have: Rows, want: Rows):
  return jax.tree.map(lambda s: _rows(s, have, want), state)


def _neighbours(x, have: Rows, want: Rows):
  """Returns the sum of what the neighbours above and to the left of the cells of `want` have."""
  return sum(_rows(x, there, want) for there in _there(have))


def _summed_outer(pairs):
  """Returns the gradient of a kernel, from the states that it met in each run and what came back to them.

  The runs' gradients are added up where they are smaller than the states; otherwise the states are put together and
  make one product. On two cores, with 6 x 6 cells of 256 channels, the second way is 3 times as fast at batch 1, and
  the first 1.2 times at batch 32.
  """
  (h, dpre), *_ = pairs
  width, gates = h.shape[-1], dpre.shape[-1]
  rows = sum(h.shape[1] for h, _ in pairs) / len(pairs) * h.shape[2]
  if rows * (width + gates) > width * gates / 2:
    return sum(_outer(h, dpre) for h, dpre in pairs)
  return _outer(*(jnp.concatenate(side, axis=1) for side in zip(*pairs, strict=True)))


# Arrays.


def _nothing(cell, directions, rows: int, x, row_kernel):
  zeros = jnp.zeros((len(directions), rows, x.shape[0], row_kernel.shape[1]), jnp.float32)
  return State(zeros, zeros if cell == "lstm" else None)


def _within(state, inside):
  return state if inside is None else jax.tree.map(lambda s: jnp.where(inside > 0, s, jnp.zeros_like(s)), state)


def _scan(step, carry, xs, steps: int, reverse: bool = False):
  if steps > 1:
    return jax.lax.scan(step, carry, xs, reverse=reverse)
  carry, ys = step(carry, jax.tree.map(lambda x: x[0], xs))
  return carry, jax.tree.map(lambda y: y[None], ys)


def _product(x, kernel):
  """Multiplies f[... k r b i] by f[k i j], in the kernel's dtype; adds up in float32."""
  return jnp.einsum("krbi,kij->krbj", x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)


def _many_back(kernel):
  """Returns the product with a kernel turned round.

  It is turned once: XLA would have each step's product read it across its rows, which is slower by 8% in all.
  """
  turned = jax.lax.optimization_barrier(jnp.swapaxes(kernel, 1, 2))
  return lambda dy: _product(dy, turned)


def _few_back(kernel):
  """Returns the same product for so few rows that turning the kernel takes as long as reading it in some of them.

  With the kernel on the left nothing is turned: 10% faster in all for 6 rows, as fast for 48, 10% slower for 192.
  """
  product = functools.partial(jnp.einsum, "kij,krbj->kirb", kernel, preferred_element_type=jnp.float32)
  return lambda dy: jnp.moveaxis(product(dy.astype(kernel.dtype)), 1, 3)


def _outer(x, dy):
  k, r, b, _ = x.shape  # one axis of rows: over two, XLA copies both sides first
  x, dy = (a.reshape(k, r * b, a.shape[-1]) for a in (x, dy.astype(x.dtype)))
  return jnp.einsum("kmi,kmj->kij", x, dy, preferred_element_type=jnp.float32)


def _halves(layout: Layout) -> list[slice]:
  """Returns the runs in two parts of about as many cells: XLA gives each of two products a core of its own."""
  middle = min(range(len(layout.runs)), key=lambda n: abs(layout.starts[n] - len(layout.order[0]) / 2))
  return [half for half in (slice(0, middle), slice(middle, len(layout.runs))) if half.start < half.stop]


def _of_runs(x, layout: Layout, runs: slice):
  """Returns what an array by place has for some runs."""
  starts = [*layout.starts, len(layout.order[0])]
  return x[:, starts[runs.start] : starts[runs.stop]]


def _diagonal(x, first: int, i, window: Rows):
  """Returns diagonal i, f[k r b d], of the run that begins at place `first`."""
  rows = window[1] - window[0]
  return jax.lax.dynamic_slice_in_dim(x, first + i * rows, rows, axis=1)


def _places(x):
  """Returns an array by place, f[k p b d], of the diagonals of a run."""
  return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def _by_place(x, layout: Layout):
  cells = jnp.moveaxis(x.reshape(x.shape[0], -1, x.shape[-1]), 1, 0)
  return cells.at[layout.order].get(mode="promise_in_bounds")


def _by_cell(x, layout: Layout, shape):
  """Returns the map f32[b h w d] of what is by place, summed over the directions."""
  y = sum(x[k].at[place].get(mode="promise_in_bounds").astype(jnp.float32) for k, place in enumerate(layout.place))
  return jnp.moveaxis(y, 0, 1).reshape(*shape[:3], -1)
