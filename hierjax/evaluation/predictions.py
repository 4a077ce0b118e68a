"""The predictions of a split: one table, from which everything that measures single paths or draws them is computed."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from hierjax.data.source import Source
from hierjax.evaluation.answers import Rows, fold, prediction_of
from hierjax.functional.metrics import path_is_right, share_of_right_nodes
from hierjax.functional.paths import ends, single_path
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.members import Answered, Ensemble, Images
from hierjax.inference.pipeline import Stages, judged_labels
from hierjax.types import Leaf, Prediction


@struct.dataclass
class Predictions:
  """The predictions for n images of a tree of l levels beside their labels; numpy.

  Attributes:
    counted: `bool[n]`, whether any node of the label is known and the image could be read.
    right: `bool[n]`, whether the best path is right, as path accuracy counts it.
    some_right: `bool[n]`, whether any of its nodes is.
    labels: `i32[n l]`, the label paths.
    paths: `i32[n l]`, the best paths.
    probability: `f32[n l]`, of the nodes of the best paths.
    stop: `f32[n]`, the probability that a path which has come this far ends here.
    label_probability: `f32[n]`, of the node that the label ends at.
  """

  counted: Leaf
  right: Leaf
  some_right: Leaf
  labels: Leaf
  paths: Leaf
  probability: Leaf
  stop: Leaf
  label_probability: Leaf

  @functools.cached_property
  def ends(self) -> np.ndarray:
    """`i32[n]`, the last node of each best path; -1 where there is none."""
    return np.maximum(self.paths.max(axis=1), -1)

  @functools.cached_property
  def end_probability(self) -> np.ndarray:
    """`f32[n]`, the probability of that node; 0 where there is none."""
    last = np.maximum((self.paths >= 0).sum(axis=1) - 1, 0)
    return self.probability[np.arange(len(last)), last]

  @functools.cached_property
  def groups(self) -> Mapping[str, np.ndarray]:
    """`bool[n]` by name: every image that counts is right, partly right or wholly wrong.

    Wholly wrong means wrong at the top level, and so everywhere below it. A path that ends too early or too late is
    partly right.
    """
    return {
      "right": self.counted & self.right,
      "partly right": self.counted & ~self.right & self.some_right,
      "wholly wrong": self.counted & ~self.right & ~self.some_right,
    }


def predict_split(ensemble: Ensemble, images: Images, stages: Stages) -> Predictions:
  """Returns the predictions of a run or an ensemble for all images of a split.

  Args:
    ensemble: its members; of one member and one run, that run's own predictions.
    images: of the split.
    stages: the settings of the pipeline.
  """
  table = predictions_taker(ensemble, stages)
  fold(ensemble, images, table)
  found: Predictions = table.values(len(images.source))
  return found


def predictions_taker(ensemble: Ensemble, stages: Stages) -> Rows:
  """Returns a taker of `fold` whose values are the predictions."""
  return Rows(functools.partial(_rows_of, ensemble.whole.run.method.tree, stages))


@functools.partial(jax.jit, static_argnums=1)
def _rows_of(tree: TreeArrays, stages: Stages, answered: Answered) -> Predictions:
  labels = single_path(judged_labels(answered.labels, stages, tree))
  return compared(prediction_of(answered, stages, tree), labels, answered.mask)


def compared(prediction: Prediction, labels: Int[Array, "b l"], mask: Float[Array, "b"]) -> Predictions:
  """Returns the best paths of a batch beside the labels; `mask` is 0 where there is no image."""
  best, end = prediction.paths[:, 0], ends(labels)
  probability = jnp.take_along_axis(prediction.node_prob, jnp.maximum(best, 0), axis=1)
  of_label = jnp.take_along_axis(prediction.node_prob, jnp.maximum(end, 0)[:, None], axis=1)[:, 0]
  return Predictions(
    counted=(end >= 0) & (mask > 0),
    right=path_is_right(best, labels),
    some_right=share_of_right_nodes(best, labels) > 0,
    labels=labels,
    paths=best,
    probability=jnp.where(best >= 0, probability, 0.0),
    stop=prediction.stop_prob[:, 0],
    label_probability=jnp.where(end >= 0, of_label, 0.0),
  )


def predictions_of_run(loaded: LoadedRun, split: str, source: Source) -> Predictions:
  """Returns the predictions of one run for a split, with the options of its config."""
  return predict_split(Ensemble.of(loaded), Images.of(loaded, split, source), Stages(loaded.run.options))
