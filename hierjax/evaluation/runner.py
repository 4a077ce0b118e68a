"""Evaluates a method on a data set: exactly its examples, on any number of devices."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from hierjax.data.augment import Transform, eval_batch
from hierjax.errors import UserError
from hierjax.functional.combine import average
from hierjax.functional.f1 import F1, several_metrics
from hierjax.functional.metrics import Mean, evaluate_batch
from hierjax.functional.paths import single_path
from hierjax.runs.devices import put_batch
from hierjax.tree.label_tree import UNKNOWN
from hierjax.types import Batch, DecodeOptions, Examples, Method, Prediction, Variables


class Measured(NamedTuple):
  """What an evaluation step says of a batch.

  Attributes:
    metrics: each a sum and a count over the batch.
    paths: `i32[b k l]`, the best path of each image, or all that pass of a head that predicts several.
  """

  metrics: dict[str, Mean | F1]
  paths: Int[Array, "b k l"]


EvalStep = Callable[[Method, Variables, Examples], Measured]
Preprocess = Callable[[Examples, Int[Array, ""]], Batch]  # the second argument is the number of a view


@functools.lru_cache(maxsize=8)
def eval_step(transform: Transform, options: DecodeOptions, *, known_levels: int) -> EvalStep:
  """Returns `make_eval_step` for images as a run sees them; the same one again, so that what is compiled is kept."""
  return make_eval_step(lambda examples, view: eval_batch(examples, transform, view), options, known_levels)


def make_eval_step(preprocess: Preprocess, options: DecodeOptions, known_levels: int = 0) -> EvalStep:
  """Returns `(method, variables, examples) -> Measured`, jitted.

  The loss is the mean over the views; everything else is of their averaged prediction. Where that has no `level_prob`,
  its `level_nodes` is the best path (see `average`), and level accuracy is that path's. Where `level_nodes` is always a
  path of the tree, `raw_leave_rate`, which could only be 0, is left out.

  Of a head that predicts several paths an image, the metrics are those of `several_metrics`.

  With `known_levels`, the decoder is given that many upper levels of each label (CNN-RNN* in Guo et al., Table 6).
  These levels have no level accuracy; in a path they are right.
  """

  def measure(method: Method, variables: Variables, examples: Examples) -> Measured:
    def see(view: Int[Array, ""]) -> tuple[Array, Prediction]:
      batch = preprocess(examples, view)
      outputs = method.module.apply(variables, batch.inputs, batch.paths, train=False)
      known = _upper_levels(batch, known_levels)
      return method.loss(outputs, batch.paths), method.predict(variables, batch.inputs, known, options)

    losses, predictions = _one_after_the_other(see, options.views)
    prediction = average(predictions, method.tree, options.beam, options.thresholds)
    batch = preprocess(examples, jnp.int32(0))
    if prediction.node_score is not None:
      several = several_metrics(prediction, batch, method.tree, options.thresholds)
      return Measured({"loss": Mean.of(losses.mean(axis=0), batch.mask), **several}, prediction.paths)
    metrics = evaluate_batch(prediction, batch, method.tree)
    if prediction.level_nodes_walk:
      del metrics["raw_leave_rate"]
    given = jnp.arange(method.tree.depth) < known_levels
    metrics["level_accuracy"] = jax.tree.map(lambda x: jnp.where(given, 0.0, x), metrics["level_accuracy"])
    return Measured({"loss": Mean.of(losses.mean(axis=0), batch.mask), **metrics}, prediction.paths[:, :1])

  return jax.jit(measure)


def predict_views(
  method: Method,
  variables: Variables,
  examples: Examples,
  preprocess: Preprocess,
  options: DecodeOptions,
  known_levels: int = 0,
) -> Prediction:
  """Returns the prediction for examples, averaged over `options.views` of each; jittable.

  It is given `known_levels` upper levels of their labels.
  """

  def see(view: Int[Array, ""]) -> Prediction:
    batch = preprocess(examples, view)
    return method.predict(variables, batch.inputs, _upper_levels(batch, known_levels), options)

  return average(_one_after_the_other(see, options.views), method.tree, options.beam, options.thresholds)


def _upper_levels(batch: Batch, levels: int) -> Int[Array, "b l"] | None:
  """Returns the upper levels of the labels, UNKNOWN below them; None where there are none."""
  if not levels:
    return None
  paths = single_path(batch.paths)
  return jnp.where(jnp.arange(paths.shape[1])[None] < levels, paths, UNKNOWN)


def _one_after_the_other(see: Callable[[Int[Array, ""]], Any], views: int) -> Any:
  """Returns what is seen in each view, stacked, at the memory of one. On a CPU, a batch of all is 10% slower."""
  if views == 1:  # without a loop
    return jax.tree.map(lambda x: x[None], see(jnp.int32(0)))
  return jax.lax.map(see, jnp.arange(views, dtype=jnp.int32))


def evaluate(
  step: EvalStep,
  method: Method,
  variables: Variables,
  batches: Generator[Examples, None, None],
  mesh: Mesh,
  shown: Collection[int] = (),
) -> tuple[dict[str, Any], dict[int, Int[np.ndarray, "k l"]]]:
  """Returns the metrics over all batches by name, see `mean_values`, and the paths of some examples by number.

  Args:
    step: what `make_eval_step` returns.
    method: the model.
    variables: its weights.
    batches: this process's rows.
    mesh: the devices to use.
    shown: the numbers of those examples; one that could not be read has no paths. Of a run of one process only.

  Raises:
    UserError: there are no examples.
  """
  total: dict[str, Any] | None = None
  kept: dict[int, np.ndarray] = {}
  with contextlib.closing(batches):
    for examples in batches:
      before, (found, paths) = total, step(method, variables, put_batch(examples, mesh))
      total = found if total is None else jax.tree.map(jnp.add, total, found)
      jax.block_until_ready(before)  # one batch in flight: more must not pile up on the device
      rows = np.flatnonzero(np.isin(examples.draw[:, 1], list(shown)) & (examples.mask > 0))
      if len(rows):
        kept |= zip(examples.draw[rows, 1].tolist(), np.asarray(paths)[rows], strict=True)
  if total is None:
    raise UserError("there is nothing to evaluate: the split is empty")
  return {"num_examples": round(float(total["loss"].count)), **mean_values(total)}, kept


def mean_values(means: Mapping[str, Mean | F1]) -> dict[str, Any]:
  """Returns means by name, as floats, or lists of one a level; None where nothing counted.

  The mean of what is not finite is not finite.
  """
  return {name: _value(mean) for name, mean in jax.device_get(means).items()}


def _value(mean: Mean | F1) -> Any:
  if isinstance(mean, F1):  # of counts, which are finite
    return None if math.isnan(mean.value()) else mean.value()
  return jax.tree.map(lambda value, count: value if count else None, mean.value(), mean.count.tolist())
