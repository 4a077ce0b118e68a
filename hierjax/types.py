"""The types that every part of hierjax speaks, and the letters that name their dimensions.

| letter | dimension |
|---|---|
| b | examples of a batch |
| h, w, c | height, width, channels of an image or a feature map |
| d | features of a vector |
| l | steps of a label path: one a level, the top level first |
| n | nodes of the label tree (the root is not one of them) |
| e | entries of the level distributions: a block a level, its nodes and then the leaves above; n where there are none |
| o | outputs of a head that has one a node: n, and one more for STOP where the tree needs it; or one an entry: e |
| k | best paths of a prediction |
| p | label paths of an image |

Paths are `i32[... l]` of node numbers and of the tokens PAD, STOP and UNKNOWN of `hierjax.tree.label_tree`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from hierjax.errors import UserError

Variables = Mapping[str, Any]
Inputs = Float[Array, "b h w c"] | Float[Array, "b d"]

# A field of a pytree holds an array, numpy's or JAX's, and in JAX's own hands a shape, a sharding or None in its place:
# so the shapes stand in the docstrings.
Leaf = Any


@struct.dataclass
class Features:
  """What a backbone says of a batch of images, and a neck passes on.

  Attributes:
    stages: feature maps `f[b h w c]`, one a stage, nearest the image first. Empty for precomputed features.
    pooled: `f[b d]`, the vector that most heads read.
  """

  stages: tuple[Leaf, ...]
  pooled: Leaf


@struct.dataclass
class Batch:
  """Examples ready for a model.

  Attributes:
    inputs: images `f32[b h w c]`, normalised, or precomputed features `f32[b d]`.
    paths: `i32[b p l]`; a path that an image does not have is all PAD.
    mask: `f32[b]`, 1 for an example and 0 for the padding of a last batch.
  """

  inputs: Leaf
  paths: Leaf
  mask: Leaf


@struct.dataclass
class Examples:
  """Examples as they come from disk: what a loader yields, before augmentation makes a `Batch` of it.

  Attributes:
    images: `u8[b h w c]`, or precomputed features `f32[b d]`.
    paths: `i32[b p l]`, as in `Batch`.
    mask: `f32[b]`, as in `Batch`.
    draw: `i32[b 2]`, (epoch, number of the example in its set): the key of its random augmentation.
  """

  images: Leaf
  paths: Leaf
  mask: Leaf
  draw: Leaf


@struct.dataclass
class Prediction:
  """The answer for a batch: label paths, and how sure the model is of them.

  Attributes:
    paths: `i32[b k l]`, the k best paths, best first; PAD after a path's end. Where fewer than k exist, the rest are
      all PAD with log-probability -inf.
    log_prob: `f32[b k]`, the score of each path (READINGS A4).
    stop_prob: `f32[b k]`, the probability that a path which came this far ends here: 1 at a leaf.
    node_prob: `f32[b n]`, a probability for each node, never larger than its parent's.
    level_nodes: `i32[b l]`, the argmax of the head's own distribution at each level, PAD where it says the path has
      ended: what level accuracy counts (READINGS A3). Its nodes need not form a path of the tree. In the mean of
      several views without `level_prob`, it is the best path.
    level_prob: `f32[b e]` or None: for heads with a distribution of their own at each level, those distributions, one
      after the other, as `hierjax.functional.distributions` lays them out; None for heads that follow the chain rule.
    level_nodes_walk: static; whether `level_nodes` is always a path of the tree.
    node_score: `f32[b n]` or None: for heads that predict several paths an image, the sigmoid of each node, of which
      `node_prob` is the smallest on the way down. None for heads that predict one.
    summed_levels: static; the levels, from 0, at which the head has no distribution of its own: `level_prob` holds the
      sums of the level below there.
  """

  paths: Leaf
  log_prob: Leaf
  stop_prob: Leaf
  node_prob: Leaf
  level_nodes: Leaf
  level_prob: Leaf
  node_score: Leaf = None
  level_nodes_walk: bool = struct.field(pytree_node=False, default=False)
  summed_levels: tuple[int, ...] = struct.field(pytree_node=False, default=())


@struct.dataclass
class DecodeOptions:
  """How paths are read off a model; static under jit.

  Attributes:
    beam: paths that are kept, and returned; 1 is greedy.
    restrict: `tree` follows the children of the previous node only; `raw` takes any output at any step (READINGS G3).
    normalise: `trained` scores a path by the distribution the head was trained with; `siblings` divides each step by
      the mass of the children that could have been taken (READINGS A4).
    views: of an image, whose probabilities evaluation and `predict` average: 1, the centre; or 10, the centre and the
      four corners, and their mirror images. A `Method` sees one at a time; validation while training sees the centre.
      The mean's paths are read off its node probabilities: they need `restrict = tree`, and are scored as with
      `normalise = siblings`, whatever that says.
    thresholds: of heads that predict several paths an image: a node passes whose sigmoid is larger than the one
      threshold, or than that of its level. (): what is chosen on validation, and until then 0.5.
    threshold_per: `tree` or `level`: how many are chosen.
  """

  beam: int = struct.field(pytree_node=False, default=1)
  restrict: str = struct.field(pytree_node=False, default="tree")
  normalise: str = struct.field(pytree_node=False, default="trained")
  views: int = struct.field(pytree_node=False, default=1)
  thresholds: tuple[float, ...] = struct.field(pytree_node=False, default=())
  threshold_per: str = struct.field(pytree_node=False, default="tree")

  def __post_init__(self) -> None:
    """Raises UserError for a value that no decoder knows, or values that do not go together."""
    if not 1 <= self.beam <= 10_000:
      raise UserError(f"config.decode.beam = {self.beam}: a beam keeps at least 1 path, and at most 10,000")
    for name, value, allowed in (
      ("restrict", self.restrict, ("tree", "raw")),
      ("normalise", self.normalise, ("trained", "siblings")),
      ("views", self.views, (1, 10)),
      ("threshold_per", self.threshold_per, ("tree", "level")),
    ):
      if value not in allowed:
        raise UserError(f"config.decode.{name} = {value!r}: choose from {', '.join(map(str, allowed))}")
    if any(not 0 <= threshold < 1 for threshold in self.thresholds):
      raise UserError(f"config.decode.thresholds = {self.thresholds}: each must be 0 or more, and less than 1")
    if self.views > 1 and self.restrict == "raw":
      raise UserError(
        f"config.decode.views = {self.views}: the mean of several views has paths of the tree only, "
        "so set config.decode.restrict = tree, or 1 view"
      )


@runtime_checkable
class Method(Protocol):
  """A model in use: all that the training loop and the evaluation know of it.

  A method is a pytree, so that it can be an argument of a jitted function: its leaves are the tree's arrays, and the
  rest is static. `module` is one linen module, `module(inputs, targets=None, train=False, frozen=()) -> outputs`, where
  `targets` are the paths that a head with teacher forcing reads and `frozen` names parts that run with `train=False`.
  """

  @property
  def module(self) -> nn.Module:
    """The network, with every weight in it."""

  @property
  def tree(self) -> Any:
    """The label tree, as `hierjax.functional.tree_arrays.TreeArrays`."""

  def loss(self, outputs: Any, paths: Int[Array, "b p l"]) -> Float[Array, "b"]:
    """Returns the loss of each example; 0 where its label says nothing."""

  def predict(
    self, variables: Variables, inputs: Inputs, known: Int[Array, "b l"] | None, options: DecodeOptions
  ) -> Prediction:
    """Returns the best paths. `known` holds upper labels that are given, UNKNOWN where they are not."""
