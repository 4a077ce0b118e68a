"""Spatial recurrences in plain JAX: a `lax.scan` over rows of a `lax.scan` over columns, with automatic gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Products = Literal["plain", "by_cell", "by_row"]


class _Weights(NamedTuple):
  input_kernel: Any
  row_kernel: Any
  column_kernel: Any
  bias: Any


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
  products: Products,
) -> Float[Array, "b h w d"]:
  """Returns what `recurrence.spatial.spatial_recurrence` does without a drive; see there for the arguments.

  Args:
    batched: whether one step takes all directions, or one direction runs after the other.
    products: `plain`, three at each cell, as in the equations. The others use hierjax's rearrangements: one product of
      all inputs before the scans, and then one product of both neighbours at each cell (`by_cell`), or a product of W^r
      with a whole row of states (`by_row`).
  """

  def one(frame: Any, weights: _Weights) -> Any:
    inputs = jnp.transpose(frame, (1, 2, 0, 3))
    if products != "plain":
      inputs = _product(inputs, weights.input_kernel) + weights.bias[None, None, None]
    return jnp.transpose(_scan_cells(inputs, weights, cell, products, x.dtype), (2, 0, 1, 3))

  frames = [flip(x, d) for d in directions]
  weights = jax.tree.map(lambda w: w.astype(jnp.float32), _Weights(input_kernel, row_kernel, column_kernel, bias))
  if batched:
    maps: Any = jax.vmap(one)(jnp.stack(frames), weights)
  else:
    maps = [one(frame, jax.tree.map(lambda w: w[i], weights)) for i, frame in enumerate(frames)]  # noqa: B023
  return jnp.stack([flip(maps[i], d) for i, d in enumerate(directions)]).sum(axis=0)


def flip(x: Any, direction: str) -> Any:
  """Mirrors a map `[b h w c]` so that the corner a direction starts from lies in the upper left; its own inverse."""
  return x[:, :: -1 if direction[0] == "s" else 1, :: -1 if direction[1] == "e" else 1]


def _scan_cells(inputs: Any, weights: _Weights, cell: str, products: Products, dtype: Any) -> Any:
  """Returns the states f[h w b d] for inputs f[h w b c], or f32[h w b g] where they are projected; c is float32."""
  (_, columns, batch, _), width = inputs.shape, weights.row_kernel.shape[0]
  step = {"srn": _srn, "lstm": _lstm}[cell]
  both = jnp.concatenate([weights.row_kernel, weights.column_kernel])
  outside = jnp.zeros((batch, width), dtype), jnp.zeros((batch, width)) if cell == "lstm" else None

  def preactivation(inputs: Any, above: Any, left: Any) -> Any:
    if products == "by_row":
      return inputs + _product(left, weights.column_kernel)
    if products == "by_cell":
      return inputs + _product(jnp.concatenate([above, left], axis=-1), both)
    neighbours = _product(above, weights.row_kernel) + _product(left, weights.column_kernel)
    return _product(inputs, weights.input_kernel) + weights.bias[None] + neighbours

  def at_cell(left: Any, given: Any) -> Any:
    (h_above, c_above), inputs = given
    memory = None if c_above is None else c_above + left[1]
    state = step(preactivation(inputs, h_above, left[0]), memory, dtype)
    return state, state

  def at_row(above: Any, inputs: Any) -> Any:
    if products == "by_row":
      inputs = inputs + _product(above[0], weights.row_kernel)
    row = jax.lax.scan(at_cell, outside, (above, inputs))[1]
    return row, row[0]

  first = jax.tree.map(lambda s: jnp.zeros((columns, *s.shape), s.dtype), outside)
  return jax.lax.scan(at_row, first, inputs)[1]


def _product(x: Any, kernel: Any) -> Any:
  # Cast here: the gradients of bfloat16 kernels are then added in float32.
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
