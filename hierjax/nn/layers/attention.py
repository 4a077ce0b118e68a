"""Gates on the channels and the cells of a map: SE (Hu et al. 2018) and CBAM (Woo et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.nn.layers.pooling import largest


def _mlp(channels: int, reduction: int, dtype: Any) -> Callable[[Array], Array]:
  """Returns W2 relu(W1 v + b1) + b2, whose hidden width is channels / reduction, or 1 where that is less."""
  inner = nn.Dense(max(1, channels // reduction), dtype=dtype, name="fc1")
  outer = nn.Dense(channels, dtype=dtype, name="fc2")
  return lambda v: outer(nn.relu(inner(v)))


class SE(nn.Module):
  """Squeeze and excitation: x * s, with s = sigmoid(W2 relu(W1 z + b1) + b2) and z the mean of the map.

  Attributes:
    reduction: channels for each of the hidden units.
    dtype: of the computation; weights and the mean are float32.
  """

  reduction: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w c"]:
    """Returns the map, each channel of it weighed."""
    mean = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    gate = nn.sigmoid(_mlp(x.shape[-1], self.reduction, self.dtype)(mean))
    return x * gate.astype(x.dtype)[:, None, None]


class CBAM(nn.Module):
  """Convolutional block attention: x' = x * c, and then x' * s.

  c = sigmoid(MLP(mean of x over cells) + MLP(maximum of x over cells)), one MLP for both, a number a channel;
  s = sigmoid(BN(7x7 convolution of [maximum of x' over channels, mean of x' over channels])), a number a cell.

  As in the authors' code, the convolution has no bias, a norm follows it, and the maximum is its first channel.

  Attributes:
    reduction: channels for each of the MLP's hidden units.
    dtype: of the computation; weights, means and the norm are float32.
  """

  reduction: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b h w c"]:
    """Returns the map, each channel and then each cell of it weighed."""
    mlp = _mlp(x.shape[-1], self.reduction, self.dtype)
    mean = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    gate = nn.sigmoid(mlp(mean) + mlp(largest(x.reshape(len(x), -1, x.shape[-1]), axis=1)))
    x = x * gate.astype(x.dtype)[:, None, None]
    mean = jnp.mean(x.astype(jnp.float32), axis=-1, keepdims=True).astype(x.dtype)
    cells = jnp.concatenate([largest(x, axis=-1)[..., None], mean], axis=-1)
    cells = nn.Conv(1, (7, 7), padding=3, use_bias=False, dtype=self.dtype, name="conv")(cells)
    norm = nn.BatchNorm(use_running_average=not train, momentum=0.99, name="norm")  # the authors' momentum
    return x * nn.sigmoid(norm(cells.astype(jnp.float32))).astype(x.dtype)
