"""The scale of logits that are read from the states of a recurrence."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

_GAIN, _RATE = 2.0, 0.6


def scaled_normal(**axes: int | tuple[int, ...]) -> nn.initializers.Initializer:
  """Returns the initialiser of a matrix whose outputs are scaled: at first the logits have their usual variance.

  `axes` are those of `lecun_normal`: `in_axis`, `out_axis`, `batch_axis`.
  """
  return nn.initializers.variance_scaling(1 / _GAIN**2, "fan_in", "truncated_normal", **axes)


class LogitScale(nn.Module):
  """A factor of logits, one learned number s:

      logits = 2 exp(0.6 s) (W h + b),   s = 0 at first (READINGS G16).

  The functions that can be learned are those of W h + b. The learning differs: the entries of a state h are bounded by
  1, so sharp probabilities need a large W, and gradient descent changes ln |W| at a rate in proportion to 1 / |W|^2.
  Without the factor, the logits of a run of minutes are still too small at its end, and its model is under-confident
  (`benchmarks/output_scale.py` measures it). A larger constant in place of 0.6 learns the factor faster, and diverges
  sooner at a large learning rate.
  """

  @nn.compact
  def __call__(self) -> Float[Array, ""]:
    """Returns the factor."""
    s = self.param("s", nn.initializers.zeros, (), jnp.float32)
    return _GAIN * jnp.exp(_RATE * jnp.asarray(s))
