"""The blocks of transformers that read images: self-attention, a perceptron of two layers, and pooling by attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.nn.layers.normalisation import layer_norm
from hierjax.nn.layers.patches import init

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]

dense = partial(nn.Dense, kernel_init=init)


def quick_gelu(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
  """Returns x sigmoid(1.702 x), which OpenAI's CLIP has in place of GELU."""
  return x * jax.nn.sigmoid(jnp.asarray(1.702, x.dtype) * x)


ACTIVATIONS: Mapping[str, Callable[..., Array]] = {
  "gelu": partial(nn.gelu, approximate=False),
  "gelu_tanh": nn.gelu,
  "quick_gelu": quick_gelu,
}


def attend(
  q: Float[Array, "b m h d"], k: Float[Array, "b n h d"], v: Float[Array, "b n h d"]
) -> Float[Array, "b m h d"]:
  """Returns the mean of v, for each query, with weights softmax_n(q . k_n / sqrt(d)).

  `jax.nn.dot_product_attention` computes the same, but refuses bfloat16 under strict promotion. The softmax is float32.

  Args:
    q: m queries of h heads.
    k: n keys.
    v: their values.
  """
  scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
  scores = jnp.einsum("bmhd,bnhd->bhmn", q * scale, k, preferred_element_type=jnp.float32)
  return jnp.einsum("bhmn,bnhd->bmhd", jax.nn.softmax(scores).astype(v.dtype), v)


@dataclasses.dataclass(frozen=True)
class BlockSettings:
  """What all blocks of a transformer have in common.

  Attributes:
    heads: of the attention; they divide the width.
    hidden: units of the perceptron's first layer.
    qkv_bias: whether queries, keys and values have a bias.
    layer_scale: initial factor on what a layer adds, a weight for each channel; None for no such factor.
    epsilon: of the layer norms.
    activation: between the perceptron's layers; a key of ACTIVATIONS.
    dtype: of the computation; weights are float32.
  """

  heads: int
  hidden: int
  qkv_bias: bool = True
  layer_scale: float | None = None
  epsilon: float = 1e-6
  activation: Activation = "gelu"
  dtype: Any = jnp.float32


class Attention(nn.Module):
  """Self-attention with several heads; the softmax is float32.

  The part `qkv` makes queries, keys and values, in this order, each with its heads one after the other.
  """

  settings: BlockSettings

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """Returns what each token reads from all of them."""
    (b, n, d), s = x.shape, self.settings
    qkv = dense(3 * d, use_bias=s.qkv_bias, dtype=s.dtype, name="qkv")(x)
    q, k, v = jnp.split(qkv.reshape(b, n, 3 * s.heads, d // s.heads), 3, axis=2)
    y = attend(q, k, v)
    return dense(d, dtype=s.dtype, name="out")(y.reshape(b, n, d))


class Perceptron(nn.Module):
  """Two fully connected layers, applied to each token."""

  settings: BlockSettings

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    """Returns the second layer's output."""
    s = self.settings
    y = ACTIVATIONS[s.activation](dense(s.hidden, dtype=s.dtype, name="fc1")(x))
    return dense(x.shape[-1], dtype=s.dtype, name="fc2")(y)


class Block(nn.Module):
  """x -> x + attention(norm(x)), then the same with a perceptron.

  Attributes:
    settings: those of all blocks.
    drop_path: probability with which, in training, what a layer adds is left out for an image (stochastic depth, Huang
      et al. 2016); the others' is scaled up.
  """

  settings: BlockSettings
  drop_path: float = 0.0

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"], train: bool = False) -> Float[Array, "b n d"]:
    """Returns the tokens after both layers."""
    for number, layer in enumerate((Attention(self.settings, name="attention"), Perceptron(self.settings, name="mlp"))):
      y = layer(layer_norm(x, self.settings.epsilon, f"norm{number + 1}"))
      if self.settings.layer_scale is not None:
        y = LayerScale(self.settings.layer_scale, name=f"scale{number + 1}")(y)
      x = x + drop_path(y, self.drop_path, train)
    return x


class LayerScale(nn.Module):
  """A factor for each channel (Touvron et al. 2021, "Going deeper with image transformers").

  Attributes:
    initial: value of all factors.
  """

  initial: float

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Returns x times the factors."""
    gamma = self.param("gamma", nn.initializers.constant(self.initial), (x.shape[-1],))
    return x * gamma.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def drop_path(x: Float[Array, "b *c"], rate: float, train: bool) -> Float[Array, "b *c"]:
  """Returns, in training, x / (1 - rate), or zeros for an image with probability `rate`; x in evaluation.

  It is called within a module's compact method, and reads the random stream `dropout`.
  """
  if not rate:
    return x
  return nn.Dropout(rate, broadcast_dims=tuple(range(1, x.ndim)))(x, deterministic=not train)


class AttentionPool(nn.Module):
  """SigLIP's pooling: a learnt vector attends to all tokens, and a perceptron is added to what it reads."""

  settings: BlockSettings

  @nn.compact
  def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b d"]:
    """Returns a vector an image."""
    (b, n, d), s = x.shape, self.settings
    latent = self.param("latent", nn.initializers.truncated_normal(d**-0.5), (d,))
    query = jnp.broadcast_to(latent.astype(s.dtype), (b, 1, d))
    q = dense(d, dtype=s.dtype, name="q")(query).reshape(b, 1, s.heads, d // s.heads)
    kv = dense(2 * d, dtype=s.dtype, name="kv")(x)
    k, v = jnp.split(kv.reshape(b, n, 2 * s.heads, d // s.heads), 2, axis=2)
    y = dense(d, dtype=s.dtype, name="out")(attend(q, k, v).reshape(b, 1, d))
    return (y + Perceptron(s, name="mlp")(layer_norm(y, s.epsilon, "norm")))[:, 0]
