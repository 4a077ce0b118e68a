"""Functions that are computed in one way on CPUs and in another elsewhere, gradients included."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax
from jaxtyping import Array

Bilinear = Callable[[Array, Array], Array]


def on_cpus(cpu: Bilinear, other: Bilinear) -> Bilinear:
  """Returns a function of two arrays that computes `cpu` on CPUs and `other` on all other devices.

  The choice is made when a program is lowered, so one that is exported for several platforms has each one's own. The
  gradient is that of the same function; only the two arrays are kept for it. Layers that share the function that is
  returned share its traces too.

  Args:
    cpu: of two arrays, linear in each of them.
    other: the same sum in another form.
  """

  def pulled_back(function: Bilinear) -> Callable[[Array, Array, Array], tuple[Array, Array]]:
    return lambda x, kernel, g: jax.vjp(function, x, kernel)[1](g)

  gradients = {"cpu": pulled_back(cpu), "default": pulled_back(other)}

  @jax.custom_vjp
  def call(x: Array, kernel: Array) -> Array:
    return lax.platform_dependent(x, kernel, cpu=cpu, default=other)

  def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return call(x, kernel), (x, kernel)

  def backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    return lax.platform_dependent(*kept, gradient, **gradients)

  call.defvjp(forward, backward)
  return call
