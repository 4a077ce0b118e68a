"""The training step: one jitted, data-parallel function from state and examples to the next state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hierjax.training.optim import Optimizer, Schedule
from hierjax.training.state import TrainState
from hierjax.types import Batch, Examples, Method

Preprocess = Callable[[Examples, jax.Array], Batch]
Weights = Callable[[Int[Array, "b p l"]], Float[Array, "b"]]
TrainStep = Callable[[Method, TrainState, Examples], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
  optimizer: Optimizer,
  schedule: Schedule,
  *,
  preprocess: Preprocess,
  key: jax.Array,
  accumulate: int = 1,
  weights: Weights | None = None,
  frozen_parts: tuple[str, ...] = (),
  frozen_collections: Any = None,
) -> TrainStep:
  """Returns `(method, state, examples) -> (state, metrics)`, to be jitted with the state donated.

  The loss of a batch is the mean, over the examples that its mask counts, of their losses times their `weights`. It is
  not divided by the weights' sum in the batch, which rare classes make large: they would count for less in an epoch.

  Args:
    optimizer: turns the gradient into new parameters.
    schedule: the learning rate by step, before the plateau's scale.
    preprocess: augmentation, jitted with the step; its key is the run's, since each example has its own draw.
    key: the run's key; dropout's is folded from it and the step, so that a resumed run draws the same.
    accumulate: parts that a batch is worked through in, one after the other; must divide the batch.
    weights: class weights, from label paths to a factor an example, of mean 1 over the training set.
    frozen_parts: parts of the module that run with `train=False`.
    frozen_collections: a tree of bools like the state's collections: what keeps its bits; None for nothing.
  """

  draw_key, dropout_key = jax.random.split(key)

  def loss_of(
    params: Any, method: Method, collections: Any, batch: Batch, weight: Array, dropout: Array
  ) -> tuple[Array, Any]:
    outputs, updated = method.module.apply(
      {"params": params, **collections},
      batch.inputs,
      batch.paths,
      train=True,
      frozen=frozen_parts,
      rngs={"dropout": dropout},
      mutable=list(collections),
    )
    return (method.loss(outputs, batch.paths) * weight).sum(), updated

  def gradient(
    method: Method, state: TrainState, batch: Batch, weight: Array, dropout: Array
  ) -> tuple[Array, Any, Any]:
    grad_of = jax.value_and_grad(loss_of, has_aux=True)
    if accumulate == 1:
      (loss, collections), grads = grad_of(state.params, method, state.collections, batch, weight, dropout)
      return loss, collections, grads

    def part(carry: Any, xs: Any) -> tuple[Any, None]:
      loss, collections, grads = carry
      i, part_batch, part_weight = xs
      (more, collections), part_grads = grad_of(
        state.params, method, collections, part_batch, part_weight, jax.random.fold_in(dropout, i)
      )
      return (loss + more, collections, jax.tree.map(jnp.add, grads, part_grads)), None

    # Example i goes to part i % accumulate: each device keeps its own rows.
    parts = jax.tree.map(
      lambda x: x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1), (batch, weight)
    )
    start = (jnp.float32(0), state.collections, jax.tree.map(jnp.zeros_like, state.params))
    return jax.lax.scan(part, start, (jnp.arange(accumulate), *parts))[0]

  def train_step(method: Method, state: TrainState, examples: Examples) -> tuple[TrainState, dict[str, jax.Array]]:
    batch = preprocess(examples, draw_key)
    weight = batch.mask / jnp.maximum(batch.mask.sum(), 1)
    weight = weight if weights is None else weight * weights(batch.paths)
    loss, collections, grads = gradient(method, state, batch, weight, jax.random.fold_in(dropout_key, state.step))
    if frozen_collections is not None:
      collections = jax.tree.map(
        lambda new, old, frozen: old if frozen else new, collections, state.collections, frozen_collections
      )
    lr = schedule(state.step) * state.plateau.scale
    params, opt_state, grad_norm = optimizer.update(grads, state.opt_state, state.params, lr)
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
