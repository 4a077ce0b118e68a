"""The recurrence of `spatial.py` over a grid of cells, by anti-diagonals and with its own VJP.

In the frame of a direction, flipped so that it starts in the upper left corner, a cell waits only for the cell above it
and the cell to its left, and both lie on the anti-diagonal before. So a grid of h x w cells takes h + w - 1 steps, each
of them one product a neighbour for all cells of a diagonal and all directions. No product has a row for a neighbour
that is not there, and no step more cells than its diagonal, but for the loops of large grids; see `diagonals.py`. There
one product takes both neighbours, and on CPUs n images lie side by side in one grid, which takes h + n w - 1 steps.

The VJP keeps h, c and the gates, and computes tanh(c) and the sums of neighbours again. Kernels' gradients are products
over many cells, outside the chain of steps.

A diagonal is f[k r b d]: k directions, the r rows of its window, and then the batch, so that for each direction it is
one piece of memory. By place, f[k p b d], diagonals lie one after the other.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hierjax.nn.layers.cells import BACKWARD, FORWARD, GATES, State
from hierjax.nn.layers.diagonals import Layout, Run, images_abreast, layout_of, rows_before

Rows = tuple[int, int]  # from the first to before the last
Neighbours = tuple[int, ...]  # 0 is the one above, 1 the one to the left
_FEW = 16  # rows of a product
# Channels. With fewer, XLA puts a step's gradients of the gates together twice, for the product and to keep them; were
# that over the gates that they come from, each step would copy those of all steps.
_FEWEST_OVER = 32


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
  b, h, w, _ = x.shape
  n = 1
  if jax.default_backend() == "cpu" and isinstance(b, int):
    n = images_abreast(h, w, b // math.gcd(b, jax.device_count()))  # of one device's images, so that none leaves it

  def abreast(maps):
    c = maps.shape[3]
    return jnp.swapaxes(maps.reshape(b // n, n, h, w, c), 1, 2).reshape(b // n, h, n * w, c)

  driven = None if drive is None else abreast(drive)
  y = _recurrence(cell, directions, n, abreast(x), driven, input_kernel, row_kernel, column_kernel, bias)
  d = y.shape[3]
  return jnp.swapaxes(y.reshape(b // n, h, n, w, d), 1, 2).reshape(b, h, w, d)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _recurrence(cell, directions, images, *arguments):
  """Runs the recurrence over maps in each of which `images` images lie side by side."""
  return _forward(cell, directions, images, *arguments, keep_gates=False)[0]


def _forward(
  cell, directions, images, x, drive, input_kernel, row_kernel, column_kernel, bias, keep_gates: bool = True
):
  layout = layout_of(*x.shape[1:3], directions, images)
  inputs = [_by_place(x, layout, part) for part in _parts(layout)]
  given: list[Any] = []  # to each run
  for part, cells in zip(_parts(layout), inputs, strict=True):
    inner = [start - layout.starts[part.start] for start in layout.starts[part.start + 1 : part.stop]]
    given += jnp.split(_product(cells, input_kernel.astype(x.dtype)), inner, axis=1)
  kernels = _kernels(layout, row_kernel.astype(x.dtype), column_kernel.astype(x.dtype))
  state, have, trace = _nothing(cell, directions, 0, x, row_kernel), (0, 0), []
  state = state._replace(h=state.h.astype(x.dtype))
  for n, run in enumerate(layout.runs):
    want = (run.top, run.bottom)
    if run.steps > 1:
      state, have = _in_rows(state, have, want), want

    driven = None if drive is None else _by_place(drive, layout, slice(n, n + 1))

    def step(state, i, given, n=n, have=have, want=want, driven=driven):
      pre = given + bias.astype(jnp.float32)[:, None, None]
      if driven is not None:
        pre = pre + jnp.tile(_diagonal(driven, 0, i, want).astype(jnp.float32), GATES[cell])
      sides = _sides(state, layout.joined[n], i)
      for which, met in _met(layout.runs[n], have):
        pre = pre + _rows(_product(_beside(sides, which, have, met), kernels[which]), met, want)
      state, gates = FORWARD[cell](pre, _memory(sides, have, want), x.dtype)
      state = _only(layout.inside[n], i, state)
      return state, gates

    before = state
    state, gates, states = _steps(step, state, run, given[n], over=keep_gates)
    trace.append((states if run.steps > 1 else before, states, gates))
    have = want
  # Behind a barrier and back, or XLA would compute an SRN's h again on the way back, and keep all that it is made of.
  h = jax.lax.optimization_barrier(jnp.concatenate([states.h for _, states, _ in trace], axis=1))
  for n, run in enumerate(layout.runs):
    if run.steps == 1:
      before, after, gates = trace[n]
      after = after._replace(h=h[:, layout.state_starts[n] : layout.state_starts[n + 1]])
      if n and layout.runs[n - 1].steps == 1:
        before = trace[n - 1][1]  # what one step leaves is what the next one finds
      trace[n] = before, after, gates
  y = _by_cell(h, layout.state_place, x.shape)
  return y, (x, drive, input_kernel, row_kernel, column_kernel, bias, inputs, trace)


def _backward(cell, directions, images, residuals, dy):
  x, drive, input_kernel, row_kernel, column_kernel, bias, inputs, trace = residuals
  layout = layout_of(*x.shape[1:3], directions, images)
  back = _few_back if min(x.shape[1:3]) * x.shape[0] <= _FEW else _many_back
  input_back = back(input_kernel.astype(x.dtype))
  neighbours = _kernels(layout, row_kernel.astype(x.dtype), column_kernel.astype(x.dtype))
  backs = {which: back(kernel) for which, kernel in neighbours.items()}
  last = layout.runs[-1]
  dgiven: Any = []
  met_states: Any = [], []  # of W^r and of W^c
  dstate = _nothing(cell, directions, last.bottom - last.top, x, row_kernel)
  for n in reversed(range(len(layout.runs))):
    run, (before, after, gates) = layout.runs[n], trace[n]
    earlier = layout.runs[n - 1] if n else Run(0, 0, 0, 0)
    have, want = rows_before(run, earlier), (run.top, run.bottom)
    after_first = want[1] - want[0] if run.steps > 1 else 0  # the place of the state after the first step
    dy_of_run = _by_place(dy, layout, slice(n, n + 1))

    def step(
      dstate, i, gates, n=n, have=have, want=want, before=before, after=after, after_first=after_first, dy=dy_of_run
    ):
      sides = _sides(jax.tree.map(lambda s: _diagonal(s, 0, i, have), before), layout.joined[n], i)
      after = jax.tree.map(lambda s: _diagonal(s, after_first, i, want), after)
      dstate = dstate._replace(h=dstate.h + _diagonal(dy, 0, i, want).astype(jnp.float32))
      dstate = _only(layout.inside[n], i, dstate)
      dpre, dmemory = BACKWARD[cell](dstate, _memory(sides, have, want), after, gates)
      dh: dict[int, Any] = {}
      for which, met in _met(layout.runs[n], have):
        parts = jnp.split(backs[which](_rows(dpre, want, met)), len(which), axis=-1)
        dh |= {side: _rows(part, met, _there(have)[side]) for side, part in zip(which, parts, strict=True)}
      above, left = (
        State(dh[side], None if dmemory is None else _rows(dmemory, want, there))
        for side, there in enumerate(_there(have))
      )
      return jax.tree.map(jnp.add, above, _only(layout.joined[n], i, left)), dpre

    dstate, dpre, _ = _steps(step, dstate, run, gates, reverse=True)
    dgiven.append(dpre)
    k, _, *rest = before.h.shape
    rows = have[1] - have[0]
    h = before.h[:, : run.steps * rows].reshape(k, run.steps, rows, *rest)
    sides = _sides(h, layout.joined[n], slice(None))
    for pairs, side, there in zip(met_states, sides, _there(have), strict=True):
      met = want if run.steps > 1 else _both(there, want)  # rows of zeros rather than a copy of all of a loop's dpre
      places = run.steps * (met[1] - met[0])
      pairs.append((_rows(side, there, met).reshape(k, places, *rest), _rows(dpre, want, met)))
    if run.steps > 1:
      dstate = _in_rows(dstate, want, (earlier.top, earlier.bottom))

  dgiven = [jnp.concatenate(dgiven[::-1][part], axis=1) for part in _parts(layout)]
  dx = _by_cell(jnp.concatenate([input_back(part) for part in dgiven], axis=1), layout.place, x.shape)
  ddrive = None
  if drive is not None:
    by_gate: Any = [sum(jnp.split(part, GATES[cell], axis=-1)) for part in dgiven]
    ddrive = _by_cell(jnp.concatenate(by_gate, axis=1), layout.place, x.shape).astype(drive.dtype)
  dbias: Any = sum(jnp.sum(part, axis=(1, 2)) for part in dgiven)
  dkernels = map(_summed_outer, [list(zip(inputs, dgiven, strict=True)), *met_states])
  kernels = input_kernel, row_kernel, column_kernel
  return (
    dx.astype(x.dtype),
    ddrive,
    *(dkernel.astype(kernel.dtype) for dkernel, kernel in zip(dkernels, kernels, strict=True)),
    dbias.astype(bias.dtype),
  )


_recurrence.defvjp(_forward, _backward)


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


def _sides(state, joined, i):
  """Returns what diagonal i has above its cells, and what to the left: nothing where there another image ends."""
  return state, _only(joined, i, state)


def _met(run: Run, have: Rows) -> list[tuple[Neighbours, Rows]]:
  """Returns the products of a step of `run`: the states of which neighbours each takes, and for which rows.

  None has a row for a neighbour that is not there; but in a loop, where such rows are few, one takes both neighbours.
  """
  want = (run.top, run.bottom)
  if run.steps > 1:
    return [((0, 1), want)]
  return [((side,), _both(there, want)) for side, there in enumerate(_there(have))]


def _beside(sides, which: Neighbours, have: Rows, met: Rows):
  """Returns the states h of some neighbours, side by side, for the rows `met`."""
  return jnp.concatenate([_rows(sides[side].h, _there(have)[side], met) for side in which], axis=-1)


def _kernels(layout: Layout, *kernels) -> dict[Neighbours, Any]:
  """Returns the kernels of the products that the steps have, from the two neighbours'."""
  products = sorted({which for run in layout.runs for which, _ in _met(run, (0, 0))})
  return {which: jnp.concatenate([kernels[side] for side in which], axis=1) for which in products}


def _memory(sides, have: Rows, want: Rows):
  """Returns the sum of the memories that the neighbours above and to the left of the cells of `want` have."""
  if sides[0].c is None:
    return None
  return sum(_rows(side.c, there, want) for side, there in zip(sides, _there(have), strict=True))


def _summed_outer(pairs):
  """Returns the gradient of a kernel, from what it multiplied, run by run or in parts, and what came back to that.

  The runs' gradients are added up where they are smaller than the states; otherwise the states are put together and
  make one product. On two cores, with 6 x 6 cells of 256 channels, the second way is 3 times as fast at batch 1, and
  the first 1.2 times at batch 32.
  """
  (h, dpre), *_ = pairs
  width, gates = h.shape[-1], dpre.shape[-1]
  rows = sum(h.shape[1] for h, _ in pairs) / len(pairs) * h.shape[2]
  if rows * (width + gates) > width * gates / 2:
    return sum(outer(h, dpre) for h, dpre in pairs)
  return outer(*(jnp.concatenate(side, axis=1) for side in zip(*pairs, strict=True)))


# Arrays.


def _nothing(cell, directions, rows: int, x, row_kernel):
  zeros = jnp.zeros((len(directions), rows, x.shape[0], row_kernel.shape[1]), jnp.float32)
  return State(zeros, zeros if cell == "lstm" else None)


def _only(where, i, state):
  """Puts zeros where `where`, bool[steps r], says no for diagonal i, or for all, i a slice."""
  if where is None:
    return state
  return jax.tree.map(lambda s: jnp.where(jnp.asarray(where)[i][..., None, None], s, jnp.zeros_like(s)), state)


def _steps(step, state, run: Run, given, over: bool = True, reverse: bool = False):
  """Takes the steps of a run: (state, i, given) -> state, result. Returns the last state, the results and the states.

  The states of a single step are the one after it; of a loop, those before each step and then the last, or None in
  reverse. Kept as they are made, they would be computed twice, for the next step and to keep them. If `over`, a loop
  writes a step's result over what the step was given, where it can.
  """
  if run.steps == 1:
    state, result = step(state, 0, given)
    return state, result, state
  rows, on_cpu = run.bottom - run.top, jax.default_backend() == "cpu"

  def here(given, i):
    return jax.tree.map(lambda g: _diagonal(g, 0, i, (run.top, run.bottom)), given)

  def put(kept, new, i):
    return jax.lax.dynamic_update_slice_in_dim(kept, new.astype(kept.dtype), i * rows, axis=1)

  def room(new, some, steps):
    # Each step writes its own values over these. They are some of the state's, each image's its own, or XLA would make
    # room for all runs first. To write a step's bfloat16 numbers, XLA's CPU backend would convert those of all steps.
    dtype = jnp.float32 if on_cpu else new.dtype
    return jnp.broadcast_to(some[:, :1, :, :1].astype(dtype), (new.shape[0], steps * rows, *new.shape[2:]))

  result = jax.eval_shape(lambda given: step(state, 0, here(given, 0))[1], given)
  over = over and on_cpu and result is not None and given is not None  # on other devices untried
  over = over and given.dtype == jnp.float32 and state.h.shape[-1] >= _FEWEST_OVER
  results = given if over else jax.tree.map(lambda new: room(new, state.h, run.steps), result)
  states = None if reverse else jax.tree.map(lambda s: room(s, s, run.steps + 1), state)

  def body(n, carry):
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


def _product(x, kernel):
  """Multiplies f[k r b i] by f[k i j], in the kernel's dtype; adds up in float32."""
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


def outer(x, dy):
  """Returns the gradient f32[k i j] of a kernel that was multiplied by f[k r b i], from the products' f[k r b j]."""
  dy = dy.astype(x.dtype)
  if jax.device_count() > 1:  # a batch that is split over devices stays so, and each sums its own images
    return jnp.einsum("krbi,krbj->kij", x, dy, preferred_element_type=jnp.float32)
  k, r, b, _ = x.shape  # one axis of rows: over two, XLA copies both sides first
  x, dy = (a.reshape(k, r * b, a.shape[-1]) for a in (x, dy))
  return jnp.einsum("kmi,kmj->kij", x, dy, preferred_element_type=jnp.float32)


def _parts(layout: Layout) -> list[slice]:
  """Returns the runs in parts, each with a product of its inputs: XLA gives each of two products a core of its own.

  These are two of about as many cells; or, where there are loops, the runs, whose products run beside others' steps.
  """
  count = len(layout.runs)
  if any(run.steps > 1 for run in layout.runs):
    return [slice(n, n + 1) for n in range(count)]
  middle = min(range(count), key=lambda n: abs(layout.starts[n] - layout.starts[-1] / 2))
  return [half for half in (slice(0, middle), slice(middle, count)) if half.start < half.stop]


def _diagonal(x, first: int, i, window: Rows):
  """Returns diagonal i, f[k r b d], of those that begin at place `first`."""
  rows = window[1] - window[0]
  return jax.lax.dynamic_slice_in_dim(x, first + i * rows, rows, axis=1)


def _by_place(x, layout: Layout, runs: slice):
  """Returns the cells of some runs, by place."""
  cells = jnp.moveaxis(x.reshape(x.shape[0], -1, x.shape[-1]), 1, 0)
  places = slice(layout.starts[runs.start], layout.starts[runs.stop])
  return cells.at[layout.order[:, places]].get(mode="promise_in_bounds")


def _by_cell(x, place, shape):
  """Returns the map f32[b h w d] of what is by place, summed over the directions."""
  y = sum(x[k].at[places].get(mode="promise_in_bounds").astype(jnp.float32) for k, places in enumerate(place))
  return jnp.moveaxis(y, 0, 1).reshape(*shape[:3], -1)
