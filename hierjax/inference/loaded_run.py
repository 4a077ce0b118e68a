"""A run with its weights, and the loop over the images of a split."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from hierjax.data.source import Source
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.types import Examples, Method, Variables

T = TypeVar("T")
OfBatch = Callable[[Method, Variables, Examples], T]


@dataclasses.dataclass(frozen=True)
class LoadedRun:
  """A run with its weights, on the devices.

  Attributes:
    folder: the run's.
    run: the tree, data and model of its config.
    step: the step of the weights.
    variables: the weights.
    mesh: the devices.
  """

  folder: RunFolder
  run: Run
  step: int
  variables: Variables
  mesh: Mesh

  @classmethod
  def open(cls, workdir: RunFolder | str | Path, mesh: Mesh, data_root: str = "", views: int = 0) -> LoadedRun:
    """Opens a run's folder.

    Args:
      workdir: the folder.
      mesh: the devices.
      data_root: where the data set is now; '' for the place in the config.
      views: of each image that are averaged, 1 or 10; 0 for the number in the config.

    Raises:
      UserError: the folder is not that of a run, or has no checkpoint.
    """
    folder = workdir if isinstance(workdir, RunFolder) else RunFolder(workdir)
    run = Run.from_folder(folder, data_root, views)
    step, variables = run.restored_variables(folder, mesh)
    return cls(folder, run, step, variables, mesh)

  def on_all_devices(self) -> LoadedRun:
    """Returns the run with its weights on all devices, where they are on one of several."""
    mesh = devices.data_mesh()
    if self.mesh.size > 1 or mesh.size == 1:
      return self
    return dataclasses.replace(self, variables=jax.device_put(self.variables, devices.replicated(mesh)), mesh=mesh)

  def map(self, function: OfBatch[T], source: Source) -> Generator[tuple[Examples, T], None, None]:
    """Yields each batch of a split and `function(method, variables, examples)`; one batch is in flight on the devices.

    Args:
      function: jitted.
      source: the images of the split.
    """
    before = None
    with contextlib.closing(batches_of([(self.run, source)], self.mesh)) as batches:
      for (examples,) in batches:
        found = function(self.run.method, self.variables, examples)
        jax.block_until_ready(before)
        yield examples, found
        before = found

  def collect(self, function: OfBatch[Any], source: Source) -> Any:
    """Returns `function`, a pytree of `[b ...]`, for all images of a split: a pytree of numpy's `[n ...]`."""
    with contextlib.closing(self.map(function, source)) as found:
      return joined([jax.device_get(part) for _, part in found], len(source))


def images_suffix(out: RunFolder, run: Run, split: str, name: str = "") -> str:
  """Returns the end of the names of files about the images of a split: '', or -images-XXXX for those not of a folder.

  Args:
    out: the folder.
    run: whose images they are.
    split: their name.
    name: of the evaluation in the folder that is of the same images; '' for the split's.
  """
  name = name or split
  return out.evaluation_name(name, split, run.images_of(split)).removeprefix(name)


def joined(parts: Sequence[Any], count: int) -> Any:
  """Returns the first `count` rows of the batches' pytrees, one after the other."""
  return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)


def batches_of(readers: Sequence[tuple[Run, Source]], mesh: Mesh) -> Generator[tuple[Examples, ...], None, None]:
  """Yields the batches of a split in the order of the set, the last one padded, on the devices.

  Close the generator, or exhaust it.

  Args:
    readers: runs, and the images of the split as each reads them. All batches have the size that the first run gives.
    mesh: the devices.
  """
  batch_size = readers[0][0].config.batch_size
  with contextlib.ExitStack() as stack:
    streams = []
    for run, source in readers:
      run = dataclasses.replace(run, config=dataclasses.replace(run.config, batch_size=batch_size))
      streams.append(stack.enter_context(contextlib.closing(run.eval_batches(source))))
    for batches in zip(*streams, strict=True):
      yield tuple(devices.put_batch(examples, mesh) for examples in batches)
