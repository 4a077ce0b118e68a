"""The output layer of recurrent heads: linear, with a learned scale of its logits."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def logit_scale(module: nn.Module) -> Float[Array, ""]:
  """Returns 2 exp(s), at least 1/4: the factor of a layer's logits; its parameter `scale`, s, begins at 0.

  The states of an LSTM are bounded, so only the output layer can make its logits larger, and its rate of learning is in
  proportion to the square of the states: with the usual initial values the logits are too small when training ends,
  and the head is under-confident (READINGS G16). The gradient of s is the derivative of the loss along the line on
  which all logits grow, so training ends near the minimum along this line. CLIP (Radford et al. 2021) learns such a
  scale, too. The factor begins at 2, as an LSTM's h has a root mean square of about a half. It falls while the
  states are wrong, which is a start with small steps, and grows later. It stays at 1/4 where s is below -ln 8, so that
  steps that are too large do not take the logits to 0, where nothing would be learnt any more; the gradient of s is
  that at 1/4 there.
  """
  s = module.param("scale", nn.initializers.zeros, (), jnp.float32)
  return 2 * jnp.exp(s + jax.lax.stop_gradient(jnp.maximum(s, -math.log(8)) - s))


class ScaledDense(nn.Module):
  """A linear layer whose outputs have a learned scale: z = 2 exp(s) (x W + b).

  Attributes:
    num_outputs: o.
    dtype: of the product; weights and outputs are float32.
  """

  num_outputs: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    """Returns the logits."""
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.num_outputs), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.num_outputs,), jnp.float32)
    product = jnp.matmul(x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=jnp.float32)
    return logit_scale(self) * (product + bias.reshape(*[1] * (x.ndim - 1), -1))
