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

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.tree.given import (
  given_nodes,
  leaf_probabilities,
  level_argmaxes,
  likely_ends,
  node_probabilities,
  paths_of,
  span,
)
from hierjax.tree.label_tree import LabelTree

Variables = Mapping[str, Any]

# A field of a pytree holds an array, numpy's or JAX's, and in JAX's own hands a shape, a sharding or None in its place:
# so the shapes stand in the docstrings.
Leaf = Any


@struct.dataclass
class Features:
  """What a backbone says of a batch of images, and a neck passes on.

  Attributes:
    stages: feature maps `f[b h w c]`, one a stage, nearest the image first. Empty for precomputed features.
    pooled: `f[b d]`, the vector that most heads read. Where kept features of a frozen backbone are a model's inputs,
      `stages` is empty and this is the kept array; see `hierjax.nn.kept`.
    layers: of plain networks, the maps of the layers of each stage, nearest the image first; the last one is the
      stage's own. () for other networks.
    layer_names: static; their names, such as `conv5_1`.
  """

  stages: tuple[Leaf, ...]
  pooled: Leaf
  layers: tuple[tuple[Leaf, ...], ...] = ()
  layer_names: tuple[tuple[str, ...], ...] = struct.field(pytree_node=False, default=())


Inputs = Float[Array, "b h w c"] | Float[Array, "b d"] | Features


@struct.dataclass
class Mixed:
  """The labels of the other image of each mixed image.

  The loss of an image is weight L(own paths) + (1 - weight) L(paths).

  Attributes:
    paths: `i32[b p l]`, those of the other image.
    weight: `f32[b]`, 0 to 1.
  """

  paths: Leaf
  weight: Leaf


@struct.dataclass
class Batch:
  """Examples ready for a model.

  Attributes:
    inputs: images `f32[b h w c]`, normalised; precomputed features `f32[b d]`; or the `Features` of a frozen backbone.
    paths: `i32[b p l]`; a path that an image does not have is all PAD.
    mask: `f32[b]`, 1 for an example and 0 for the padding of a last batch.
    mixed: the other labels of images that mixup or CutMix made; None where each image has its own label alone.
  """

  inputs: Leaf
  paths: Leaf
  mask: Leaf
  mixed: Mixed | None = None


@struct.dataclass
class Examples:
  """Examples as they come from disk: what a loader yields, before augmentation makes a `Batch` of it.

  Attributes:
    images: `u8[b h w c]`, precomputed features `f32[b d]`, or those of several views of each image, `f32[b v *d]`.
    paths: `i32[b p l]`, as in `Batch`.
    mask: `f32[b]`, as in `Batch`.
    draw: `i32[b 2]`, (epoch, number of the example in its set): the key of its random augmentation.
    extents: `i32[b 2]`, height and width of the images that were stretched to the squares of `images`; None where the
      squares are not stretched.
  """

  images: Leaf
  paths: Leaf
  mask: Leaf
  draw: Leaf
  extents: Leaf = None


class Scorer(NamedTuple):
  """A head's own scores of the next node, given the nodes before it: the function that a search along the tree calls.

  Attributes:
    step: `step(carry, previous: i32[b k], candidates: i32[b k w] | None) -> (carry, log_prob: f32[b k w])`; see
      `hierjax.functional.decoding.Step`.
    carry: the state before the first step, a pytree of `[b ...]`.
    every_output: whether `step` can score all outputs of the head (`candidates = None`), those off the tree included.
  """

  step: Callable[[Any, Array, Array | None], tuple[Any, Array]]
  carry: Any
  every_output: bool = True


@struct.dataclass
class Distribution:
  """The probabilities that a model gives to the tree for a batch of images, before any path is decoded.

  The stages of the prediction pipeline map a distribution to a distribution; `hierjax.functional.decoding.decode` maps
  the last one to a `Prediction`.

  Attributes:
    node_prob: `f32[b n]`, a probability for each node, never larger than its parent's.
    level_prob: `f32[b e]` or None. For heads with a distribution of their own at each level: these distributions, side
      by side, laid out as in `hierjax.functional.distributions`. None for heads that follow the chain rule.
    node_score: `f32[b n]` or None. For multi-label heads: the sigmoid of each node. `node_prob` is then the smallest
      sigmoid from the top level down to the node.
    known: `i32[b l]` or None: the labels that are given, UNKNOWN where they are not. The probabilities are conditional
      on them.
    scorer: static; the head's own step, where the probabilities are still those of one head on one view. None after a
      stage that changed the probabilities. It may hold traced arrays, so it must not leave the jitted function.
    summed_levels: static; the levels, from 0, at which the head has no distribution of its own: there `level_prob`
      holds the sums of the level below.
  """

  node_prob: Leaf
  level_prob: Leaf = None
  node_score: Leaf = None
  known: Leaf = None
  scorer: Scorer | None = struct.field(pytree_node=False, default=None)
  summed_levels: tuple[int, ...] = struct.field(pytree_node=False, default=())


@struct.dataclass
class Prediction:
  """The decoded answer for a batch: label paths and probabilities.

  Attributes:
    paths: `i32[b k l]`, the k best paths, best first; PAD after a path's end. Where fewer than k exist, the rest are
      all PAD with log-probability -inf.
    log_prob: `f32[b k]`, the score of each path (READINGS A4).
    stop_prob: `f32[b k]`, the probability that a path which has come this far ends here: 1 at a leaf.
    node_prob: `f32[b n]`, a probability for each node, never larger than its parent's; None where only nodes are known.
    raw_nodes: `i32[b l]`, the argmax of the head's own distribution at each level, PAD where the head ends the path:
      the nodes of raw level accuracy (READINGS A3). They need not form a path of the tree.
    level_prob: `f32[b e]` or None, as in `Distribution`.
    node_score: `f32[b n]` or None, as in `Distribution`.
    raw_consistent: static; whether `raw_nodes` is always a path of the tree.
  """

  paths: Leaf
  log_prob: Leaf
  stop_prob: Leaf
  node_prob: Leaf
  raw_nodes: Leaf
  level_prob: Leaf = None
  node_score: Leaf = None
  raw_consistent: bool = struct.field(pytree_node=False, default=False)

  @classmethod
  def from_leaf_probs(cls, probs: ArrayLike, tree: LabelTree, names: Sequence[str] | None = None) -> Prediction:
    """Returns the prediction of any model that gives a probability to each leaf; the path leads to the best leaf.

    Args:
      probs: `f[n leaves]`, each row with the sum 1.
      tree: the tree.
      names: the leaf of each column, by id, path or name; None for the order of `tree.leaves`.

    Raises:
      UserError: the shape is wrong, a number is not finite or negative, a row does not sum to 1, or a name is wrong.
    """
    node_prob = leaf_probabilities(probs, tree, names)
    ends = tree.leaves[node_prob[:, span(tree.leaves)].argmax(axis=1)]
    return cls._ending(ends, tree, node_prob, node_prob[np.arange(len(ends)), ends])

  @classmethod
  def from_node_probs(
    cls, probs: ArrayLike, tree: LabelTree, several: bool = False, names: Sequence[str] | None = None
  ) -> Prediction:
    """Returns the prediction of any model that gives a probability to each node.

    The path leads to the most probable end; `raw_nodes` are the best nodes of each level.

    Args:
      probs: `f[n nodes]`; the top level sums to 1, and the children of a node to at most its own probability.
      tree: the tree.
      several: whether an image may have several label paths: then each number is from 0 to 1 by itself, and `paths` are
        empty, as thresholds decide which nodes are predicted.
      names: the node of each column, by id, path or name; None for the order of the tree, which is breadth-first.

    Raises:
      UserError: as `from_leaf_probs`, or children have more than their parent.
    """
    node_prob = node_probabilities(probs, tree, names, several)
    if several:
      empty = np.zeros((len(node_prob), 1), np.float32)
      none = paths_of(np.full(len(node_prob), -1), tree)
      return cls(none[:, None], empty, empty, node_prob, none, node_score=node_prob)
    ends, prob = likely_ends(node_prob, tree)
    found = cls._ending(ends, tree, node_prob, prob)
    return dataclasses.replace(found, raw_nodes=level_argmaxes(node_prob, tree), raw_consistent=False)

  @classmethod
  def from_nodes(cls, nodes: Any, tree: LabelTree) -> Prediction:
    """Returns the prediction of any model that gives a node an image; it has no probabilities: `node_prob` is None.

    Args:
      nodes: the node at which each path ends, by number, or by id, path or name; -1, None or '' for no answer.
      tree: the tree.

    Raises:
      UserError: the tree has no such node.
    """
    ends = given_nodes(nodes, tree)
    return cls._ending(ends, tree, None, np.ones(len(ends), np.float32))

  @classmethod
  def _ending(cls, ends: Any, tree: LabelTree, node_prob: Leaf, prob: Any) -> Prediction:
    """Returns a prediction of one path an image, which ends there with a probability `f32[n]`."""
    paths, own = paths_of(ends, tree), prob
    if node_prob is not None:
      own = np.maximum(node_prob[np.arange(len(ends)), ends], np.finfo(np.float32).tiny)
    with np.errstate(divide="ignore"):
      log_prob = np.log(prob)[:, None]
    return cls(paths[:, None], log_prob, (prob / own)[:, None], node_prob, paths, raw_consistent=True)


@checked
@struct.dataclass
class DecodeOptions:
  """How paths are decoded from a distribution; static under jit. The options hold after every stage of the pipeline.

  Attributes:
    rule: the decoding rule: `beam`; `level`; a cost of `hierjax.functional.costs.COSTS`, which is minimised in
      expectation over all nodes: `edges`, `height`, `hf0.5`, `hf1`, `hf2`; or `package.module:function` of the
      signature of `hierjax.functional.decoding.beam_rule`.
    level: of the rule `level`: where paths end, 1 for the top level; 0 for the last.
    beam: paths that are kept by the search, and returned; 1 is greedy. Where a distribution has node probabilities and
      nothing else (the flat head, a mean of heads that follow the chain rule), the search is exact for any beam.
    restrict: `tree` follows the children of the previous node only; `raw` takes any output at any step (READINGS G3).
      A distribution that gives nothing outside the tree has the same paths with both.
    normalise: `trained` scores a path by the distributions the head was trained with; `siblings` divides each step by
      the mass of the children that could have been taken (READINGS A4).
    views: test-time augmentation: the views of an image whose probabilities are averaged. 1 is the centre; 10 are the
      centre and the four corners, and their mirror images. Validation during training uses 1 view.
    thresholds: of multi-label heads: a node passes whose sigmoid is larger than the one threshold, or than that of its
      level. (): those chosen on validation, and 0.5 before any are chosen.
    threshold_per: `tree` or `level`: how many thresholds are chosen.
  """

  rule: str = struct.field(pytree_node=False, default="beam")
  level: int = struct.field(pytree_node=False, default=0)
  beam: int = struct.field(pytree_node=False, default=1)
  restrict: Literal["tree", "raw"] = struct.field(pytree_node=False, default="tree")
  normalise: Literal["trained", "siblings"] = struct.field(pytree_node=False, default="trained")
  views: int = struct.field(pytree_node=False, default=1)
  thresholds: tuple[float, ...] = struct.field(pytree_node=False, default=())
  threshold_per: Literal["tree", "level"] = struct.field(pytree_node=False, default="tree")

  def __post_init__(self) -> None:
    """Raises UserError for a value out of range."""
    if not 1 <= self.beam <= 10_000:
      raise UserError(f"config.decode.beam = {self.beam}: a beam keeps at least 1 path, and at most 10,000")
    if self.level < 0:
      raise UserError(f"config.decode.level = {self.level}: give 1 for the top level or more, or 0 for the last")
    if self.views not in (1, 10):
      raise UserError(f"config.decode.views = {self.views}: choose from 1, 10")
    if any(not 0 <= threshold < 1 for threshold in self.thresholds):
      raise UserError(f"config.decode.thresholds = {self.thresholds}: each must be 0 or more, and less than 1")


class Backbone(Protocol):
  """A network from images to features: a linen module."""

  def __call__(self, inputs: Inputs, train: bool = False) -> Features:
    """Returns the maps of the stages and the pooled vector."""


class Neck(Protocol):
  """A network between a backbone and a head: a linen module. It passes the stages on and may append maps of its own."""

  def __call__(self, features: Features, train: bool = False) -> Features:
    """Returns the features that the head reads."""


class Head(Protocol):
  """A network from features to a distribution over the tree, with its loss: a linen module.

  Attributes:
    multilabel: whether it predicts any number of paths an image, so that its distributions have `node_score`.
    has_states: whether it is recurrent over the path, so that it has `states(features, paths) -> f32[b l w]`.
  """

  multilabel: bool
  has_states: bool

  @classmethod
  def for_tree(cls, arrays: Any, **fields: Any) -> Head:
    """Returns a head for a tree, `hierjax.functional.tree_arrays.TreeArrays`; its sizes are read from the tree."""

  def __call__(self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False) -> Any:
    """Returns the outputs that `loss` reads. `targets` are label paths, for a head that reads them in training."""

  def loss(self, outputs: Any, paths: Int[Array, "b *p l"], tree: Any) -> Float[Array, "b"]:
    """Returns the loss of each example; 0 where its label is unknown. It needs no weights."""

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: Any, options: DecodeOptions
  ) -> Distribution:
    """Returns the probabilities of the tree, given the labels `known`."""

  def validate(self, options: DecodeOptions) -> None:
    """Raises UserError for options that this head cannot be decoded with."""

  def weight_axes(self, tree: Any) -> Mapping[str, tuple[tuple[int | str, ...] | None, ...]]:
    """Returns what the entries of its weights stand for, see `hierjax.nn.heads.axes`; `train --extend` alone asks."""

  def describe(self, features: Features) -> list[str]:
    """Returns lines about the head's choices for features of these shapes, printed before training; often none."""


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

  def distribution(
    self, variables: Variables, inputs: Inputs, known: Int[Array, "b l"] | None, options: DecodeOptions
  ) -> Distribution:
    """Returns the probabilities of the tree. `known` holds upper labels that are given, UNKNOWN where they are not."""

  def predict(
    self, variables: Variables, inputs: Inputs, known: Int[Array, "b l"] | None, options: DecodeOptions
  ) -> Prediction:
    """Returns the paths decoded from that distribution."""
