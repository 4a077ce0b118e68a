"""The CNN-RNN head of Guo et al. 2018: an LSTM that names one node a level, from the top level down."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.functional.distributions import by_chain_rule, by_paths
from hierjax.functional.losses import path_cross_entropy, sibling_cross_entropy
from hierjax.functional.paths import before, single_path
from hierjax.functional.search import Step, beam_search, continuations, output_numbers
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.heads.axes import WeightAxes, dense_axes, node_outputs
from hierjax.nn.heads.defaults import HeadDefaults, check_dropout, check_label_smoothing
from hierjax.nn.layers.recurrence.logit_scale import LogitScale, scaled_normal
from hierjax.nn.layers.recurrence.sequence import LSTM, LSTMCarry, by_gate
from hierjax.nn.layers.window_products import window_products
from hierjax.tree.label_tree import ROOT, UNKNOWN
from hierjax.types import DecodeOptions, Distribution, Features, Leaf, Scorer

# The paper is silent on initial values. With the usual ones the input and output gates, open by half, leave the
# backbone a quarter of its gradient, and the first epochs are slow. These open them by 0.88, the forget gate by 0.73.
_open_gates = functools.partial(by_gate, (2.0, 1.0, 2.0, 0.0))


@struct.dataclass
class ChildOutputs:
  """States, and the output layer that reads them, a row an output: which rows are read, the loss learns from the tree.

  Attributes:
    states: `f32[b l w]`.
    kernel: `f32[o w]`; breadth-first numbering makes the children of a node one slice.
    bias: `f32[o]`.
  """

  states: Leaf
  kernel: Leaf
  bias: Leaf

  def logits(self, numbers: Int[Array, "#b l s"], has_stop: bool, dtype: Any) -> Float[Array, "b l s"]:
    """Returns the logits of the outputs for each state, which are those of `search.continuations`.

    Where the last of a range is repeated, what stands there is no logit. With `has_stop` the last column is STOP's.
    """
    x = self.states.astype(dtype)
    width = numbers.shape[-1] - has_stop
    first, count = numbers[..., 0], numbers[..., width - 1] - numbers[..., 0] + 1
    found = window_products(x, self.kernel, first, count, width)
    if has_stop:
      found = jnp.concatenate([found, (x @ self.kernel[-1].astype(dtype))[..., None]], axis=-1)
    return found.astype(jnp.float32) + self.bias[numbers]


class _Rows(nn.Module):
  """An output layer of which each state reads the rows of some node's children only."""

  num_outputs: int

  @nn.compact
  def __call__(self, states: Float[Array, "b l w"], scale: Float[Array, ""]) -> ChildOutputs:
    """Returns the states with the weights, scaled so that the logits are."""
    initial = scaled_normal(in_axis=-1, out_axis=-2)
    kernel = self.param("kernel", initial, (self.num_outputs, states.shape[-1]), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.num_outputs,), jnp.float32)
    return ChildOutputs(scale * states, kernel, scale * jnp.asarray(bias))


@checked
class PathRNNHead(HeadDefaults, nn.Module):
  """Predicts a path node by node (eqs. 2-8).

  Step t is fed the node of step t-1, a learned START at first (READINGS G4), and the image, which enters all four gates
  at every step (G5). Training and decoding run the same `step`.

  With `softmax = nodes`, as in the paper, one softmax over all nodes, and STOP where the tree needs it, serves every
  step (G3). With `softmax = siblings` that of a step runs over the children of the node before, and STOP where a path
  may end there: neither training nor decoding looks at another row of the output layer. There, `normalise` makes no
  difference, and `restrict = raw` is refused. The logits of either have a learned factor; see `LogitScale`.

  Attributes:
    num_nodes: nodes of the tree.
    num_outputs: the same, and one more where paths may end above the deepest level.
    width: of the LSTM's state (READINGS G8).
    embed_width: of the label embedding; None for `width`.
    norm: of the image's features: `none`, as in the paper, or `layer`, with a learned scale and shift, which those of a
      pretrained network need.
    image_gain: the standard deviation of W_v's initial values, as a multiple of the usual one, 1 / sqrt(d) for d
      features.
    dropout: rate on the image's features.
    softmax: over all `nodes`, or over `siblings`.
    reduction: of the loss over the steps, `sum` or `mean` (READINGS G1).
    label_smoothing: 0 to 1; the share of each step's target that is spread over all that can follow the node before.
    exact_inner_nodes: node probabilities are exact up to this many inner nodes, which costs a step for each; in larger
      trees they are lower bounds, from the paths of the beam.
    dtype: of the products; weights, state and probabilities are float32.
  """

  has_states: ClassVar[bool] = True

  num_nodes: int
  num_outputs: int
  width: int = 512
  embed_width: int | None = None
  norm: Literal["none", "layer"] = "none"
  image_gain: float = 2.0
  dropout: float = 0.0
  softmax: Literal["nodes", "siblings"] = "nodes"
  reduction: Literal["sum", "mean"] = "sum"
  label_smoothing: float = 0.0
  exact_inner_nodes: int = 512
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    """Raises ValueError for a field that makes no head."""
    if self.width < 1 or (self.embed_width is not None and self.embed_width < 1):
      raise ValueError(f"width = {self.width}, embed_width = {self.embed_width}: must be 1 or more")
    if not self.image_gain > 0:
      raise ValueError(f"image_gain = {self.image_gain}: must be more than 0")
    check_dropout(self.dropout)
    check_label_smoothing(self.label_smoothing)
    super().__post_init__()

  @classmethod
  def for_tree(cls, arrays: TreeArrays, **fields: Any) -> PathRNNHead:
    """Returns the head for a tree; `fields` are the attributes that have a default."""
    return cls(arrays.num_nodes, arrays.num_outputs, **fields)

  def setup(self) -> None:
    """Names the weights."""
    gates = 4 * self.width
    self.embed = nn.Embed(
      self.num_nodes + 1, self.width if self.embed_width is None else self.embed_width
    )  # row 0 is START
    self.label = nn.Dense(gates, use_bias=False, dtype=self.dtype)
    initial = nn.initializers.variance_scaling(self.image_gain**2, "fan_in", "truncated_normal")
    self.image = nn.Dense(gates, dtype=self.dtype, kernel_init=initial, bias_init=_open_gates)
    self.lstm = LSTM(self.width, self.dtype)
    self.output: Any = (
      _Rows(self.num_outputs)
      if self.softmax == "siblings"
      else nn.Dense(self.num_outputs, dtype=self.dtype, kernel_init=scaled_normal())
    )
    self.scale = LogitScale()
    if self.norm == "layer":
      self.feature_norm = nn.LayerNorm(use_fast_variance=False)
    self.drop = nn.Dropout(self.dropout)

  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b l o"] | ChildOutputs:
    """Returns what `loss` reads, of each step when fed the nodes of `targets` before it: the logits of all outputs.

    With `softmax = siblings`, states and weights. Without `targets` there is one step, the first: the later ones need a
    label to go on from.
    """
    start = jnp.full((features.pooled.shape[0], 1), ROOT, jnp.int32)
    states = self._states(features, start if targets is None else before(single_path(targets)), train)
    return self._logits(states) if self.softmax == "nodes" else self.output(states, self.scale())

  def states(self, features: Features, paths: Int[Array, "b l"]) -> Float[Array, "b l w"]:
    """Returns the LSTM's h after each step, when fed START and then the nodes of `paths` but for the last."""
    return self._states(features, before(paths))

  def _states(self, features: Features, previous: Int[Array, "b l"], train: bool = False) -> Float[Array, "b l w"]:
    return self.lstm(self._label_gates(previous) + self.image_gates(features, train)[:, None])

  def image_gates(self, features: Features, train: bool = False) -> Float[Array, "b g"]:
    """Returns W_v v + b, which is the same at every step."""
    v = features.pooled if self.norm == "none" else self.feature_norm(features.pooled.astype(jnp.float32))
    return self.image(self.drop(v, deterministic=not train))

  def step(
    self,
    carry: LSTMCarry,
    previous: Int[Array, "#b k"],
    image: Float[Array, "b g"],
    candidates: Int[Array, "#b k s"] | None = None,
  ) -> tuple[LSTMCarry, Float[Array, "b k s"]]:
    """Feeds each beam its previous node, and returns the state after it and the scores of what comes next.

    They are log-probabilities of the candidates, or of all outputs where that is None. With `softmax = siblings` they
    are logits, and the candidates are those of `search.continuations`.
    """
    carry, h = self.lstm.step(carry, self._label_gates(previous) + image[:, None])
    if self.softmax == "siblings":
      if candidates is None:
        raise ValueError("a softmax over siblings scores no other outputs: candidates must not be None")
      return carry, self.output(h, self.scale()).logits(candidates, self.num_outputs > self.num_nodes, self.dtype)
    logits = self._logits(h)
    mass = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return carry, (logits if candidates is None else jnp.take_along_axis(logits, candidates, axis=-1)) - mass

  def _label_gates(self, previous: Int[Array, "#b k"]) -> Float[Array, "#b k g"]:
    """Returns W_x x of the nodes that steps are fed."""
    rows = jnp.maximum(previous, ROOT) + 1
    if self.num_nodes >= previous.size:
      return self.label(self.embed(rows))
    # Each label's product once, rather than one for each time that it occurs.
    return jnp.take(self.label(self.embed.embedding), rows, axis=0)

  def _logits(self, h: Float[Array, "b k w"]) -> Float[Array, "b k o"]:
    return self.scale() * self.output(h).astype(jnp.float32)

  @nn.nowrap
  def loss(
    self, outputs: Float[Array, "b l o"] | ChildOutputs, paths: Int[Array, "b *p l"], tree: TreeArrays
  ) -> Float[Array, "b"]:
    """Returns the loss over the known steps (eq. 8); see `path_cross_entropy` and `sibling_cross_entropy`."""
    paths = single_path(paths)
    if not isinstance(outputs, ChildOutputs):
      return path_cross_entropy(outputs, paths, tree, self.reduction, epsilon=self.label_smoothing)
    tokens, allowed = continuations(before(paths), tree)
    logits = outputs.logits(output_numbers(tokens, tree), tree.has_stop, self.dtype)
    return sibling_cross_entropy(logits, tokens, allowed, paths, self.reduction, self.label_smoothing)

  @nn.nowrap
  def weight_axes(self, tree: TreeArrays) -> WeightAxes:
    """Returns what the entries of the weights stand for; see `hierjax.nn.heads.axes`."""
    outputs = node_outputs(tree)
    embed: WeightAxes = {"embed/embedding": ((ROOT, *range(tree.num_nodes)), None)}
    rows: WeightAxes = {"output/kernel": (outputs, None), "output/bias": (outputs,)}
    return {**embed, **(rows if self.softmax == "siblings" else dense_axes("output", outputs))}

  @nn.nowrap
  def validate(self, options: DecodeOptions) -> None:
    """Raises UserError for options that this head cannot be decoded with."""
    if self.softmax == "siblings" and options.restrict == "raw":
      raise UserError(
        "config.decode.restrict = raw: with config.head.softmax = siblings only the children of a node have a "
        "probability after it; set restrict = tree, or softmax = nodes"
      )

  def distribution(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns node probabilities, from one LSTM step a level below every inner node, and the step itself.

    In trees of more than `exact_inner_nodes` inner nodes the node probabilities are lower bounds, from the paths that a
    beam of `options.beam` finds.

    Raises:
      UserError: `restrict = raw` with a softmax over siblings.
    """
    self.validate(options)
    step, batch = self._step(self.image_gates(features)), features.pooled.shape[0]
    if known is None:
      known = jnp.full((batch, tree.depth), UNKNOWN, jnp.int32)
    if tree.inner_offsets[-1] <= self.exact_inner_nodes:
      node_prob = by_chain_rule(step, self.lstm.initial_carry(batch, 1), known, tree)
    else:
      consistent = dataclasses.replace(options, restrict="tree", normalise="siblings")
      best = beam_search(step, self.lstm.initial_carry(batch, options.beam), known, tree, consistent)
      node_prob = by_paths(best.paths, best.log_prob, tree)
    scorer = Scorer(step, self.lstm.initial_carry(batch), every_output=self.softmax == "nodes")
    return Distribution(node_prob, known=known, scorer=scorer)

  def _step(self, image: Float[Array, "b g"]) -> Step:
    """Returns the step as a pure function, for the decoders; they scan it, which a bound module does not allow."""
    head, variables = self.unbind()

    def step(carry: LSTMCarry, previous: Array, candidates: Array | None) -> tuple[LSTMCarry, Array]:
      after: Any = head.apply(variables, carry, previous, image, candidates, method="step")
      return after

    return step
