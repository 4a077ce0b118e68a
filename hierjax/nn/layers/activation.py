"""ReLU6 with a gradient that keeps only its output, which the next layer keeps anyway."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def relu6(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """Returns min(max(x, 0), 6); the gradient is 0 at both ends, as in PyTorch."""
  return jnp.clip(x, 0, 6)


def _forward(x: Float[Array, "*b"]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
  y = relu6(x)
  return y, y


def _backward(y: Float[Array, "*b"], gradient: Float[Array, "*b"]) -> tuple[Float[Array, "*b"]]:
  return (jnp.where((y > 0) & (y < 6), gradient, jnp.zeros((), gradient.dtype)),)


relu6.defvjp(_forward, _backward)
