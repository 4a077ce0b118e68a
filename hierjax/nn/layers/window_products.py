"""Products with a window of a matrix's rows for each input, so that a softmax over siblings reads their rows only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_LEAST = 16  # rows that are read together; for fewer, the loop over windows costs as much as their products


class _Windows(NamedTuple):
  """Windows of consecutive rows of a matrix: the first row of each, and the number of rows."""

  first: Int[Array, "m"]
  rows: Int[Array, "m"]


def window_products(
  x: Float[Array, "b k d"],
  kernel: Float[Array, "o d"],
  first: Int[Array, "#b k"],
  count: Int[Array, "#b k"],
  width: int,
) -> Float[Array, "b k w"]:
  """Returns the products of each x with `count` rows of `kernel`, from row `first` on, and zeros up to `width`.

  The work, forward and backward, does not grow with o, except for the zeros that the gradient starts from. On a CPU the
  windows are read in place, one after the other, by each device for the whole batch; of a window that is not full, the
  smallest sufficient half, quarter, ... is read. On other devices windows are gathered, which takes `b k w d` numbers.

  Args:
    x: the inputs, f32 or bf16; the products are computed in that type.
    kernel: all rows, f32.
    first: at most o - width; with a leading dimension of 1 all examples share the windows, which are read once.
    count: at most width.
    width: of the result.
  """
  if first.shape[0] == 1:
    found = _products(x.swapaxes(0, 1), kernel, _Windows(first[0], count[0]), width).swapaxes(0, 1)
  else:
    windows = _Windows(first.reshape(-1), count.reshape(-1))
    found = _products(x.reshape(-1, 1, x.shape[-1]), kernel, windows, width).reshape(*x.shape[:2], width)
  return jnp.where(jnp.arange(width, dtype=jnp.int32)[None, None] < count[..., None], found, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _products(
  x: Float[Array, "m r d"], kernel: Float[Array, "o d"], windows: _Windows, width: int
) -> Float[Array, "m r w"]:
  """Returns the products with the rows of each window; numbers after the first `count` are not to be used."""

  def product(rows: int, first: Array, x: Array) -> Array:
    return jnp.pad(x @ _window(kernel, first, rows).astype(x.dtype).T, ((0, 0), (0, width - rows)))

  return _each(product, width, windows, x)


def _window(kernel: Float[Array, "o d"], first: Int[Array, ""], width: int) -> Float[Array, "w d"]:
  return jax.lax.dynamic_slice_in_dim(kernel, first, width)


def _each(function: Callable[..., Array], width: int, windows: _Windows, x: Float[Array, "m r _"]) -> Array:
  """Returns `function(rows, first, x)` of each window, `rows` being at least its count.

  XLA gathers windows element by element on a CPU, 10 times slower than a loop. In the order of their rows, windows that
  overlap find them in the cache.
  """

  def in_turn(first: Array, count: Array, x: Array) -> Array:
    def put(found: Array, i: Array) -> tuple[Array, None]:
      one = _sized(function, width, count[i], first[i], x[i])
      return jax.lax.dynamic_update_index_in_dim(found, one, i, 0), None

    like = jax.eval_shape(functools.partial(function, width), first[0], x[0])
    return jax.lax.scan(put, jnp.zeros((len(x), *like.shape), like.dtype), jnp.argsort(first, stable=False))[0]

  def at_once(first: Array, count: Array, x: Array) -> Array:
    return jax.vmap(functools.partial(function, width))(first, x)

  return jax.lax.platform_dependent(*windows, x, cpu=in_turn, default=at_once)


def _sized(function: Callable[..., Any], width: int, count: Int[Array, ""], *args: Any) -> Any:
  """Returns `function(rows, *args)` for the smallest of width, width / 2, ... that is at least `count`."""
  sizes = [width]
  while sizes[0] >= 2 * _LEAST:
    sizes.insert(0, -(-sizes[0] // 2))
  which = (count > jnp.array(sizes[:-1], jnp.int32)).sum() if len(sizes) > 1 else 0
  return jax.lax.switch(which, [functools.partial(function, rows) for rows in sizes], *args)


_Saved = tuple[Float[Array, "m r d"], Float[Array, "o d"], _Windows]


def _forward(
  x: Float[Array, "m r d"], kernel: Float[Array, "o d"], windows: _Windows, width: int
) -> tuple[Float[Array, "m r w"], _Saved]:
  return _products(x, kernel, windows, width), (x, kernel, windows)


def _backward(
  width: int, saved: _Saved, g: Float[Array, "m r w"]
) -> tuple[Float[Array, "m r d"], Float[Array, "o d"], None]:
  x, kernel, windows = saved

  def product(rows: int, first: Array, g: Array) -> Array:
    return g[:, :rows] @ _window(kernel, first, rows).astype(g.dtype)

  dx = _each(product, width, windows, g)
  in_turn, at_once = (functools.partial(add, jnp.zeros_like(kernel)) for add in (_add_in_turn, _add_at_once))
  return dx, jax.lax.platform_dependent(windows.first, g, x, cpu=in_turn, default=at_once), None


def _add_in_turn(total: Array, first: Array, g: Array, x: Array) -> Array:
  def add(total: Array, one: tuple[Array, Array, Array]) -> tuple[Array, None]:
    first, g, x = one  # all columns: from a branch, XLA would copy the whole total
    rows = _window(total, first, g.shape[-1]) + (g.T @ x).astype(total.dtype)
    return jax.lax.dynamic_update_slice_in_dim(total, rows, first, 0), None

  return jax.lax.scan(add, total, (first, g, x))[0]


def _add_at_once(total: Array, first: Array, g: Array, x: Array) -> Array:
  rows = first[:, None] + jnp.arange(g.shape[-1], dtype=first.dtype)[None]
  return total.at[rows].add(jnp.einsum("mrw,mrd->mwd", g, x).astype(total.dtype))


_products.defvjp(_forward, _backward)
