"""The pooled features of a run's images: written once, so that heads train in seconds, and made again to predict.

OUT/SPLIT/features.npy  f32[n d]        OUT/tree.json      the label tree with its checksum, with all its levels
OUT/SPLIT/nodes.npy     i32[n p]        OUT/features.json  what they are features of
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int
from tqdm import tqdm

from hierjax.config import read_json
from hierjax.data.source import Source, labels_checksum
from hierjax.data.sources.features import ABOUT, FEATURES, NODES, TREE, write_rows
from hierjax.data.split_names import SPLITS
from hierjax.errors import UserError
from hierjax.inference.loaded_run import LoadedRun
from hierjax.runs.folder import RunFolder, check_new_folder, whole_folder, write_whole
from hierjax.runs.run import Run
from hierjax.types import Batch, Examples, Method, Variables


def write_features(made_by: LoadedRun, out: Path, splits: Sequence[str] = ()) -> dict[str, Any]:
  """Writes the pooled features of a run's backbone, and neck if there is one, for its images as evaluation sees them.

  Each image of a split has a row, in the order of the set; one that cannot be read or has no label has none, where the
  run skips such images. The labels are those of the whole tree, also where the run learnt its top levels only.

  Args:
    made_by: the run, opened with `views = 1`.
    out: a new folder; it appears when it is whole.
    splits: `train`, `validation`, `test`; none for all that the run has.

  Returns:
    The contents of features.json.

  Raises:
    UserError: the data or a split is not there, `out` is, or a feature is not finite.
  """
  check_new_folder(out)
  run = replace(made_by.run, tree=made_by.run.full_tree())
  made_by = replace(made_by, run=run)
  sources = _sources(run, splits)
  with whole_folder(out) as unfinished:
    counts = {name: _write_split(made_by, source, unfinished / name) for name, source in sources.items()}
    about = {
      "run": str(made_by.folder.path),
      "step": made_by.step,
      "width": _width(run, made_by.variables),
      "examples": counts,
      "labels_sha256": {name: labels_checksum(source) for name, source in sources.items()},
      "tree_sha256": run.tree.checksum,
      "backbone": run.config.backbone,
      "neck": run.config.neck,
      "data": run.config.data,
    }
    write_whole(unfinished / TREE, run.tree.to_json())
    write_whole(unfinished / ABOUT, json.dumps(about, indent=2) + "\n")
  return about


def origin(run: Run, mesh: Mesh) -> tuple[Run, Variables]:
  """Returns the run that made the features which `run` reads, and its weights of then.

  Raises:
    UserError: no run of images made them, or it is not there any more.
  """
  file = Path(run.data.root).expanduser() / ABOUT
  if run.data.name != "features" or not file.exists():
    raise UserError(
      "this run reads precomputed features, and no run is known that makes them of images: "
      f"config.data.root = {run.data.root!r} has no {ABOUT}"
    )
  about = read_json(file, "what `features` writes")
  try:
    folder, step = RunFolder(about["run"]), int(about["step"])
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f"{file} is damaged: {error!r}") from None
  maker = Run.from_folder(folder, views=1)
  if len(maker.example_shape) != 3:
    raise UserError(f"{file}: {folder.path} made these features of other features, not of images")
  if not (folder.checkpoints / str(step)).is_dir():
    raise UserError(f"{file}: the features are of step {step} of {folder.path}, which has that checkpoint no more")
  _, variables = maker.restored_variables(folder, mesh, step)
  if (_width(maker, variables),) != run.example_shape:
    raise UserError(f"{file}: {folder.path} makes {_width(maker, variables)} features, and not {run.example_shape[0]}")
  return maker, variables


def features_of_images(run: Run, variables: Variables, examples: Examples, view: int | Int[Array, ""] = 0) -> Batch:
  """Returns images as features of `run`, in place of its `preprocess`; jittable."""
  batch = run.preprocess(examples, view)
  features: Any = run.method.module.apply(variables, batch.inputs, method="features")
  return replace(batch, inputs=features.pooled.astype(jnp.float32))


def _width(run: Run, variables: Variables) -> int:
  inputs = jax.ShapeDtypeStruct((1, *run.example_shape), jnp.float32)
  features = jax.eval_shape(lambda v, x: run.method.module.apply(v, x, method="features"), variables, inputs)
  return features.pooled.shape[1]


def _sources(run: Run, splits: Sequence[str]) -> dict[str, Source]:
  found = {name: run.source(name) for name in splits or SPLITS}
  for name, source in found.items():
    if source is None and splits:
      raise UserError(f"the data set {run.data.name!r} has no split {name!r}; config.data says which it has")
  return {name: source for name, source in found.items() if source is not None}


def _write_split(made_by: LoadedRun, source: Source, folder: Path) -> int:
  """Writes the features and nodes of a split; returns the number of their rows."""
  folder.mkdir()
  numbers: list[np.ndarray] = []

  @jax.jit
  def features(method: Method, variables: Variables, examples: Examples) -> Array:
    inputs: Array = features_of_images(made_by.run, variables, examples).inputs
    return inputs

  def blocks() -> Iterator[np.ndarray]:
    bar = tqdm(total=len(source), desc=f"features of {folder.name}", unit=" images", delay=2, leave=False, disable=None)
    with contextlib.closing(made_by.map(features, source)) as found, bar:
      for examples, batch in found:
        real = np.asarray(examples.mask) > 0
        rows = np.asarray(batch)[real]
        numbers.append(np.asarray(examples.draw)[real, 1])
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
          raise UserError(f"the features of {source.name_of(int(numbers[-1][np.argmin(finite)]))} are not finite")
        bar.update(len(rows))
        yield rows

  write_rows(folder / FEATURES, _width(made_by.run, made_by.variables), blocks())
  nodes = source.nodes[np.concatenate(numbers)]
  np.save(folder / NODES, nodes, allow_pickle=False)
  return len(nodes)
