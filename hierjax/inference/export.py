"""A run as files that JAX can read without hierjax: a function, its weights, and the meaning of its numbers.

OUT/model.stablehlo      `(weights, images u8[b h w c]) -> answer`, for `jax.export.deserialize`
OUT/weights.safetensors  the weights by their names
OUT/model.json           the shape of its images, the path of each node of the tree, the settings, and checksums

`sha256` has the checksum of each file by name; that of model.json is of the same JSON without `sha256`, keys sorted.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, UInt8

from hierjax.errors import UserError
from hierjax.inference.exported import ABOUT, MODEL, WEIGHTS
from hierjax.inference.trained_model import AnswerSettings, TrainedModel
from hierjax.nn.pretrained.files import to_bytes
from hierjax.runs import devices
from hierjax.runs.folder import check_new_folder, whole_folder, write_whole

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_LARGEST_BATCH = 4096


def export(
  workdir: str | Path, out: Path, batch: int = 1, settings: AnswerSettings = AnswerSettings()
) -> dict[str, Any]:
  """Writes a run's answers as a function of pixels, with the settings of `predict`.

  The function returns a dict of `Answer`'s fields. `predict` leaves out paths without nodes, paths of score -inf, and
  paths that another one repeats. JAX reads such files for at least 6 months of its newer versions, on any platform;
  where a layer has several forms, the file has that of the machine that exports.

  Args:
    workdir: the run's folder.
    out: a new folder; it appears when it is whole.
    batch: the number of images of a call.
    settings: of the answers.

  Returns:
    The contents of model.json.

  Raises:
    UserError: as `TrainedModel.open` does, or `out` is there, or `batch` is out of range.
  """
  if not 1 <= batch <= _LARGEST_BATCH:
    raise UserError(f"--batch {batch}: must be 1 to {_LARGEST_BATCH:,} images")
  check_new_folder(out)
  model = TrainedModel.open(workdir, devices.data_mesh(), settings)
  weights = {name: np.asarray(value) for name, value in flatten_dict(model.weights, sep="/").items()}
  data = model.eye.data
  images = jax.ShapeDtypeStruct((batch, data.resize, data.resize, len(data.mean)), jnp.uint8)
  with whole_folder(out) as unfinished:
    files = {MODEL: _exported(model, weights, images), WEIGHTS: to_bytes(weights, WEIGHTS)}
    for name, content in files.items():
      write_whole(unfinished / name, content)
    about = {
      "images": {"shape": list(images.shape), "dtype": "uint8", "fit": data.fit, "interpolation": data.interpolation},
      "nodes": [model.run.tree.path_text(node) for node in range(model.run.tree.num_nodes)],
      "level_names": list(model.run.tree.named_levels),
      "top": model.top,
      "alpha": model.stages.alpha,
      "threshold": model.stages.threshold,
      "rule": model.rule,
      "thresholds": list(model.stages.options.thresholds),
      "views": model.stages.options.views,
      "step": model.step,
      "platforms": list(PLATFORMS),
      "jax": jax.__version__,
    }
    files[ABOUT] = json.dumps(about, sort_keys=True).encode()
    about["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    write_whole(unfinished / ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
  return about


def _exported(model: TrainedModel, weights: dict[str, np.ndarray], images: jax.ShapeDtypeStruct) -> bytes:
  def answer(weights: dict[str, Array], images: UInt8[Array, "b h w c"]) -> dict[str, Array]:
    return model.answer(model.run.method, unflatten_dict(weights, sep="/"), images)._asdict()

  shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()}
  return bytes(jax.export.export(jax.jit(answer), platforms=PLATFORMS)(shapes, images).serialize())
