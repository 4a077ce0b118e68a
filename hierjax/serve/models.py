"""The model that a server answers with: a run, or what `export` made of one, which needs no Flax."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import UInt8

from hierjax.data.images.read_image import to_grey
from hierjax.inference.answers import Answer
from hierjax.inference.exported import open_export
from hierjax.inference.image_inputs import ImageInput
from hierjax.tree.label_tree import LabelTree

if TYPE_CHECKING:
  from hierjax.inference.trained_model import AnswerSettings

_SIZES = (1, 4, 16)  # batches below the largest, each compiled once
_LARGEST, _LARGEST_OF_CPUS = 64, 8  # lite0 on 2 cores: 8 to 10 ms an image in batches of 1 to 8, and 15 in those of 64

Pixels = UInt8[np.ndarray, "h w c"]


@dataclasses.dataclass(frozen=True)
class ServedModel:
  """A model that answers batches of a few sizes.

  Attributes:
    name: of the folder that it is from.
    kind: `run` or `export`.
    step: of its weights.
    tree: the label tree.
    rule: `rule` and `threshold` of `Row.why`.
    shape: of an image, (h, w, c).
    fit: of images, see `read_image`.
    interpolation: of images, see `read_image`.
    sizes: of batches, ascending.
    compute: `u8[b h w c] -> Answer` for b among `sizes`; called from one thread at a time.
  """

  name: str
  kind: str
  step: int
  tree: LabelTree
  rule: Mapping[str, Any]
  shape: tuple[int, int, int]
  fit: str
  interpolation: str
  sizes: tuple[int, ...]
  compute: Callable[[UInt8[np.ndarray, "b h w c"]], Answer]

  def pixels(self, image: ImageInput, most_pixels: int) -> Pixels:
    """Returns an image as the model reads it; raises BadImageError as `read_image` does."""
    found = image.pixels(self.shape[0], self.fit, self.interpolation, most_pixels)
    return to_grey(found) if self.shape[2] == 1 else found

  def answers(self, images: Sequence[Pixels]) -> list[Answer]:
    """Returns the answer for each image, as numpy arrays; there are at most as many as the largest batch."""
    size = next(size for size in self.sizes if size >= len(images))
    batch = np.zeros((size, *self.shape), np.uint8)
    batch[: len(images)] = images
    arrays = jax.device_get(tuple(self.compute(batch)))
    return [Answer(*(array[i] for array in arrays)) for i in range(len(images))]

  def warm_up(self) -> None:
    """Compiles the program of each size."""
    for size in self.sizes:
      jax.block_until_ready(self.compute(np.zeros((size, *self.shape), np.uint8)))


def open_run(workdir: str | Path, settings: AnswerSettings, most: int = 0) -> ServedModel:
  """Returns the model of a run; `most` is its largest batch, 0 for the one that suits the devices.

  The devices share a batch where they can do so evenly, and else one of them computes it.

  Raises:
    UserError: as `TrainedModel.open` does.
  """
  from hierjax.inference.trained_model import TrainedModel  # imports Flax
  from hierjax.runs import devices

  mesh = devices.data_mesh()
  model = TrainedModel.open(workdir, mesh, settings)
  answer, method = jax.jit(model.answer), model.run.method
  alone = jax.tree.map(lambda weight: weight.addressable_shards[0].data, model.weights)
  most = most or (_LARGEST_OF_CPUS if jax.default_backend() == "cpu" else _LARGEST)

  def compute(images: UInt8[np.ndarray, "b h w c"]) -> Answer:
    shared = len(images) % mesh.size == 0
    found: Answer = answer(method, *((model.weights, devices.put_batch(images, mesh)) if shared else (alone, images)))
    return found

  data = model.eye.data
  return ServedModel(
    name=Path(workdir).name,
    kind="run",
    step=model.step,
    tree=model.run.tree,
    rule={"rule": model.rule, "threshold": model.stages.threshold},
    shape=(data.resize, data.resize, len(data.mean)),
    fit=data.fit,
    interpolation=data.interpolation,
    sizes=(*(size for size in _SIZES if size < most), most),
    compute=compute,
  )


def open_exported(folder: str | Path) -> ServedModel:
  """Returns the model in a folder that `export` wrote; its batches have the size of `export --batch`.

  Raises:
    UserError: as `open_export` does.
  """
  found = open_export(folder)
  about, (b, h, w, c) = found.about, found.about["images"]["shape"]
  return ServedModel(
    name=Path(folder).name,
    kind="export",
    step=about["step"],
    tree=found.tree,
    rule={"rule": about["rule"], "threshold": about["threshold"]},
    shape=(h, w, c),
    fit=about["images"]["fit"],
    interpolation=about["images"]["interpolation"],
    sizes=(b,),
    compute=found.compute,
  )
