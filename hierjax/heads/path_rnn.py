"""The CNN-RNN head of Guo et al. 2018: an LSTM that names one node a level, from the top level down."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from hierjax.functional.decoding import Step, beam_search
from hierjax.functional.label_paths import single_path
from hierjax.functional.losses import path_cross_entropy
from hierjax.functional.node_probability import by_chain_rule, by_paths
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.layers.recurrent import LSTM, LSTMCarry
from hierjax.tree.label_tree import ROOT, UNKNOWN
from hierjax.types import DecodeOptions, Features, Prediction


class PathRNNHead(nn.Module):
  """Predicts a path node by node (eqs. 2-8).

  Step t is fed the node of step t-1, a learned START at first (READINGS G4), and the image, which enters all four gates
  at every step (G5). One softmax over all nodes, and STOP where the tree needs it, serves every step (G3). Training and
  decoding run the same `step`.

  Attributes:
    num_nodes: nodes of the tree.
    num_outputs: the same, and one more where paths may end above the deepest level.
    width: of the LSTM's state (READINGS G8).
    embed_width: of the label embedding; None for `width`.
    dropout: rate on the image's features.
    reduction: of the loss over the steps, `sum` or `mean` (READINGS G1).
    exact_inner_nodes: node probabilities are exact up to this many inner nodes, which costs a step for each; in larger
      trees they are lower bounds, from the paths of the beam.
    dtype: of the products; weights, state and probabilities are float32.
  """

  num_nodes: int
  num_outputs: int
  width: int = 512
  embed_width: int | None = None
  dropout: float = 0.0
  reduction: Literal["sum", "mean"] = "sum"
  exact_inner_nodes: int = 512
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    """Raises ValueError for a field that makes no head."""
    if self.reduction not in ("sum", "mean"):
      raise ValueError(f"reduction = {self.reduction!r}: choose from sum, mean")
    if not 0 <= self.dropout < 1:
      raise ValueError(f"dropout = {self.dropout}: a rate is at least 0 and less than 1")
    super().__post_init__()

  def setup(self) -> None:
    """Names the weights."""
    gates = 4 * self.width
    self.embed = nn.Embed(self.num_nodes + 1, self.embed_width or self.width, dtype=self.dtype)  # row 0 is START
    self.label = nn.Dense(gates, use_bias=False, dtype=self.dtype)
    self.image = nn.Dense(gates, dtype=self.dtype)
    self.lstm = LSTM(self.width, self.dtype)
    self.output = nn.Dense(self.num_outputs, dtype=self.dtype)
    self.drop = nn.Dropout(self.dropout)

  def __call__(
    self, features: Features, targets: Int[Array, "b *p l"] | None = None, train: bool = False
  ) -> Float[Array, "b l o"]:
    """Returns the logits of each step, fed the nodes of `targets` before it.

    Without `targets` there is one step, the first: the later ones need a label to go on from.
    """
    image = self.image_gates(features, train)
    start = jnp.full((image.shape[0], 1), ROOT, jnp.int32)
    previous = start if targets is None else jnp.concatenate([start, single_path(targets)[:, :-1]], axis=1)
    return self._logits(self.lstm(self._gates(previous, image)))

  def image_gates(self, features: Features, train: bool = False) -> Float[Array, "b g"]:
    """Returns W_v v + b, which is the same at every step."""
    return self.image(self.drop(features.pooled, deterministic=not train))

  def step(
    self, carry: LSTMCarry, previous: Int[Array, "b k"], image: Float[Array, "b g"]
  ) -> tuple[LSTMCarry, Float[Array, "b k o"]]:
    """Returns the state after feeding each beam its previous node, and the logits of what comes next."""
    carry, h = self.lstm.step(carry, self._gates(previous, image))
    return carry, self._logits(h)

  def _gates(self, previous: Int[Array, "b k"], image: Float[Array, "b g"]) -> Float[Array, "b k g"]:
    return self.label(self.embed(jnp.maximum(previous, ROOT) + 1)) + image[:, None]

  def _logits(self, h: Float[Array, "b k w"]) -> Float[Array, "b k o"]:
    return self.output(h).astype(jnp.float32)

  @nn.nowrap
  def loss(self, outputs: Float[Array, "b l o"], paths: Int[Array, "b *p l"], tree: TreeArrays) -> Float[Array, "b"]:
    """Returns the loss over the known steps (eq. 8); see `path_cross_entropy`."""
    return path_cross_entropy(outputs, single_path(paths), tree, self.reduction)

  def decode(
    self, features: Features, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Prediction:
    """Returns the best paths, from one LSTM step a level for each beam.

    `level_nodes` is the paper's own inference: the argmax over all outputs at each step, fed to the next (G2, G3).
    """
    step = self._step(self.image_gates(features))
    batch = features.pooled.shape[0]
    if known is None:
      known = jnp.full((batch, tree.depth), UNKNOWN, jnp.int32)

    def search(options: DecodeOptions) -> Any:
      return beam_search(step, self.lstm.initial_carry(batch, options.beam), known, tree, options)

    best = search(options)
    raw = search(DecodeOptions(beam=1, restrict="raw"))
    if tree.inner_offsets[-1] <= self.exact_inner_nodes:
      node_prob = by_chain_rule(step, self.lstm.initial_carry(batch, 1), known, tree)
    else:
      consistent = search(dataclasses.replace(options, restrict="tree", normalise="siblings"))
      node_prob = by_paths(consistent.paths, consistent.log_prob, tree)
    return Prediction(
      paths=best.paths,
      log_prob=best.log_prob,
      stop_prob=best.stop_prob,
      node_prob=node_prob,
      level_nodes=raw.paths[:, 0],
      level_prob=None,
    )

  def _step(self, image: Float[Array, "b g"]) -> Step:
    """Returns the step as a pure function, for the decoders; they scan it, which a bound module does not allow."""
    head, variables = self.unbind()

    def step(carry: LSTMCarry, previous: Array, candidates: Array | None) -> tuple[LSTMCarry, Array]:
      after: Any = head.apply(variables, carry, previous, image, method="step")
      carry, logits = after
      mass = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
      return carry, (logits if candidates is None else jnp.take_along_axis(logits, candidates, axis=-1)) - mass

    return step
