"""Vision transformers (Dosovitskiy et al. 2021), with the options of DINOv2, CLIP and SigLIP, by timm's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.backbones.backbone import Backbone, Tokens, check_sizes, variant
from hierjax.nn.layers.normalisation import layer_norm
from hierjax.nn.layers.patches import Grid, PatchConv, init, resampled_positions
from hierjax.nn.layers.transformer import Activation, AttentionPool, Block, BlockSettings

Pool = Literal["token", "average", "attention"]


class Stem(nn.Module):
  """Patches as tokens, with their position embeddings, after a class token and registers.

  Attributes:
    width: channels.
    patch: height and width of a patch.
    grid: rows and columns of the position embeddings, which are resampled for images of another size.
    has_class: whether there is a class token.
    num_registers: tokens that are no patches either (Darcet et al. 2024).
    prefix_positions: whether these have position embeddings too.
    epsilon: of a layer norm at the end; None for none. With one, the patches have no bias.
    dtype: of the computation; weights are float32.
  """

  width: int
  patch: int
  grid: Grid
  has_class: bool = True
  num_registers: int = 0
  prefix_positions: bool = True
  epsilon: float | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "b h w c"], train: bool = False) -> Tokens:
    """Returns a map of 1 / patch the size, and the prefix.

    Raises:
      UserError: a side of the images is no multiple of the patch.
    """
    _check_images(images.shape[1], images.shape[2], self.patch)
    x = PatchConv(self.width, self.patch, self.epsilon is None, self.dtype, name="patches")(images)
    b, h, w, d = x.shape
    prefix = self._prefix()
    before = len(prefix) if self.prefix_positions else 0
    positions = self.param("positions", init, (before + self.grid[0] * self.grid[1], d))
    prefix = jnp.concatenate([prefix[:before] + positions[:before], prefix[before:]])
    x += resampled_positions(positions[before:], self.grid, (h, w)).astype(self.dtype).reshape(1, h, w, d)
    tokens = _joined(Tokens(x, jnp.broadcast_to(prefix.astype(self.dtype), (b, *prefix.shape))))
    return _split(tokens if self.epsilon is None else layer_norm(tokens, self.epsilon, "norm"), (h, w))

  def _prefix(self) -> Float[Array, "p d"]:
    tiny, found = nn.initializers.normal(1e-6), [jnp.zeros((0, self.width))]
    if self.has_class:
      found.append(self.param("class_token", tiny, (self.width,))[None])
    if self.num_registers:
      found.append(self.param("registers", tiny, (self.num_registers, self.width)))
    return jnp.concatenate(found)


class Stage(nn.Module):
  """Blocks in a row; the last stage may end with the final norm.

  Attributes:
    blocks: `block(x f[b n d], train) -> f[b n d]`.
    epsilon: of a layer norm at the end; None for none.
  """

  blocks: tuple[Block, ...]
  epsilon: float | None = None

  @nn.compact
  def __call__(self, x: Tokens, train: bool = False) -> Tokens:
    """Returns the tokens after the last block."""
    tokens = _joined(x)
    for block in self.blocks:
      tokens = block(tokens, train)
    return _split(
      tokens if self.epsilon is None else layer_norm(tokens, self.epsilon, "norm"), (x.map.shape[1], x.map.shape[2])
    )


class Top(nn.Module):
  """What a classifier reads of the tokens.

  Attributes:
    pool: the class `token`, the `average` of the patches, or SigLIP's `attention`.
    settings: those of the blocks, for the attention.
    epsilon: of a layer norm after the pool; None for none.
  """

  pool: Pool
  settings: BlockSettings
  epsilon: float | None = None

  @nn.compact
  def __call__(self, x: Tokens, train: bool = False) -> Float[Array, "b d"]:
    """Returns a vector an image, float32."""
    b, h, w, d = x.map.shape
    if self.pool == "token":
      pooled = x.prefix[:, 0]
    elif self.pool == "average":
      pooled = jnp.mean(x.map.astype(jnp.float32), axis=(1, 2))
    else:
      pooled = AttentionPool(self.settings, name="attention")(x.map.reshape(b, h * w, d))
    pooled = pooled.astype(jnp.float32)
    return pooled if self.epsilon is None else layer_norm(pooled, self.epsilon, "norm")


@checked
def vit(
  width: int = 768,
  depth: int = 12,
  heads: int = 12,
  hidden: int | None = None,
  patch: int = 16,
  size: int = 224,
  stages: int = 4,
  class_token: bool = True,
  registers: int = 0,
  prefix_positions: bool = True,
  pre_norm: bool = False,
  qkv_bias: bool = True,
  layer_scale: float | None = None,
  activation: Activation = "gelu",
  pool: Pool = "token",
  norm_after_pool: bool = False,
  epsilon: float = 1e-6,
  drop_path: float = 0.0,
  dtype: Any = jnp.float32,
) -> Backbone:
  """Returns a vision transformer with timm's arithmetic, so that its weights give its numbers.

  Images of any size go in, as long as both sides are multiples of the patch. The map of each stage holds the patches'
  tokens, all of the same size, and the last is after the final norm unless that comes after the pool. The pooled vector
  is what timm's classifier, or CLIP's projection to the space of texts, reads.

  Args:
    width: channels.
    depth: blocks.
    heads: of each attention.
    hidden: units of the first layer of each perceptron; None for 4 times the width.
    patch: height and width of a patch.
    size: height and width of the images that the position embeddings are of; for others they are resampled.
    stages: groups of blocks, as equal as can be; a map is available after each.
    class_token: whether there is one.
    registers: further tokens that are no patches, as in DINOv2 with registers.
    prefix_positions: whether the class token and the registers have position embeddings too.
    pre_norm: whether a norm precedes the blocks, and the patches have no bias, as in CLIP.
    qkv_bias: whether queries, keys and values have a bias.
    layer_scale: initial value of a factor on what each layer adds, as in DINOv2; None for none.
    activation: `gelu`, `gelu_tanh`, or `quick_gelu` of OpenAI's CLIP.
    pool: the class `token`, the `average` of the patches, or SigLIP's `attention`.
    norm_after_pool: whether the final norm follows the pool, instead of the blocks.
    epsilon: of all layer norms.
    drop_path: in training, the probability with which an image skips a layer of the last block; it rises from 0.
    dtype: of the computation; weights are float32.

  Raises:
    ValueError: a size below 1, heads that do not divide the width, more stages than blocks, a pool that reads a class
      token that is not there, or drop_path is not in [0, 1).
  """
  hidden = 4 * width if hidden is None else hidden
  check_sizes(width=width, depth=depth, heads=heads, hidden=hidden, patch=patch, size=size, stages=stages)
  if width % heads or stages > depth or size < patch or registers < 0 or not 0 <= drop_path < 1:
    has = f"width = {width}, heads = {heads}, depth = {depth}, stages = {stages}, size = {size}, patch = {patch}"
    raise ValueError(
      f"{has}, registers = {registers}, drop_path = {drop_path}: heads divide the width, each stage has a block, a "
      "patch fits into the size, registers is 0 or more, and 0 <= drop_path < 1"
    )
  if pool == "token" and not class_token:
    raise ValueError("pool = 'token': there is no class token to read; set pool to 'average' or 'attention'")
  if epsilon <= 0:
    raise ValueError(f"epsilon = {epsilon}: must be above 0")
  settings = BlockSettings(heads, hidden, qkv_bias, layer_scale, epsilon, activation, dtype)
  rates = np.linspace(0, drop_path, depth).tolist()
  grid = (size // patch, size // patch)
  stem = Stem(width, patch, grid, class_token, registers, prefix_positions, epsilon if pre_norm else None, dtype)
  ends = group_ends(depth, stages)
  groups = tuple(
    Stage(
      tuple(Block(settings, rate) for rate in rates[first:end]),
      epsilon if end == depth and not norm_after_pool else None,
    )
    for first, end in zip((0, *ends), ends, strict=False)
  )
  return Backbone(stem, groups, Top(pool, settings, epsilon if norm_after_pool else None))


def group_ends(depth: int, stages: int) -> tuple[int, ...]:
  """Returns, for each stage, the number of blocks up to its end; of unequal stages the first are the larger."""
  return tuple(np.cumsum([len(group) for group in np.array_split(np.arange(depth), stages)]).tolist())


def _joined(x: Tokens) -> Float[Array, "b n d"]:
  b, h, w, d = x.map.shape
  return jnp.concatenate([x.prefix, x.map.reshape(b, h * w, d)], axis=1)


def _split(tokens: Float[Array, "b n d"], grid: Grid) -> Tokens:
  (b, n, d), (h, w) = tokens.shape, grid
  prefix = n - h * w
  return Tokens(tokens[:, prefix:].reshape(b, h, w, d), tokens[:, :prefix])


def _check_images(height: int, width: int, patch: int) -> None:
  if height % patch or width % patch or not height or not width:
    raise UserError(
      f"images of {height} x {width} pixels: this backbone reads patches of {patch} x {patch}, so both sides must be "
      f"multiples of {patch}, such as {max(1, round(height / patch)) * patch} (config.data.crop)"
    )


_SIZES: Mapping[str, Mapping[str, int]] = {
  "tiny": {"width": 192, "depth": 12, "heads": 3},
  "small": {"width": 384, "depth": 12, "heads": 6},
  "base": {"width": 768, "depth": 12, "heads": 12},
  "large": {"width": 1024, "depth": 24, "heads": 16},
  "so400m": {"width": 1152, "depth": 27, "heads": 16, "hidden": 4304},
}
_DINOV2: Mapping[str, Any] = {"patch": 14, "size": 518, "layer_scale": 1e-5}
_REG4: Mapping[str, Any] = {**_DINOV2, "registers": 4, "prefix_positions": False}
_CLIP: Mapping[str, Any] = {"pre_norm": True, "epsilon": 1e-5}
_SIGLIP: Mapping[str, Any] = {"class_token": False, "pool": "attention"}

# Name: the size and what distinguishes the variant. The weights, numbers of `base`: 86M.
_TABLE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
  "vit_tiny_patch16": ("tiny", {}),
  "vit_small_patch16": ("small", {}),
  "vit_base_patch16": ("base", {}),
  "vit_large_patch16": ("large", {}),
  "vit_large_patch14": ("large", {"patch": 14}),
  "vit_small_patch14_dinov2": ("small", _DINOV2),
  "vit_base_patch14_dinov2": ("base", _DINOV2),
  "vit_large_patch14_dinov2": ("large", _DINOV2),
  "vit_small_patch14_reg4_dinov2": ("small", _REG4),
  "vit_base_patch14_reg4_dinov2": ("base", _REG4),
  "vit_large_patch14_reg4_dinov2": ("large", _REG4),
  "vit_base_patch16_clip": ("base", _CLIP),
  "vit_large_patch14_clip": ("large", {"patch": 14, **_CLIP}),
  "vit_base_patch16_siglip": ("base", _SIGLIP),
  "vit_large_patch16_siglip": ("large", {"size": 256, **_SIGLIP}),
  "vit_so400m_patch14_siglip": ("so400m", {"patch": 14, **_SIGLIP}),
}
VITS: Mapping[str, Callable[..., Backbone]] = {
  name: variant(vit, **_SIZES[size], **fields) for name, (size, fields) in _TABLE.items()
}
