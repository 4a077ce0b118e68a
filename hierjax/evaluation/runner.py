"""Evaluates a method on a data set: exactly its examples, on any number of devices."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hierjax.devices import put_batch
from hierjax.errors import UserError
from hierjax.functional.metrics import Mean, evaluate_batch
from hierjax.types import Batch, DecodeOptions, Examples, Method, Variables

EvalStep = Callable[[Method, Variables, Examples], dict[str, Mean]]


def make_eval_step(preprocess: Callable[[Examples], Batch], options: DecodeOptions) -> EvalStep:
  """Returns `(method, variables, examples) -> metrics`, jitted; each metric is a sum and a count over the batch."""

  def eval_step(method: Method, variables: Variables, examples: Examples) -> dict[str, Mean]:
    batch = preprocess(examples)
    outputs = method.module.apply(variables, batch.inputs, batch.paths, train=False)
    prediction = method.predict(variables, batch.inputs, None, options)
    losses = method.loss(outputs, batch.paths)
    return {"loss": Mean.of(losses, batch.mask), **evaluate_batch(prediction, batch, method.tree)}

  return jax.jit(eval_step)


def evaluate(
  step: EvalStep, method: Method, variables: Variables, batches: Generator[Examples, None, None], mesh: Mesh
) -> dict[str, Any]:
  """Returns the metrics over all batches by name, as floats, or lists of one a level; None where nothing counted.

  Raises:
    UserError: there are no examples.
  """
  total: dict[str, Mean] | None = None
  with contextlib.closing(batches):
    for examples in batches:
      before, found = total, step(method, variables, put_batch(examples, mesh))
      total = found if total is None else jax.tree.map(jnp.add, total, found)
      jax.block_until_ready(before)  # one batch in flight: more must not pile up on the device
  if total is None:
    raise UserError("there is nothing to evaluate: the split is empty")
  means = jax.device_get(total)
  values = {name: mean.value() for name, mean in means.items()}
  return {"num_examples": round(float(means["loss"].count)), **jax.tree.map(_none_if_nan, values)}


def _none_if_nan(value: float) -> float | None:
  return None if math.isnan(value) else value
