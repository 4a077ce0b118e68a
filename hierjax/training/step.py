"""The training step: a jittable, data-parallel function from a state and a batch of examples to the next state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hierjax.training.phases import Phase
from hierjax.training.schedule import Schedule
from hierjax.training.sharding import Layout
from hierjax.training.state import TrainState
from hierjax.types import Batch, Examples, Method, Variables

Preprocess = Callable[[Examples, jax.Array, Any], Batch]
Weights = Callable[[Int[Array, "b p l"]], Float[Array, "b"]]
TrainStep = Callable[[Method, TrainState, Examples], tuple[TrainState, dict[str, jax.Array]]]
# A batch, and the weights of each example's losses: of its own label, and where images are mixed, of the other's.
Weighted = tuple[Batch, tuple[Float[Array, "b"], ...]]


@dataclasses.dataclass(frozen=True)
class StepSettings:
  """The settings of the training steps of all phases.

  Attributes:
    schedule: the learning rate by step, before the plateau's scale.
    preprocess: augmentation, jitted with the step; its key is the run's, since each example has its own draw.
    key: the run's key; dropout's key is folded from it and the step, so that a resumed run draws the same numbers.
    accumulate: the number of parts of a batch whose gradients are computed in turn; must divide the batch.
    weights: class weights: a function from label paths to a factor for each example, of mean 1 over the training set.
    layout: where the weights lie; None for whole weights on each device.
  """

  schedule: Schedule
  preprocess: Preprocess
  key: PRNGKeyArray
  accumulate: int = 1
  weights: Weights | None = None
  layout: Layout | None = None


def make_train_step(phase: Phase, settings: StepSettings) -> TrainStep:
  """Returns `(method, state, examples) -> (state, metrics)`, to be jitted with the state donated.

  The loss of a batch with mask m, class weights w and losses L of its examples is

      sum_i m_i w_i L_i / sum_i m_i.

  It is not divided by the sum of w: a batch with rare classes has a large one, and they would count for less in an
  epoch.

  Args:
    phase: the optimiser, and the frozen variables.
    settings: of the steps of all phases.
  """
  draw_key, dropout_key = jax.random.split(settings.key)

  def train_step(method: Method, state: TrainState, examples: Examples) -> tuple[TrainState, dict[str, jax.Array]]:
    batch = settings.preprocess(examples, draw_key, method.tree)
    weight = batch.mask / jnp.maximum(batch.mask.sum(), 1)
    weights = _label_weights(batch, weight, settings.weights)
    dropout = jax.random.fold_in(dropout_key, state.step)
    gradient = _Gradient(method, phase.frozen_parts, settings.accumulate, settings.layout)
    loss, collections, grads = gradient(state, (batch, weights), dropout)
    if phase.frozen_collections is not None:
      collections = jax.tree.map(
        lambda new, old, frozen: old if frozen else new, collections, state.collections, phase.frozen_collections
      )
    lr = settings.schedule(state.step) * state.plateau.scale
    params, opt_state, grad_norm = phase.optimizer.update(grads, state.opt_state, state.params, lr)
    bad = (state.bad_step < 0) & ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
    state = dataclasses.replace(
      state,
      step=state.step + 1,
      params=params,
      collections=collections,
      opt_state=opt_state,
      loss_sum=state.loss_sum + loss,
      loss_count=state.loss_count + 1,
      bad_step=jnp.where(bad, state.step + 1, state.bad_step),
    )
    return state, {"loss": loss, "grad_norm": grad_norm, "lr": lr}

  return train_step


def parts_of_norms(phase: Phase, accumulate: int, batch_size: int, variables: Variables) -> list[str]:
  """Returns a line where a batch in parts is not the same as the whole batch, since norms have statistics of their own.

  Args:
    phase: of the steps.
    accumulate: parts of a batch.
    batch_size: images of a batch.
    variables: of the module, or their shapes.
  """
  collections = {name: tree for name, tree in variables.items() if name != "params"}
  frozen = jax.tree.map(lambda _: False, collections) if phase.frozen_collections is None else phase.frozen_collections
  if accumulate == 1 or all(jax.tree.leaves(frozen)):
    return []
  return [
    f"config.optim.accumulate = {accumulate}: batch norm has the statistics of each part of "
    f"{batch_size // accumulate} images, and not of all {batch_size}, and its running averages move {accumulate} times "
    "a step; all else is as with the whole batch"
  ]


def _label_weights(batch: Batch, weight: Float[Array, "b"], of_class: Weights | None) -> tuple[Float[Array, "b"], ...]:
  """Returns the weights of each example's labels; see `Weighted`."""
  parts = [(batch.paths, weight)]
  if batch.mixed is not None:
    own = batch.mixed.weight
    parts = [(batch.paths, weight * own), (batch.mixed.paths, weight * (1 - own))]
  return tuple(share if of_class is None else share * of_class(paths) for paths, share in parts)


@dataclasses.dataclass(frozen=True)
class _Gradient:
  """The loss of a batch, the updated collections, and the gradient.

  Gradients of `accumulate` parts are summed within one step. optax.MultiSteps does not fit: it treats each
  part as a step of its own, keeps the sum in the optimiser's state, and averages parts without regard to their masks.

  Attributes:
    method: the model.
    frozen_parts: parts of the module that run with `train=False`.
    accumulate: the number of parts.
    layout: of the weights.
  """

  method: Method
  frozen_parts: tuple[str, ...]
  accumulate: int
  layout: Layout | None

  def __call__(self, state: TrainState, batch: Weighted, dropout: PRNGKeyArray) -> tuple[Float[Array, ""], Any, Any]:
    differentiated = jax.value_and_grad(self._loss, has_aux=True)

    def grad_of(*args: Any) -> Any:
      found, grads = differentiated(*args)
      return found, grads if self.layout is None else self.layout.in_parts(grads)

    if self.accumulate == 1:
      (loss, collections), grads = grad_of(state.params, state.collections, batch, dropout)
      return loss, collections, grads

    def add_part(carry: Any, xs: Any) -> tuple[Any, None]:
      loss, collections, grads = carry
      i, part = xs
      (more, collections), part_grads = grad_of(state.params, collections, part, jax.random.fold_in(dropout, i))
      return (loss + more, collections, jax.tree.map(jnp.add, grads, part_grads)), None

    # Example i goes to part i % accumulate: each device keeps its own rows.
    parts = jax.tree.map(
      lambda x: x.reshape(x.shape[0] // self.accumulate, self.accumulate, *x.shape[1:]).swapaxes(0, 1), batch
    )
    start = (jnp.float32(0), state.collections, jax.tree.map(jnp.zeros_like, state.params))
    found: tuple[Any, Any, Any] = jax.lax.scan(add_part, start, (jnp.arange(self.accumulate), parts))[0]
    return found

  def _loss(
    self, params: Any, collections: Any, weighted: Weighted, dropout: PRNGKeyArray
  ) -> tuple[Float[Array, ""], Any]:
    batch, weights = weighted
    params = params if self.layout is None else self.layout.in_use(params)
    labels = (batch.paths,) if batch.mixed is None else (batch.paths, batch.mixed.paths)
    outputs, updated = self.method.module.apply(
      {"params": params, **collections},
      batch.inputs,
      batch.paths if batch.mixed is None else labels,
      train=True,
      frozen=self.frozen_parts,
      rngs={"dropout": dropout},
      mutable=list(collections),
    )
    each = (outputs,) if batch.mixed is None else outputs
    losses = [
      (self.method.loss(own, paths) * weight).sum() for own, paths, weight in zip(each, labels, weights, strict=True)
    ]
    return sum(losses[1:], losses[0]), updated
