"""What spatial recurrences cost with JAX's own means: a `lax.scan` over the rows of one over the columns, and autodiff.

They are fair rivals: the inputs' projections are one product before the scans, and no product is one of two that could
be one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def nested_scan(
  x: Float[Array, "b h w c"],
  input_kernel: Float[Array, "k c g"],
  row_kernel: Float[Array, "k d g"],
  column_kernel: Float[Array, "k d g"],
  bias: Float[Array, "k g"],
  *,
  cell: str,
  directions: tuple[str, ...],
  batched: bool,
  by_row: bool,
) -> Float[Array, "b h w d"]:
  """Returns what `hierjax.layers.spatial.spatial_recurrence` does without a drive, which explains the arguments.

  Args:
    batched: whether one step takes all directions, or one direction runs after the other.
    by_row: whether W^r multiplies a whole row of states at once, or both neighbours are one product at each cell.
  """

  def one(frame: Any, input_kernel: Any, row_kernel: Any, column_kernel: Any, bias: Any) -> Any:
    pre = _product(jnp.transpose(frame, (1, 2, 0, 3)), input_kernel) + bias[None, None, None]
    h = _scan_cells(pre, row_kernel, column_kernel, cell, by_row, x.dtype)
    return jnp.transpose(h, (2, 0, 1, 3))

  frames = [flip(x, d) for d in directions]
  weights = [w.astype(jnp.float32) for w in (input_kernel, row_kernel, column_kernel, bias)]
  if batched:
    maps: Any = jax.vmap(one)(jnp.stack(frames), *weights)
  else:
    maps = [one(frame, *(w[i] for w in weights)) for i, frame in enumerate(frames)]
  return jnp.stack([flip(maps[i], d) for i, d in enumerate(directions)]).sum(axis=0)


def flip(x: Any, direction: str) -> Any:
  """Mirrors a map `[b h w c]` so that the corner a direction starts from lies in the upper left; its own inverse."""
  return x[:, :: -1 if direction[0] == "s" else 1, :: -1 if direction[1] == "e" else 1]


def _scan_cells(pre: Any, row_kernel: Any, column_kernel: Any, cell: str, by_row: bool, dtype: Any) -> Any:
  """Returns the states f[h w b d] for inputs f32[h w b g]; c is float32."""
  (_, columns, batch, _), width = pre.shape, row_kernel.shape[0]
  step = {"srn": _srn, "lstm": _lstm}[cell]
  kernel = column_kernel if by_row else jnp.concatenate([row_kernel, column_kernel])
  outside = jnp.zeros((batch, width), dtype), jnp.zeros((batch, width)) if cell == "lstm" else None

  def at_cell(left: Any, inputs: Any) -> Any:
    (h_above, c_above), pre = inputs
    h = left[0] if by_row else jnp.concatenate([h_above, left[0]], axis=-1)
    state = step(pre + _product(h, kernel), None if c_above is None else c_above + left[1], dtype)
    return state, state

  def at_row(above: Any, pre: Any) -> Any:
    if by_row:
      pre = pre + _product(above[0], row_kernel)
    row = jax.lax.scan(at_cell, outside, (above, pre))[1]
    return row, row[0]

  first = jax.tree.map(lambda s: jnp.zeros((columns, *s.shape), s.dtype), outside)
  return jax.lax.scan(at_row, first, pre)[1]


def _product(x: Any, kernel: Any) -> Any:
  # Cast here, so that bfloat16's gradients of the kernel add up in float32.
  return jnp.dot(x, kernel.astype(x.dtype)).astype(jnp.float32)


def _srn(pre: Any, memory: Any, dtype: Any) -> Any:
  return jax.nn.relu(pre).astype(dtype), None


def _lstm(pre: Any, memory: Any, dtype: Any) -> Any:
  i, f, o, m = jnp.split(pre, 4, axis=-1)
  c = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(m)
  return (jax.nn.sigmoid(o) * jnp.tanh(c)).astype(dtype), c


def with_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns `(cotangent, *arguments) -> (y, gradients)`, with a gradient for each argument."""

  def run(cotangent: Any, *arguments: Any) -> Any:
    y, pull = jax.vjp(function, *arguments)
    return y, pull(cotangent.astype(y.dtype))

  return run
