"""The head of Koo et al. for paths of any length: it encodes the stages of a network, and decodes a label path."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.config import checked
from hierjax.functional.decoding import beams
from hierjax.functional.distributions import by_chain_rule
from hierjax.functional.losses import path_cross_entropy
from hierjax.functional.multilabel import multilabel_distribution
from hierjax.functional.paths import complete, single_path
from hierjax.functional.search import lookup_step
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.heads.axes import WeightAxes, dense_axes, node_outputs
from hierjax.nn.heads.defaults import HeadDefaults
from hierjax.nn.heads.dhnn_rnn import (
  check_fields,
  check_unmerged,
  own_levels,
  several_paths_loss,
  stage_sequence,
  validate_options,
)
from hierjax.nn.kept import KeptStages
from hierjax.nn.layers.conversions import Kind
from hierjax.nn.layers.recurrence.bidirectional import Bidirectional, Recurrence
from hierjax.nn.layers.stage_sequence import Filters, Layer, MapNorm, Order, Subsets
from hierjax.tree.label_tree import ROOT, STOP, UNKNOWN
from hierjax.types import DecodeOptions, Distribution, Features, Scorer


@checked
class DHNNSequenceHead(HeadDefaults, nn.Module):
  """CNN-S2S (Koo et al., section 3.2): an encoder over the stages' vectors u_t, and a decoder that names node by node.

  The encoder is bidirectional, and its last states, side by side, are the decoder's first (READINGS K15). With
  `feedback = soft`, step t is fed the softmax of step t - 1, in training as in decoding, so that no label is; with
  `labels`, the label before, and in decoding the node that was decoded (K7). The first step is fed START (K8).

  Attributes:
    num_nodes: nodes of the tree.
    num_outputs: the same, and one more where paths may end above the deepest level, for STOP.
    level_offsets: of the tree.
    output: `softmax`, for one path an image; or `sigmoid`, for several: a node is judged at the step of its level (K7).
    own_level: with sigmoids, whether the loss of a step is that of the nodes of its level alone, whose sigmoids are fed
      to the next, without STOP. Otherwise it is of all outputs, nodes of other levels being absent and STOP present
      where no label reaches the level; and the next step is fed their softmax, as for one path (K7).
    width: of one direction's state in the encoder; the decoder's is twice as wide.
    size: p, of the vectors u_t, and of the vector that an output is fed back as.
    layers: of the encoder.
    cell: `lstm` or `gru` (READINGS K9).
    feedback: `soft` or `labels`.
    level_weights: w_t of the loss; () for 1.
    dropout: rate on the vectors u_t, and on the decoder's h_t before the outputs; the state is whole.
    label_smoothing: with softmax, 0 to 1; the share of a step's target that is spread over all that can follow the node
      before.
    conversion: of a stage's map into a vector: `linear`, `conv`, `pool`, `pool_average`, `pool_linear`, `pool_dense` or
      `dense`; see `hierjax.nn.layers.conversions.Conversion`.
    side: of the map that a conversion makes before the vector.
    strict: whether to refuse a conversion that the appendices do not solve exactly.
    subsets: S_t, the stages that each step reads, by default one; see
      `hierjax.nn.layers.stage_sequence.StageSequence`.
    order: of the stages, where `subsets` is ().
    maps: the stages, or the layers of a plain network by name, that are read where `subsets` is (); () for all stages.
    filters: F, G and Z of the conversion `conv`; see `hierjax.nn.layers.stage_sequence.StageSequence`.
    norm: of the converted maps: `none`, or `layer`, which the maps of a pretrained network need (READINGS K18).
    orthogonal: the initial recurrent matrices: `gates`, orthogonal gate by gate; `kernel`, as the authors' code: the
      matrices of inputs and state of all gates are one orthogonal matrix (READINGS K15).
    dtype: of the products; weights, state and probabilities are float32.
  """

  num_nodes: int
  num_outputs: int
  level_offsets: tuple[int, ...]
  output: Literal["softmax", "sigmoid"] = "softmax"
  own_level: bool = False
  width: int = 512
  size: int = 256
  layers: int = 1
  cell: Literal["lstm", "gru"] = "lstm"
  feedback: Literal["soft", "labels"] = "soft"
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
    if self.feedback == "labels" and self.output == "sigmoid":
      raise ValueError("feedback = 'labels': with output = sigmoid no step is fed a label; set soft")
    super().__post_init__()

  @classmethod
  def for_tree(cls, arrays: TreeArrays, branch_levels: tuple[int, ...] = (), **fields: Any) -> DHNNSequenceHead:
    """Returns the head for a tree; `fields` are the attributes that have a default.

    Raises:
      ValueError: a merged network has branches, of which this head reads none.
    """
    check_unmerged(branch_levels)
    return cls(arrays.num_nodes, arrays.num_outputs, arrays.level_offsets, **fields)

  def setup(self) -> None:
    """Names the weights."""
    self.sequence = stage_sequence(self, 0)
    self.drop = nn.Dropout(self.dropout)
    # The paper asks for orthogonal matrices and is silent on the rest. With the usual values the label that a step is
    # fed moves its logits by a twentieth of what it does with these, and half of the backbone's gradient is missing.
    whole = self.orthogonal == "kernel"
    self.encoder = Bidirectional(self.cell, self.width, self.layers, self.dtype, start="open", whole=whole)
    self.embed = nn.Embed(self._outputs + 1, self.size, embedding_init=nn.initializers.normal(1.0))  # START is last
    self.decoder = Recurrence(self.cell, 2 * self.width, self.dtype, "lasting", self.size if whole else 0)
    self.scores = nn.Dense(self._outputs, dtype=self.dtype)

  @property
  def _outputs(self) -> int:
    return self.num_nodes if self.own_level else self.num_outputs

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
  ) -> Float[Array, "b l o"]:
    """Returns the logits of all outputs at each step.

    With `feedback = labels`, of each step when fed the nodes of `targets` before it; without `targets`, of the first.
    """
    if self.feedback == "labels":
      start = jnp.full((len(features.pooled), 1), UNKNOWN, jnp.int32)
      return self._fed_labels(features, start if targets is None else single_path(targets), train)
    return self._fed_back(features, train=train)

  def encode(self, features: Features, train: bool = False) -> Any:
    """Returns the decoder's first state."""
    return self.encoder(self.drop(self.sequence(features), deterministic=not train))[0]

  def step(self, carry: Any, fed: Float[Array, "*b p"], train: bool = False) -> tuple[Any, Float[Array, "*b o"]]:
    """Returns the state after a step, and its logits."""
    carry, h = self.decoder.step(carry, fed)
    return carry, self._logits(h, train)

  def _logits(self, h: Float[Array, "*b w"], train: bool) -> Float[Array, "*b o"]:
    return self.scores(self.drop(h, deterministic=not train)).astype(jnp.float32)

  def label(self, outputs: Int[Array, "*b"]) -> Float[Array, "*b p"]:
    """Returns what an output, by its number, is fed back as; -1 is START."""
    return self.embed(jnp.where(outputs < 0, self._outputs, outputs))

  def _fed_labels(self, features: Features, paths: Int[Array, "b l"], train: bool) -> Float[Array, "b l o"]:
    numbers = jnp.where(paths == STOP, self.num_nodes, jnp.maximum(paths, 0))
    before = jnp.concatenate([jnp.full_like(numbers[:, :1], -1), numbers[:, :-1]], axis=1)
    _, h = self.decoder.run(self.encode(features, train), self.label(before))
    return self._logits(h, train)

  def _fed_back(
    self, features: Features, known: Int[Array, "b l"] | None = None, train: bool = False
  ) -> Float[Array, "b l o"]:
    """Returns the logits when each step is fed what the one before says, or its label where that is known."""
    batch, depth = len(features.pooled), len(self.level_offsets) - 1
    known = jnp.full((batch, depth), UNKNOWN, jnp.int32) if known is None else known

    def advance(head: DHNNSequenceHead, carry: Any, now: tuple[Array, Array]) -> tuple[Any, Array]:
      (state, fed), (known, level) = carry, now
      state, logits = head.step(state, fed, train)
      given = (known >= 0) | (known == STOP)
      certain = head.label(jnp.where(known == STOP, head.num_nodes, jnp.maximum(known, 0)))
      own = jax.nn.sigmoid(logits) * level if head.own_level else jax.nn.softmax(logits, axis=-1)
      soft = own @ head.embed.embedding[:-1]
      return (state, jnp.where(given[:, None], certain, soft)), logits

    scan = nn.scan(
      advance,
      variable_broadcast="params",
      split_rngs={"params": False, "dropout": True},
      in_axes=1,
      out_axes=1,
      unroll=depth,  # as in `LSTM.run`
    )
    start = self.label(jnp.full((batch,), -1, jnp.int32))
    levels = np.repeat(np.eye(depth, dtype=np.float32), np.diff(self.level_offsets), axis=1)
    levels = np.pad(levels, ((0, 0), (0, self._outputs - self.num_nodes)))
    now = known, jnp.broadcast_to(levels, (batch, *levels.shape))
    logits: Array = scan(self, (self.encode(features, train), start), now)[1]
    return logits

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b l o"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns sum_t w_t CE(y_t, softmax(o_t)) over the known steps, STOP's included, or the sum over the sigmoids."""
    if self.output == "sigmoid":
      return several_paths_loss(self, outputs, paths, tree)
    return path_cross_entropy(
      outputs, single_path(paths), tree, weights=self.level_weights, epsilon=self.label_smoothing
    )

  @nn.nowrap
  def weight_axes(self, tree: TreeArrays) -> WeightAxes:
    """Returns what the entries of the weights stand for; see `hierjax.nn.heads.axes`."""
    outputs = tuple(range(tree.num_nodes)) if self.own_level else node_outputs(tree)
    return {"embed/embedding": ((*outputs, ROOT), None), **dense_axes("scores", outputs)}

  @nn.nowrap
  def validate(self, options: DecodeOptions) -> None:
    """Raises UserError for options that this head cannot be decoded with."""
    validate_options(self, options)

  @nn.nowrap
  def describe(self, features: Features) -> list[str]:
    """Returns the conversion of each stage's map; `features` may be shapes."""
    return stage_sequence(self, 0, parent=None).describe(features)

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns the probabilities of the decoder's steps (the slides' Algorithm 1; READINGS K10), or of sigmoids."""
    if self.multilabel:
      given = None if known is None else complete(known, tree)
      logits = own_levels(self._fed_back(features, given), self.level_offsets)
      return multilabel_distribution(jax.nn.sigmoid(logits), known, tree)
    batch = len(features.pooled)
    known = jnp.full((batch, tree.depth), UNKNOWN, jnp.int32) if known is None else complete(known, tree)
    scorer = self._scorer(features, known)
    node_prob = by_chain_rule(scorer.step, beams(scorer.carry, 1), known, tree)
    return Distribution(node_prob, known=known, scorer=scorer)

  def _scorer(self, features: Features, known: Int[Array, "b l"]) -> Scorer:
    """Returns the step as a pure function, and the state before the first."""
    if self.feedback == "soft":
      logits = self._fed_back(features, known)
      return Scorer(lookup_step(jax.nn.log_softmax(logits, axis=-1)), jnp.zeros(len(logits), jnp.int32))
    head, variables = self.unbind()

    def step(carry: Any, previous: Array, candidates: Array | None) -> tuple[Any, Array]:
      fed: Any = head.apply(variables, previous, method="label")
      rows = jax.tree.leaves(carry)[0].shape[:2]
      fed = jnp.broadcast_to(fed, (*rows, fed.shape[-1]))
      after: Any = head.apply(variables, carry, fed, method="step")
      carry, scores = after[0], jax.nn.log_softmax(after[1], axis=-1)
      if candidates is not None:
        scores = jnp.take_along_axis(
          scores, jnp.broadcast_to(candidates, (len(scores), *candidates.shape[1:])), axis=-1
        )
      return carry, scores

    return Scorer(step, self.encode(features))
