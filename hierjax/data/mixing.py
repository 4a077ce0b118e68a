"""Augmentation that changes labels: mixup, CutMix, and label smoothing along the tree."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from hierjax.data.photo_augment import Box, in_box, keys_of
from hierjax.errors import UserError
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.tree.label_tree import PAD, ROOT, STOP
from hierjax.types import Batch, Mixed


@dataclasses.dataclass(frozen=True)
class Mixing:
  """The settings of augmentation that changes labels; hashable, so that it can be static under jit.

  Attributes:
    mixup: a, the parameter of the weight's distribution Beta(a, a) (Zhang et al. 2018); 0 mixes no images.
    cutmix: the same for boxes of another image (Yun et al. 2019); 0 cuts none. With both, half of the batches have
      one and half the other.
    label_smoothing: e; see `smoothed_paths`.
  """

  mixup: float = 0.0
  cutmix: float = 0.0
  label_smoothing: float = 0.0

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    for key, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
      if not 0 <= value <= 100:
        raise UserError(f"config.data.{key} = {value!r}: must be 0, or above 0 and at most 100")
    if not 0 <= self.label_smoothing < 1:
      raise UserError(f"config.data.label_smoothing = {self.label_smoothing!r}: must be from 0 to below 1")


def mixed_batch(batch: Batch, draw: Int[Array, "b 2"], key: PRNGKeyArray, settings: Mixing) -> Batch:
  """Returns a batch of which each image is mixed with the next one of the batch.

  With mixup the inputs are w x_i + (1 - w) x_j; with CutMix a box of x_j lies in x_i, and w is the rest of the area.
  The loss of such an image is w L(y_i) + (1 - w) L(y_j), so its label paths stay what they are. Images whose own or
  other row is padding are not mixed. The other image, unlike all other augmentation, depends on the batch.

  Args:
    batch: normalised images.
    draw: (epoch, number of the example), as in `Examples`.
    key: the run's.
    settings: `mixup` and `cutmix`.
  """
  if not (settings.mixup or settings.cutmix):
    return batch
  keys = jax.vmap(lambda k: jax.random.split(k, 3))(keys_of(draw, key))
  other = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), batch)
  choice = jax.vmap(jax.random.bernoulli)(keys[:, 0]) if settings.mixup and settings.cutmix else settings.cutmix > 0
  cut = jnp.broadcast_to(jnp.asarray(choice), batch.mask.shape)
  alpha = jnp.where(cut, settings.cutmix, settings.mixup)  # one that is 0 is never chosen
  weight = jax.vmap(lambda k, a: jax.random.beta(k, a, a))(keys[:, 1], alpha)
  weight = jnp.where((batch.mask > 0) & (other.mask > 0), weight, 1.0)
  boxes = jax.vmap(lambda k, w: _box_of_area(k, 1 - w, batch.inputs.shape[1:3]))(keys[:, 2], weight)
  boxed = cut[:, None, None] & boxes
  weight = jnp.where(cut, 1 - boxes.mean(axis=(1, 2)), weight)
  share = jnp.where(cut[:, None, None], boxed.astype(jnp.float32), (1 - weight)[:, None, None])[..., None]
  inputs = batch.inputs * (1 - share) + other.inputs * share
  return dataclasses.replace(batch, inputs=inputs, mixed=Mixed(other.paths, weight))


def smoothed_paths(
  paths: Int[Array, "b p l"], keys: Key[Array, "b"], tree: TreeArrays, epsilon: float
) -> Int[Array, "b p l"]:
  """Returns label paths of which some end at a node near the label: label smoothing in expectation, for any head.

  With probability e the last node of a path is dropped, with probability e then the one before, and so on; from there
  the path goes on to random children, each as probable as its siblings, as far down as the label went, or to a leaf if
  the label ends at one. So the expected loss of an image is that of a soft label

      sum_y q(y) L(y),   q(y) falling by about e with each level that y shares less with the label,

  as for the soft labels of Bertinetto et al. 2020, with uniform ones among the descendants of a node.

  Args:
    paths: label paths; tokens stay what they are.
    keys: one an image, `[b]`.
    tree: the label tree.
    epsilon: e, 0 to below 1.
  """
  offsets = jnp.asarray(tree.child_offsets)

  def one(path: Int[Array, "l"], key: PRNGKeyArray) -> Int[Array, "l"]:
    up, down = jax.random.split(key)
    length = (path >= 0).sum()
    end = jnp.where(length > 0, path[jnp.maximum(length - 1, 0)], ROOT)
    to_leaf = offsets[end + 2] == offsets[end + 1]
    falls = jnp.cumprod(jax.random.uniform(up, (tree.depth,)) < epsilon).sum()
    kept = jnp.maximum(length - falls, 0)
    draws = jax.random.uniform(down, (tree.depth,))
    steps, node, going = [], jnp.int32(ROOT), length > 0
    for t in range(tree.depth):
      first, count = offsets[node + 1], offsets[node + 2] - offsets[node + 1]
      child = first + jnp.minimum((draws[t] * count.astype(jnp.float32)).astype(jnp.int32), count - 1)
      goes = (count > 0) & ((t < length) | to_leaf) & (length > 0)
      after = jnp.where(count == 0, jnp.where(going, STOP, PAD), path[t])
      step = jnp.where(t < kept, path[t], jnp.where(goes, child, after))
      steps.append(step)
      going = step >= 0
      node = jnp.where(step >= 0, step, node)
    return jnp.where(falls > 0, jnp.stack(steps), path)

  each = jax.vmap(lambda k: jax.random.split(k, paths.shape[1]))(keys)
  return jax.vmap(jax.vmap(one))(paths, each)


def _box_of_area(key: PRNGKeyArray, area: Float[Array, ""], shape: tuple[int, int]) -> Array:
  """Returns the mask of a box with the image's ratio of sides and a part of its area, around a uniform centre."""
  sides = jnp.sqrt(area) * jnp.array(shape, jnp.float32)
  centre = jax.random.uniform(key, (2,)) * jnp.array(shape, jnp.float32)
  low = jnp.clip(centre - sides / 2, 0, jnp.array(shape, jnp.float32))
  high = jnp.clip(centre + sides / 2, 0, jnp.array(shape, jnp.float32))
  return in_box(Box(low[0], low[1], high[0] - low[0], high[1] - low[1]), shape)
