"""The run that a config describes: its data, tree and model, for training and for every use of its folder."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from hierjax.config import checked, unpack
from hierjax.data.augment import check_views, eval_batch, train_batch
from hierjax.data.config import DataConfig
from hierjax.data.loader import LabelledImages, ProcessRows, TrainSteps, eval_batches, train_batches
from hierjax.data.open_source import Opened, check_trained_on, open_source
from hierjax.data.partial_labels import check_short_labels
from hierjax.data.source import Source, data_checksum
from hierjax.data.split_names import split_name
from hierjax.data.trees import TreeConfig, open_tree
from hierjax.errors import UserError
from hierjax.functional.paths import ends
from hierjax.functional.tree_arrays import TreeArrays, tree_arrays
from hierjax.nn.backbones.precomputed import PrecomputedFeatures
from hierjax.nn.classifier import ModelMethod
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.nn.variables import init_variables, variable_shapes
from hierjax.runs import devices
from hierjax.runs.checkpoint import Checkpoints, VanishedCheckpoint, template
from hierjax.runs.choices import kept_temperatures
from hierjax.runs.folder import RunFolder
from hierjax.runs.inputs import check_reads
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Batch, DecodeOptions, Examples, Variables

_MOST_BYTES = 2**30  # of a batch of evaluation
_TRIES = 20  # to read checkpoints which a trainer beside this process removes


@checked
@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """The top level of a config.

  Attributes:
    seed: of the initial weights, the order of the images, augmentation and dropout.
    batch_size: images of a training step, over all devices.
    epochs: passes over the training images; 0 keeps the weights that the run starts from.
    least_steps: the least steps of a run with few images, whose epochs then last longer; 0: no bound.
    most_steps: the most steps of a run with many images, whose epochs then are shorter; 0: no bound.
    dtype: of the network's arithmetic: `float32`, or `bfloat16` on GPUs and TPUs; weights stay float32.
    remat: those of `backbone`, `neck` and `head` that the backward pass computes anew, a backbone stage by stage, so
      that a step needs less memory and more time.
    class_weights: `none`; or `balanced`, where each end node of a label counts the same in the loss.
    loggers: where metrics go: `console`, `jsonl`, which every run has, `tensorboard`, `wandb`, `package.module:thing`.
    log_every: steps between two lines of the training log.
    eval_every: epochs between two validations, where there is a validation split.
    checkpoint_every: epochs between two checkpoints.
    checkpoint_minutes: minutes after which there is a further one; 0: none.
    patience: epochs after the best validation, or the last that was as good, after which training ends; 0: never. The
      best weights count anyway.
    calibrate: whether a temperature is fitted on validation at the end of training.
    metrics: further metrics of evaluation, each `package.module:thing`; see `hierjax.functional.metrics.Metric`.
    tree: see `hierjax.data.trees.TreeConfig`.
    data: see `hierjax.data.config.DataConfig`.
    backbone: its name and its arguments.
    neck: its name and its arguments.
    head: its name and its attributes.
    merged: see `hierjax.nn.merged.MergedConfig`.
    optim: see `hierjax.training.optim.OptimConfig`.
    schedule: see `hierjax.training.schedule.ScheduleConfig`.
    phases: see `hierjax.training.phases.PhasesConfig`.
    decode: see `hierjax.types.DecodeOptions`.
    init: see `hierjax.training.initial.weights.InitConfig`.
    frozen: see `FrozenConfig`.
    sharding: see `hierjax.training.sharding.ShardingConfig`; None for its defaults.
  """

  seed: int = 0
  batch_size: int = 128
  epochs: float = 10.0
  least_steps: int = 0
  most_steps: int = 0
  dtype: Literal["float32", "bfloat16"] = "float32"
  remat: tuple[str, ...] = ()
  class_weights: Literal["none", "balanced"] = "none"
  loggers: tuple[str, ...] = ("console", "jsonl", "tensorboard")
  log_every: int = 50
  eval_every: float = 1.0
  checkpoint_every: float = 1.0
  checkpoint_minutes: float = 0.0
  patience: float = 0.0
  calibrate: bool = True
  metrics: tuple[str, ...] = ()
  tree: Mapping[str, Any]
  data: Mapping[str, Any]
  backbone: Mapping[str, Any]
  neck: Mapping[str, Any]
  head: Mapping[str, Any]
  merged: Mapping[str, Any]
  optim: Mapping[str, Any]
  schedule: Mapping[str, Any]
  phases: Mapping[str, Any]
  decode: Mapping[str, Any]
  init: Mapping[str, Any]
  frozen: Mapping[str, Any]
  sharding: Mapping[str, Any] | None = None

  def __post_init__(self) -> None:
    """Raises UserError for a value that no run can have."""
    ordered = self.most_steps == 0 or self.least_steps <= self.most_steps <= 10**9
    laws = {
      "seed": (self.seed >= 0, "0 or more"),
      "batch_size": (0 < self.batch_size <= 1_000_000, "above 0, and at most 1,000,000"),
      "epochs": (0 <= self.epochs <= 100_000, "0, which keeps the initial weights, or more, and at most 100,000"),
      "least_steps": (0 <= self.least_steps <= 10**9, "0, or a number of steps"),
      "most_steps": (ordered, f"0, or config.least_steps = {self.least_steps} or more"),
      "patience": (0 <= self.patience <= 100_000, "0 epochs or more"),
      "log_every": (self.log_every > 0, "above 0"),
      "eval_every": (self.eval_every >= 1e-6, "above 0: 1e-6 epochs or more"),
      "checkpoint_minutes": (0 <= self.checkpoint_minutes <= 1e6, "0 minutes or more"),
      "checkpoint_every": (self.checkpoint_every >= 1e-6, "above 0: 1e-6 epochs or more"),
    }
    for name, (holds, allowed) in laws.items():
      if not holds:
        raise UserError(f"config.{name} = {getattr(self, name)}: must be {allowed}")
    if not set(self.remat) <= {"backbone", "neck", "head"}:
      raise UserError(f"config.remat = {self.remat!r}: name backbone, neck or head, as a tuple")

  @property
  def model(self) -> ModelConfig:
    """The sections that describe the model."""
    return ModelConfig(self.backbone, self.head, self.neck, self.dtype, self.merged, self.remat)


@checked
@dataclasses.dataclass(frozen=True)
class FrozenConfig:
  """The section `frozen` of a config: the features of a frozen backbone, computed once and kept for the next run.

  Attributes:
    keep: whether the neck and the head train on kept features, which are what `hierjax.nn.kept` says for them. The
      backbone must be frozen by `optim.lr_groups`. False: images pass through the backbone at each step.
    views: augmented views of each training image that are kept beside the one of evaluation; an epoch draws one of all.
    most: how many views of all training images together are kept: of many images fewer than `views` each, or none but
      that of evaluation.
  """

  keep: bool = False
  views: int = 0
  most: int = 100_000

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    if not 0 <= self.views <= 1000:
      raise UserError(f"config.frozen.views = {self.views}: must be from 0 to 1,000")
    if self.views and not self.keep:
      raise UserError("config.frozen.views: needs config.frozen.keep = True; without, each step augments its images")
    if self.most < 1:
      raise UserError(f"config.frozen.most = {self.most}: must be 1 or more")

  def views_of(self, images: int) -> int:
    """Returns how many augmented views each of so many training images has."""
    return max(0, min(self.views, self.most // max(images, 1) - 1))


@dataclasses.dataclass(frozen=True)
class Run:
  """A run as described by its config.

  Attributes:
    config: its top level.
    data: its section `data`.
    tree_config: its section `tree`.
    options: its section `decode`.
    tree: the label tree.
    method: the model, without weights.
    trained_on: the `data_checksum` of the images that it was trained on; '' for a run that is not in a folder.
    opened: the splits that it has opened; one that is made of this one by `dataclasses.replace` has them too.
  """

  config: RunConfig
  data: DataConfig
  tree_config: TreeConfig
  options: DecodeOptions
  tree: LabelTree
  method: ModelMethod
  trained_on: str = ""
  opened: Opened = dataclasses.field(default_factory=Opened, compare=False, repr=False)

  @classmethod
  def from_config(
    cls, config: Mapping[str, Any], tree: LabelTree | None = None, data_root: str = "", views: int = 0
  ) -> Run:
    """Returns the run of a config.

    Args:
      config: as plain data.
      tree: that of a run folder; None to make it from the section `tree`.
      data_root: where the data is now, see `DataConfig.moved`; '' for the folder of the config.
      views: `DecodeOptions.views`; 0 for the number in the config.

    Raises:
      UserError: a section has a key or value that nothing knows, or its parts do not go together.
    """
    settings = unpack(RunConfig, config, "")
    data = unpack(DataConfig, settings.data, "data")
    data = data.moved(data_root) if data_root else data
    tree_config = unpack(TreeConfig, settings.tree, "tree")
    check_short_labels(data, tree_config.short_labels)
    if tree is None:
      tree = open_tree(tree_config, data)
      tree = tree.truncated(tree_config.levels) if tree_config.levels else tree
    method = make_method(settings.model, tree_arrays(tree, tree_config.short_labels))
    options = unpack(DecodeOptions, dict(settings.decode) | ({"views": views} if views else {}), "decode")
    method.module.head.validate(options)
    if options.views > 1 and data.sides:
      raise UserError(f"config.decode.views = {options.views}: with config.data.sides there is 1 view, so set 1")
    return cls(settings, data, tree_config, options, tree, method)

  @classmethod
  def from_folder(cls, folder: RunFolder, data_root: str = "", views: int = 0) -> Run:
    """Returns the run of a folder; raises UserError as `from_config` does, or for a damaged folder."""
    config, tree = folder.config(), folder.tree()
    try:
      run = cls.from_config(config, tree, data_root, views)
    except UserError as error:
      raise UserError(f"{folder.path / 'config.json'}: {error}") from None
    run = dataclasses.replace(run, trained_on=folder.data_checksum())
    kept = kept_temperatures(folder)
    return run.at_temperature(kept.get(counting_step(folder) or 0, 1.0)) if kept else run

  def at_temperature(self, temperature: float) -> Run:
    """Returns the run whose distributions are given at a temperature; see `hierjax.functional.calibration`."""
    return dataclasses.replace(self, method=dataclasses.replace(self.method, temperature=np.float32(temperature)))

  def learning_ends(self, train: Source) -> Run:
    """Returns the run whose paths end where labels of the training images do, if `tree.short_labels = stop`.

    The tree keeps them, so that the folder's tree.json gives them back to every use of the run.
    """
    if self.tree_config.short_labels != "stop":
      return self
    tree = self.tree.with_label_ends(train.nodes)
    method = dataclasses.replace(self.method, tree=tree_arrays(tree, "stop"))
    return dataclasses.replace(self, tree=tree, method=method)

  # Data.

  def full_tree(self) -> LabelTree:
    """Returns the tree with all its levels, for any `config.tree.levels`."""
    return open_tree(self.tree_config, self.data) if self.tree_config.levels else self.tree

  def source(self, split: str) -> Source | None:
    """Returns the images of `train`, `validation` (or `val`) or `test`; None where the set has no such split.

    Raises:
      UserError: as `open_source` does, or, but for `test`, as `check_trained_on`; or the model does not read such data.
    """
    full, levels = self.full_tree(), self.tree_config.levels
    opened = dataclasses.replace(self.opened, full_tree=full)  # with the same splits
    source = open_source(self.data, self.tree, split, opened)
    if self.trained_on and split_name(split) != "test":
      trained = full.truncated(levels) if levels else full  # `tree` need not be that: `features` has labels in full
      check_trained_on(self.data, trained, self.trained_on, opened)
    if source is not None:
      check_reads(self.config.data["name"], self.config.backbone["name"], self.example_shape, source.shape)
      check_views(self.options.views, source.shape, self.data.crop)
    return source

  def images_of(self, split: str) -> dict[str, str]:
    """Returns which images the numbers of a split are of: their checksum, and the folder that they lie in."""
    source = self.source(split)
    checksum = "" if source is None else data_checksum(source, self.data.all_bytes)
    return {"checksum": checksum, "root": self.data.root and os.path.abspath(os.path.expanduser(self.data.root))}

  def train_batches(self, source: Source, start: int, steps: int) -> Generator[Examples, None, None]:
    """Yields this process's rows of the training batches from step `start` on."""
    rows = ProcessRows(self.config.batch_size, jax.process_index(), jax.process_count())
    return train_batches(self._labelled(source), self.data, rows, TrainSteps(self.config.seed, steps, start))

  def eval_batches(self, source: Source) -> Generator[Examples, None, None]:
    """Yields this process's rows of batches that cover each example once, the last one padded.

    A batch is as large as in training, or a little larger, so that the devices share it evenly; but no larger than a
    GiB, whatever the config of a run from others says.
    """
    devices_in_use = jax.device_count()
    most = max(1, _MOST_BYTES // (4 * math.prod(self.example_shape)))
    batch_size = -(-min(self.config.batch_size, most) // devices_in_use) * devices_in_use
    rows = ProcessRows(batch_size, jax.process_index(), jax.process_count())
    return eval_batches(self._labelled(source), self.data, rows)

  def _labelled(self, source: Source) -> LabelledImages:
    return LabelledImages(source, self.tree, self.tree_config.short_labels)

  def augment(self, examples: Examples, key: jax.Array, tree: TreeArrays | None = None) -> Batch:
    """Returns a batch to train on, its labels smoothed along the tree if that is given and wanted; jittable."""
    return train_batch(examples, key, self.data.transform, tree)

  def preprocess(self, examples: Examples, view: int | Int[Array, ""] = 0) -> Batch:
    """Returns a batch to evaluate, with the view of each image that `augment.view` makes; jittable."""
    return eval_batch(examples, self.data.transform, view)

  def class_weights(self, source: Source) -> Callable[[Int[Array, "b p l"]], Float[Array, "b"]] | None:
    """Returns the weight of an example by its label paths; None where all count the same.

    `balanced` gives every end node that occurs the same weight in all, and examples a mean weight of 1.
    """
    if self.config.class_weights == "none":
      return None
    if source.nodes.shape[1] > 1:
      raise UserError("config.class_weights = balanced: images have several label paths; set none")
    counts = np.bincount(source.nodes[:, 0] + 1, minlength=self.tree.num_nodes + 1).astype(np.float64)
    present = counts > 0
    table = np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 0).astype(np.float32)
    return lambda paths: jnp.asarray(table)[ends(paths[:, 0]) + 1]

  # Weights.

  @property
  def example_shape(self) -> tuple[int, ...]:
    """The shape of one example as the backbone reads it: (h, w, c), or (d,) of precomputed features."""
    backbone = self.method.module.backbone
    if isinstance(backbone, PrecomputedFeatures):
      return (backbone.width,)
    return (self.data.crop, self.data.crop, len(self.data.mean))

  def describe(self) -> list[str]:
    """Returns the head's lines about its choices; often none."""
    return self.method.describe(jnp.zeros((1, *self.example_shape)))

  def init_variables(self, key: jax.Array, shape: tuple[int, ...]) -> Variables:
    """Returns fresh variables for inputs of one example's `shape`, as a source stores it; jittable."""
    size = (self.data.crop, self.data.crop, *shape[2:]) if len(shape) == 3 else shape
    return init_variables(self.method.module, key, size, self.tree.depth)

  @property
  def variable_shapes(self) -> Variables:
    """The shapes of all variables."""
    return variable_shapes(self.method.module, self.example_shape, self.tree.depth)

  def restored_variables(self, folder: RunFolder, mesh: Mesh, step: int | None = None) -> tuple[int, Variables]:
    """Returns the weights of a step, and that step; None for those that count.

    Those are the best on validation, or the last ones where nothing was validated.

    Raises:
      UserError: the folder has no checkpoint, or one of another model.
    """
    if not folder.checkpoints.is_dir():
      raise UserError(f"{folder.path} has no checkpoints yet: train it first")
    for _ in range(_TRIES):
      try:
        return self._restored(folder, mesh, step)
      except VanishedCheckpoint as vanished:  # a trainer has newer ones
        error = vanished
    raise error

  def _restored(self, folder: RunFolder, mesh: Mesh, step: int | None) -> tuple[int, Variables]:
    with contextlib.closing(Checkpoints(folder.checkpoints, select_best=True)) as checkpoints:
      step = checkpoints.counting() if step is None else step
      if step is None:
        raise UserError(f"{folder.path} has no checkpoint yet: train it first")
      shapes = self.variable_shapes
      collections = {name: value for name, value in shapes.items() if name != "params"}
      model = {"params": shapes["params"], "collections": collections}
      restored = checkpoints.restore_model(step, template(model, devices.replicated(mesh)))
      return step, {"params": restored["params"], **restored["collections"]}


def counting_step(folder: RunFolder) -> int | None:
  """Returns the step whose weights count; see `Run.restored_variables`."""
  with contextlib.closing(Checkpoints(folder.checkpoints, select_best=True)) as checkpoints:
    return checkpoints.counting()


def judged_split(run: Run) -> str | None:
  """Returns the split that a run is judged on: test, or else validation; None where the set has neither."""
  return next((name for name in ("test", "validation") if run.source(name) is not None), None)


def asked_split(run: Run, split: str) -> tuple[str, Source]:
  """Returns a split's name and its images; '' for the split that a run is evaluated on.

  Raises:
    UserError: the set has no such split.
  """
  name = split_name(split) if split else judged_split(run) or "test"
  source = run.source(name)
  if source is None:
    raise UserError(f"the data set {run.data.name!r} has no split {name!r}; config.data says which it has")
  return name, source
