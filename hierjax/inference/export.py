"""A run as files that JAX can ask without hierjax: a function, its weights, and what its numbers mean.

OUT/model.stablehlo      `(weights, images u8[b h w c]) -> answer`, for `jax.export.deserialize`
OUT/weights.safetensors  the weights by their names
OUT/model.json           the shape of its images, the path of each node of the tree, and what was chosen
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, UInt8

from hierjax.errors import UserError
from hierjax.inference.answering import Answering
from hierjax.nn.pretrained.files import to_bytes
from hierjax.runs import devices
from hierjax.runs.folder import check_new_folder, whole_folder, write_whole

MODEL, WEIGHTS, ABOUT = "model.stablehlo", "weights.safetensors", "model.json"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_LARGEST_BATCH = 4096


def export(
  workdir: str | Path, out: Path, batch: int = 1, top: int = 1, alpha: str = "", stop_below: str = ""
) -> dict[str, Any]:
  """Writes what answers as `predict` does, images as pixels, for the same arguments.

  The answer is a dict of `Answer`'s fields; `predict` leaves out of these paths without nodes, of a score of -inf, and
  what another path has said. JAX reads such files for at least 6 months of its newer versions, on any platform; where a
  layer has several forms, it has that of the machine that exports.

  Args:
    workdir: the run's folder.
    out: a new folder; it appears when it is whole.
    batch: how many images it takes at a time.
    top: how many paths of each image.
    alpha: as on the command line: a number, or `chosen`; '' for not at all.
    stop_below: a number, or `chosen`; '' for whole paths.

  Returns:
    What model.json holds.

  Raises:
    UserError: as `Answering.open` does, or `out` is there, or `batch` is out of range.
  """
  if not 1 <= batch <= _LARGEST_BATCH:
    raise UserError(f"--batch {batch}: must be 1 to {_LARGEST_BATCH:,} images")
  check_new_folder(out)
  asked = Answering.open(workdir, devices.data_mesh(), top, alpha, stop_below)
  weights = {name: np.asarray(value) for name, value in flatten_dict(asked.weights, sep="/").items()}
  data = asked.eye.data
  images = jax.ShapeDtypeStruct((batch, data.resize, data.resize, len(data.mean)), jnp.uint8)
  with whole_folder(out) as unfinished:
    write_whole(unfinished / MODEL, _exported(asked, weights, images))
    write_whole(unfinished / WEIGHTS, to_bytes(weights, WEIGHTS))
    about = {
      "images": {"shape": list(images.shape), "dtype": "uint8", "fit": data.fit},
      "nodes": [asked.run.tree.path_text(node) for node in range(asked.run.tree.num_nodes)],
      "top": asked.top,
      "alpha": asked.alpha,
      "stop_below": asked.below,
      "thresholds": list(asked.options.thresholds),
      "views": asked.options.views,
      "step": asked.step,
      "platforms": list(PLATFORMS),
      "jax": jax.__version__,
    }
    write_whole(unfinished / ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
  return about


def _exported(asked: Answering, weights: dict[str, np.ndarray], images: jax.ShapeDtypeStruct) -> bytes:
  def answer(weights: dict[str, Array], images: UInt8[Array, "b h w c"]) -> dict[str, Array]:
    return asked.answer(asked.run.method, unflatten_dict(weights, sep="/"), images)._asdict()

  shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()}
  return bytes(jax.export.export(jax.jit(answer), platforms=PLATFORMS)(shapes, images).serialize())
