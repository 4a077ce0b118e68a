"""The evaluation of one run: the metrics of a split, in eval/SPLIT.json; at the end of training, and by `evaluate`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from hierjax.data.augment import Transform, eval_batch
from hierjax.data.open_source import Opened
from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.evaluation.choosing.thresholds import options_with_thresholds
from hierjax.evaluation.classes import class_summary, write_classes
from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.metrics.measure import measured
from hierjax.evaluation.metrics.rows import ScoredRows
from hierjax.functional.combine import mean_of_views
from hierjax.functional.metrics import Mean, evaluate_batch, metrics_with
from hierjax.functional.multilabel import F1, multilabel_metrics
from hierjax.functional.paths import ends, single_path
from hierjax.inference.frozen import read_by
from hierjax.inference.loaded_run import LoadedRun
from hierjax.inference.pipeline import Preprocess, Stages, each_view, finish, judged_labels, upper_levels
from hierjax.inference.purpose import Purpose
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run, asked_split
from hierjax.types import Batch, Distribution, Examples, Method, Prediction, Variables

_SHOWN = 4  # images whose paths are printed


class Measured(NamedTuple):
  """The result of an evaluation step for a batch.

  Attributes:
    metrics: each a sum and a count over the batch.
    paths: `i32[b k l]`, the best path of each image, or all that pass for a multi-label head.
    prediction: its best paths and the probabilities of all nodes; None for a multi-label head.
    labels: `i32[b p l]`, the labels that these are compared with; see `judged_labels`. None for a multi-label head.
  """

  metrics: dict[str, Mean | F1]
  paths: Int[Array, "b k l"]
  prediction: Prediction | None = None
  labels: Int[Array, "b p l"] | None = None


EvalStep = Callable[[Method, Variables, Examples], Measured]


def eval_step(transform: Transform, stages: Stages, known_levels: int = 0, metrics: tuple[str, ...] = ()) -> EvalStep:
  """Returns `make_eval_step` for a run's transform; the same function again, so that it is compiled once."""
  return _kept_eval_step(transform, stages, known_levels, metrics)


@functools.lru_cache(maxsize=8)  # its keys differ by how arguments are passed: all are passed by position
def _kept_eval_step(transform: Transform, stages: Stages, known_levels: int, metrics: tuple[str, ...]) -> EvalStep:
  return make_eval_step(lambda examples, view: eval_batch(examples, transform, view), stages, known_levels, metrics)


def make_eval_step(
  preprocess: Preprocess, stages: Stages, known_levels: int = 0, metrics: tuple[str, ...] = ()
) -> EvalStep:
  """Returns `(method, variables, examples) -> Measured`, jitted.

  The loss is the mean over the views; the other metrics are of the prediction of the whole pipeline. Where the raw
  argmaxes are always a path of the tree, `inconsistent_predictions`, which could only be 0, is left out.

  Args:
    preprocess: from examples to the batch that a view shows.
    stages: the settings of the pipeline.
    known_levels: the upper levels of each label that the model is given (CNN-RNN* in Guo et al., Table 6). They have no
      level accuracy; in a path they are right.
    metrics: further ones, as `package.module:thing`; see `metrics_with`.
  """

  def measure(method: Method, variables: Variables, examples: Examples) -> Measured:
    def see(view: Int[Array, ""]) -> tuple[Array, Distribution]:
      batch = preprocess(examples, view)
      outputs = method.module.apply(variables, batch.inputs, batch.paths, train=False)
      known = upper_levels(batch, known_levels)
      return method.loss(outputs, batch.paths), method.distribution(variables, batch.inputs, known, stages.options)

    losses, views = each_view(see, stages.options.views)
    prediction = finish(mean_of_views(views, method.tree), stages, method.tree)
    batch = preprocess(examples, jnp.int32(0))
    loss = {"loss": Mean.of(losses.mean(axis=0), batch.mask)}
    if prediction.node_score is not None:
      several = multilabel_metrics(prediction, batch, method.tree, stages.options.thresholds)
      return Measured({**loss, **several}, prediction.paths)
    judged = dataclasses.replace(batch, paths=judged_labels(batch.paths, stages, method.tree))
    found = evaluate_batch(prediction, judged, method.tree, metrics_with(metrics))
    found |= judged_share(judged, stages)
    if prediction.raw_consistent:
      del found["inconsistent_predictions"]
    given = jnp.arange(method.tree.depth) < known_levels
    for name in ("level_accuracy", "raw_level_accuracy"):
      found[name] = jax.tree.map(lambda x: jnp.where(given, 0.0, x), found[name])
    best = dataclasses.replace(prediction, level_prob=None, paths=prediction.paths[:, :1])
    return Measured({**loss, **found}, best.paths, best, judged.paths)

  return jax.jit(measure)


def judged_share(batch: Batch, stages: Stages) -> dict[str, Mean]:
  """Returns, where answers are restricted to some nodes, the share of the images whose label is one of them."""
  if stages.only is None:
    return {}
  return {"judged": Mean.of((ends(single_path(batch.paths)) >= 0).astype(jnp.float32), batch.mask)}


def measure_split(
  step: EvalStep, loaded: LoadedRun, source: Source, shown: Collection[int] = ()
) -> tuple[dict[str, Any], dict[int, Int[np.ndarray, "k l"]]]:
  """Returns the metrics over all images by name, see `mean_values`, and the paths of some images by number.

  Args:
    step: of `make_eval_step`.
    loaded: the run with its weights.
    source: the images.
    shown: the numbers of those images; one that could not be read has no paths. Of a run of one process only.

  Raises:
    UserError: there are no images.
  """
  total: dict[str, Any] | None = None
  kept: dict[int, np.ndarray] = {}

  with contextlib.closing(loaded.map(step, source)) as batches:
    for examples, found in batches:
      total = found.metrics if total is None else jax.tree.map(jnp.add, total, found.metrics)
      if shown:
        images = np.asarray(examples.draw)[:, 1]
        rows = np.flatnonzero(np.isin(images, list(shown)) & (np.asarray(examples.mask) > 0))
        kept |= zip(images[rows].tolist(), np.asarray(found.paths)[rows], strict=True)
  if total is None:
    raise UserError("there is nothing to evaluate: the split is empty")
  return {"num_examples": round(float(total["loss"].count)), **mean_values(total)}, kept


def mean_values(means: Mapping[str, Mean | F1]) -> dict[str, Any]:
  """Returns means by name, as floats, or lists of one a level; None where nothing counted.

  The mean of values that are not all finite is not finite.
  """
  return {name: _value(mean) for name, mean in jax.device_get(means).items()}


def _value(mean: Mean | F1) -> Any:
  if isinstance(mean, F1):  # of counts, which are finite
    return None if math.isnan(mean.value()) else mean.value()
  return jax.tree.map(lambda value, count: value if count else None, mean.value(), mean.count.tolist())


@dataclasses.dataclass(frozen=True)
class SplitSettings:
  """The images and the settings of an evaluation.

  Attributes:
    split: `train`, `validation` or `test`; '' for test, or validation where the set has no test split.
    data_root: where the data set is now; '' for the place in the config.
    views: of each image that are averaged, 1 or 10; 0 for the number in the config.
    known_levels: the upper levels of each label that the model is given; see `make_eval_step`.
    purpose: of the answers.
  """

  split: str = ""
  data_root: str = ""
  views: int = 0
  known_levels: int = 0
  purpose: Purpose = Purpose()

  @property
  def suffix(self) -> str:
    """What follows the split in the name of the file of results."""
    return (f"-known{self.known_levels}" if self.known_levels else "") + self.purpose.name


def evaluate_run(
  folder: RunFolder,
  mesh: Mesh,
  settings: SplitSettings = SplitSettings(),
  opened: Opened | None = None,
) -> dict[str, Any]:
  """Measures a run's weights on a split, writes eval/SPLIT.json, and returns its contents.

  With known levels the file is eval/SPLIT-knownN.json; with a purpose, its name says so, as in eval/SPLIT-edges.json.

  Args:
    folder: the run's.
    mesh: the devices.
    settings: the images and how they are evaluated.
    opened: `Run.opened` of a run on the same set; None to open the set anew.

  Raises:
    UserError: the folder or the data cannot be used, or there is no such split, or no level would be left to predict.
  """
  return evaluate_with_facts(folder, mesh, settings, opened)[0]


def evaluate_with_facts(
  folder: RunFolder,
  mesh: Mesh,
  settings: SplitSettings = SplitSettings(),
  opened: Opened | None = None,
) -> tuple[dict[str, Any], Facts | None]:
  """Does what `evaluate_run` does, and returns the facts about the predictions too; None for a multi-label head."""
  run = Run.from_folder(folder, settings.data_root, settings.views)
  run = settings.purpose.of_run(dataclasses.replace(run, opened=opened or run.opened))
  _check_known_levels(run, settings.known_levels)
  name, source = asked_split(run, settings.split)
  loaded = LoadedRun(folder, run, *run.restored_variables(folder, mesh), mesh)
  options = options_with_thresholds(loaded)
  stages = Stages(options, only=settings.purpose.nodes(run.tree))
  step = eval_step(run.data.transform, stages, settings.known_levels, tuple(run.config.metrics))
  alone = jax.process_count() == 1
  shown = set(np.linspace(0, len(source) - 1, _SHOWN).astype(int).tolist() if alone else ())
  read = read_by(loaded, source)
  if read is source:
    loaded = loaded.on_all_devices()
  rows = ScoredRows(run.tree)
  metrics, answers = measure_split(rows.kept(step) if not settings.known_levels else step, loaded, read, shown)
  finite = metrics["loss"] is not None and math.isfinite(metrics["loss"])  # if not, writing them says what is wrong
  facts = rows.facts if finite else None
  found = {
    "split": name,
    "data": run.images_of(name),
    "step": loaded.step,
    "views": options.views,
    "temperature": float(run.method.temperature),
    **({"known_levels": settings.known_levels} if settings.known_levels else {}),
    **settings.purpose.conditions(run.tree),
    **({"thresholds": list(options.thresholds)} if "path_f1" in metrics else {}),
    "level_names": list(run.tree.named_levels),
    "level_sizes": np.diff(run.tree.level_offsets).tolist(),
    **({"further_metrics": [n.rpartition(":")[2] for n in run.config.metrics]} if run.config.metrics else {}),
    **metrics,
    **({} if facts is None else {**measured(facts), **class_summary(facts)}),
  }
  if alone:
    found["examples"] = _examples(run, source, answers)
  if jax.process_index() == 0:
    written = folder.write_evaluation(name + settings.suffix, found)
    if facts is not None:
      write_classes(written, facts)
  return found, facts


def _check_known_levels(run: Run, known_levels: int) -> None:
  if not 0 <= known_levels < run.tree.depth:
    raise UserError(
      f"--known-levels {known_levels}: give 0 to {run.tree.depth - 1}; the lowest of the tree's {run.tree.depth} "
      "levels is to be predicted"
    )
  if known_levels and run.method.module.head.multilabel:
    raise UserError(
      f"--known-levels {known_levels}: a multi-label head predicts several paths an image, and the known levels would "
      "be of one of them; evaluate without"
    )


def _examples(run: Run, source: Source, answers: Mapping[int, Int[np.ndarray, "k l"]]) -> list[dict[str, str]]:
  """Returns images of a split by name, with their labels and predicted paths."""
  return [
    {
      "image": source.name_of(number),
      "label": "; ".join(run.tree.path_text(node) for node in source.nodes[number].tolist() if node >= 0),
      "predicted": "; ".join(run.tree.nodes_text(path[path >= 0].tolist()) for path in paths if path[0] >= 0),
    }
    for number, paths in answers.items()
  ]
