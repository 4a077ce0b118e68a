"""Products with a window of a matrix's rows for each input: a softmax over siblings costs what its siblings cost."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def window_products(
  x: Float[Array, "b k d"], kernel: Float[Array, "o d"], first: Int[Array, "#b k"], width: int
) -> Float[Array, "b k w"]:
  """Returns the products of each x with `width` rows of `kernel`, from row `first` on.

  Neither it nor its gradient does work that grows with o, but for the zeros that the gradient starts from. On a CPU the
  windows are read where they lie, one after the other, by each device for the whole batch; elsewhere they are gathered,
  which takes `b k w d` numbers.

  Args:
    x: the inputs, f32 or bf16; the products are computed in that type.
    kernel: all rows, f32.
    first: at most o - width; a leading dimension of 1 stands for windows that all examples share, and read once.
    width: of the windows.
  """
  if first.shape[0] == 1:
    return _products(x.swapaxes(0, 1), kernel, first[0], width).swapaxes(0, 1)
  return _products(x.reshape(-1, 1, x.shape[-1]), kernel, first.reshape(-1), width).reshape(*x.shape[:2], width)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _products(
  x: Float[Array, "m r d"], kernel: Float[Array, "o d"], first: Int[Array, "m"], width: int
) -> Float[Array, "m r w"]:
  return _each(lambda x, first: x @ _rows(kernel, first, width).astype(x.dtype).T, x, first)


def _rows(kernel: Float[Array, "o d"], first: Int[Array, ""], width: int) -> Float[Array, "w d"]:
  return jax.lax.dynamic_slice_in_dim(kernel, first, width)


def _each(function: Callable[..., Array], *arrays: Array) -> Array:
  """Returns `function` of each window. XLA gathers windows element by element on a CPU, 10 times slower than a loop."""
  in_turn = lambda *arrays: jax.lax.map(lambda one: function(*one), arrays)  # noqa: E731
  return jax.lax.platform_dependent(*arrays, cpu=in_turn, default=jax.vmap(function))


def _forward(x: Array, kernel: Array, first: Array, width: int) -> tuple[Array, tuple[Array, Array, Array]]:
  return _products(x, kernel, first, width), (x, kernel, first)


def _backward(width: int, saved: tuple[Array, Array, Array], g: Float[Array, "m r w"]) -> tuple[Array, Array, None]:
  x, kernel, first = saved
  dx = _each(lambda g, first: g @ _rows(kernel, first, width).astype(g.dtype), g, first)
  in_turn, at_once = (functools.partial(add, jnp.zeros_like(kernel)) for add in (_add_in_turn, _add_at_once))
  return dx, jax.lax.platform_dependent(first, g, x, cpu=in_turn, default=at_once), None


def _add_in_turn(total: Array, first: Array, g: Array, x: Array) -> Array:
  def add(total: Array, one: tuple[Array, Array, Array]) -> tuple[Array, None]:
    first, g, x = one
    rows = _rows(total, first, g.shape[-1]) + (g.T @ x).astype(total.dtype)
    return jax.lax.dynamic_update_slice_in_dim(total, rows, first, 0), None

  return jax.lax.scan(add, total, (first, g, x))[0]


def _add_at_once(total: Array, first: Array, g: Array, x: Array) -> Array:
  rows = first[:, None] + jnp.arange(g.shape[-1], dtype=first.dtype)[None]
  return total.at[rows].add(jnp.einsum("mrw,mrd->mwd", g, x).astype(total.dtype))


_products.defvjp(_forward, _backward)
