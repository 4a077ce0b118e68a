"""The head of Koo et al. for paths of one length: a bidirectional recurrence over the stages of a network."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.config import checked
from hierjax.functional.distributions import by_chain_rule
from hierjax.functional.losses import path_cross_entropy
from hierjax.functional.multilabel import multilabel_distribution, step_cross_entropy
from hierjax.functional.paths import complete, single_path
from hierjax.functional.search import lookup_step
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.heads.axes import WeightAxes, level_outputs
from hierjax.nn.heads.defaults import HeadDefaults, check_dropout, check_label_smoothing
from hierjax.nn.heads.multilabel import check_thresholds, check_weights, multilabel_loss
from hierjax.nn.kept import KeptStages
from hierjax.nn.layers.conversions import Kind
from hierjax.nn.layers.recurrence.bidirectional import Bidirectional
from hierjax.nn.layers.stage_sequence import Filters, Layer, MapNorm, Order, StageSequence, Subsets
from hierjax.tree.label_tree import UNKNOWN
from hierjax.types import DecodeOptions, Distribution, Features, Scorer


@checked
class DHNNHead(HeadDefaults, nn.Module):
  """CNN-RNN of fixed path length (Koo et al., section 3.1): step t reads the stages in S_t, and names level t's node.

  With the residual arc, logits_t = W_t (u_t + A h_t) + b_t, where A makes h_t as long as u_t and is left out where it
  is; without, W_t h_t + b_t (READINGS K6). No step is fed a label, so that each level has a distribution of its own.

  Attributes:
    num_nodes: nodes of the tree; each step has an output for all of them.
    level_offsets: of the tree.
    stop_at: where paths of the tree may end; a softmax takes the deepest level only.
    output: `softmax`, for one path an image; or `sigmoid`, for several: a node is judged at the step of its level.
    own_level: with sigmoids, whether the loss of a step is that of the nodes of its level alone; otherwise those of
      other levels are absent at it (READINGS K7).
    width: of one direction's state; h_t has twice as many numbers.
    size: p, of the vectors u_t.
    layers: J, of the recurrence.
    cell: `lstm` or `gru` (READINGS K9).
    residual: whether there is a residual arc.
    level_weights: w_t of the loss; () for 1.
    dropout: rate on the vectors u_t, and on the recurrence's h_t.
    label_smoothing: with softmax, 0 to 1; the share of a step's target that is spread over all that can follow the node
      before.
    conversion: of a stage's map into a vector: `linear`, `conv`, `pool`, `pool_average`, `pool_linear`, `pool_dense` or
      `dense`; see `hierjax.nn.layers.conversions.Conversion`.
    side: of the map that a conversion makes before the vector.
    strict: whether to refuse a conversion that the appendices do not solve exactly.
    subsets: S_t, the stages that each step reads; see `hierjax.nn.layers.stage_sequence.StageSequence`.
    order: of the stages, where `subsets` is ().
    maps: the stages, or the layers of a plain network by name, that are read where `subsets` is (); () for all stages.
    filters: F, G and Z of the conversion `conv`; see `hierjax.nn.layers.stage_sequence.StageSequence`.
    norm: of the converted maps: `none`, or `layer`, which the maps of a pretrained network need (READINGS K18).
    orthogonal: the initial recurrent matrices: `gates`, orthogonal gate by gate; `kernel`, as the authors' code: the
      matrices of inputs and state of all gates are one orthogonal matrix (READINGS K15).
    dtype: of the products; weights, state and probabilities are float32.
  """

  num_nodes: int
  level_offsets: tuple[int, ...]
  stop_at: str
  output: Literal["softmax", "sigmoid"] = "softmax"
  own_level: bool = False
  width: int = 512
  size: int = 512
  layers: int = 3
  cell: Literal["lstm", "gru"] = "lstm"
  residual: bool = True
  level_weights: tuple[float, ...] = ()
  dropout: float = 0.0
  label_smoothing: float = 0.0
  conversion: Kind = "pool"
  side: int = 4
  strict: bool = False
  subsets: Subsets = ()
  order: Order = "deep_first"
  maps: tuple[Layer, ...] = ()
  filters: Filters = ()
  norm: MapNorm = "none"
  orthogonal: Literal["gates", "kernel"] = "gates"
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    """Raises ValueError for a field that makes no head."""
    check_fields(self)
    if self.stop_at != "bottom" and self.output == "softmax":
      remedies = {
        "leaf": "set config.tree.levels to where all paths reach",
        "node": "set config.tree.short_labels = unknown, where labels that end above a leaf say nothing of the rest",
      }
      raise ValueError(
        "dhnn_rnn predicts paths of one length, and those of this tree may end above its deepest level; choose "
        f"dhnn_s2s, or {remedies[self.stop_at]}"
      )
    super().__post_init__()

  @classmethod
  def for_tree(cls, arrays: TreeArrays, branch_levels: tuple[int, ...] = (), **fields: Any) -> DHNNHead:
    """Returns the head for a tree; `fields` are the attributes that have a default.

    Raises:
      ValueError: a merged network has branches, of which this head reads none.
    """
    check_unmerged(branch_levels)
    return cls(arrays.num_nodes, arrays.level_offsets, arrays.stop_at, **fields)

  def setup(self) -> None:
    """Names the weights."""
    depth = len(self.level_offsets) - 1
    self.sequence = stage_sequence(self, depth)
    self.drop = nn.Dropout(self.dropout)
    self.recurrence = Bidirectional(self.cell, self.width, self.layers, self.dtype, whole=self.orthogonal == "kernel")
    aligns = self.residual and 2 * self.width != self.size
    self.align = nn.Dense(self.size, use_bias=False, dtype=self.dtype) if aligns else None
    rows = self.size if self.residual else 2 * self.width
    initial = nn.initializers.lecun_normal(batch_axis=(0,))
    self.kernel = self.param("output_kernel", initial, (depth, rows, self.num_nodes), jnp.float32)
    self.bias = self.param("output_bias", nn.initializers.zeros, (depth, self.num_nodes), jnp.float32)

  @property
  def multilabel(self) -> bool:  # type: ignore[override]
    """Whether distributions have `node_score`."""
    return self.output == "sigmoid"

  @property
  def kept(self) -> KeptStages:
    """What is kept of a frozen backbone's features; see `hierjax.nn.kept`."""
    return KeptStages(self.conversion, self.size, self.strict)

  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b l n"]:
    """Returns the logits of all nodes at each step; `targets` are not read."""
    u = self.drop(self.sequence(features), deterministic=not train)
    h = self.drop(self.recurrence(u)[1], deterministic=not train)
    if self.residual:
      h = u + (h if self.align is None else self.align(h).astype(jnp.float32))
    kernel = jnp.asarray(self.kernel).astype(self.dtype)
    logits = jnp.einsum("blp,lpo->blo", h.astype(self.dtype), kernel, preferred_element_type=jnp.float32)
    return logits + jnp.asarray(self.bias)[None]

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b l n"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns sum_t w_t CE(y_t, softmax(o_t)) over the steps that are known, or the sum over the nodes' sigmoids."""
    if self.output == "sigmoid":
      return several_paths_loss(self, outputs, paths, tree)
    return path_cross_entropy(
      outputs, single_path(paths), tree, weights=self.level_weights, epsilon=self.label_smoothing
    )

  @nn.nowrap
  def weight_axes(self, tree: TreeArrays) -> WeightAxes:
    """Returns what the entries of the weights stand for; see `hierjax.nn.heads.axes`."""
    levels, nodes = level_outputs(tree), tuple(range(tree.num_nodes))
    return {"output_kernel": (levels, None, nodes), "output_bias": (levels, nodes)}

  @nn.nowrap
  def validate(self, options: DecodeOptions) -> None:
    """Raises UserError for options that this head cannot be decoded with."""
    validate_options(self, options)

  @nn.nowrap
  def describe(self, features: Features) -> list[str]:
    """Returns the conversion of each stage's map; `features` may be shapes."""
    return stage_sequence(self, len(self.level_offsets) - 1, parent=None).describe(features)

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns the probabilities of each step (the slides' Algorithm 1; READINGS K10), or the sigmoid of each node.

    With softmax, `level_prob` is each step's softmax over the nodes of its level.
    """
    logits = self(features)
    if self.multilabel:
      return multilabel_distribution(jax.nn.sigmoid(own_levels(logits, self.level_offsets)), known, tree)
    batch = len(logits)
    known = jnp.full((batch, tree.depth), UNKNOWN, jnp.int32) if known is None else complete(known, tree)
    step = lookup_step(jax.nn.log_softmax(logits, axis=-1))
    blocks = []
    for t, (first, end) in enumerate(itertools.pairwise(tree.level_offsets)):
      given = jnp.arange(first, end, dtype=jnp.int32)[None] == known[:, t, None]
      prob = jax.nn.softmax(logits[:, t, first:end], axis=-1)
      blocks.append(jnp.where(known[:, t, None] >= 0, given.astype(jnp.float32), prob))
    return Distribution(
      node_prob=by_chain_rule(step, jnp.zeros((batch, 1), jnp.int32), known, tree),
      level_prob=jnp.concatenate(blocks, axis=1),
      known=known,
      scorer=Scorer(step, jnp.zeros(batch, jnp.int32)),
    )


# Shared with the sequence-to-sequence head, which has the same fields.


def check_fields(head: Any) -> None:
  """Raises ValueError for a field of a head of Koo et al. that makes none."""
  if head.width < 1 or head.layers < 1:
    raise ValueError(f"width = {head.width}, layers = {head.layers}: must be 1 or more")
  if head.own_level and head.output == "softmax":
    raise ValueError("own_level = True: it is for several paths an image; set output = sigmoid, or own_level = False")
  check_dropout(head.dropout)
  check_label_smoothing(head.label_smoothing)
  if head.label_smoothing and head.output == "sigmoid":
    raise ValueError(
      f"label_smoothing = {head.label_smoothing}: it is for one path an image; set output = softmax, or 0"
    )
  check_weights(head.level_weights, len(head.level_offsets) - 1)
  stage_sequence(head, 0, parent=None).check()


def check_unmerged(branch_levels: tuple[int, ...]) -> None:
  """Raises ValueError where a merged network has branches: the heads of Koo et al. read stages and no branch."""
  if branch_levels:
    raise ValueError(
      "the heads dhnn_rnn and dhnn_s2s read the maps of stages, and no branch of a merged network; choose "
      "config.head.name = coarse_fine, flat, path_rnn or multilabel, or set config.merged.shared = -1"
    )


def validate_options(head: Any, options: DecodeOptions) -> None:
  """Raises UserError for options that a head of Koo et al. cannot decode with."""
  if head.output == "sigmoid":
    check_thresholds(options, len(head.level_offsets) - 1)


def own_levels(logits: Float[Array, "b l o"], level_offsets: tuple[int, ...]) -> Float[Array, "b n"]:
  """Returns the logit of each node at the step of its level."""
  spans = enumerate(itertools.pairwise(level_offsets))
  return jnp.concatenate([logits[:, t, first:end] for t, (first, end) in spans], axis=1)


def several_paths_loss(
  head: Any, outputs: Float[Array, "b l o"], paths: Int[Array, "b *p l"], tree: TreeArrays
) -> Float[Array, "b"]:
  """Returns the loss of a head of sigmoids: of the nodes of each step's own level, or of all outputs (READINGS K7)."""
  if head.own_level:
    return multilabel_loss(own_levels(outputs, head.level_offsets), paths, tree, head.level_weights)
  several = paths.reshape(len(paths), -1, paths.shape[-1])
  return step_cross_entropy(outputs, several, tree, head.level_weights)


def stage_sequence(head: Any, steps: int, **linen: Any) -> StageSequence:
  """Returns a head's conversions for so many steps, 0 for one a stage; outside of `setup`, with parent=None."""
  own = ("size", "subsets", "order", "conversion", "side", "strict", "dtype", "maps", "filters", "norm")
  return StageSequence(steps=steps, **{name: getattr(head, name) for name in own}, **linen)
