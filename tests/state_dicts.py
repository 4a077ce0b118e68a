"""Weights that are drawn by their names, so that a fixture holds names and shapes, and no weights."""

import zlib
from pathlib import Path

import numpy as np

TOKENS = ("pos_embed", "pos_embedding", "positional_embedding", "cls_token", "class_token", "reg_token", "latent")
FIXTURES = Path(__file__).parent / "nn" / "pretrained"


def drawn(name, shape):
  """Returns random weights `f32[shape]`, of a scale that keeps signals alive; the running variance is positive."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  if name.endswith("num_batches_tracked"):
    return np.asarray(7, np.int64)
  if name.endswith(TOKENS):
    return rng.normal(size=shape, scale=0.5).astype(np.float32)
  if len(shape) > 1:
    return (rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
  if name.endswith("running_var"):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  if name.endswith("weight"):
    scale = 0.4 if ".bn3." in name else 1.0  # what each of 50 blocks adds must not swamp what came before
    return (scale * rng.uniform(0.6, 1.4, shape)).astype(np.float32)
  return rng.normal(size=shape, scale=0.3).astype(np.float32)


def images(height, width=None):
  """Returns the images of all fixtures, `f32[2 height width 3]`; squares without a width."""
  return np.random.default_rng(0).normal(size=(2, height, width or height, 3)).astype(np.float32)


def as_text(shapes):
  """Returns names and shapes as lines, which compress well."""
  return "\n".join(f"{name} {' '.join(map(str, shape))}" for name, shape in shapes.items())


def from_text(text):
  """Returns shapes by name."""
  rows = (line.split(" ") for line in text.splitlines())
  return {name: tuple(int(size) for size in sizes if size) for name, *sizes in rows}


def fixture(name):
  """Returns the arrays of a fixture of tests/nn/pretrained by their names."""
  file = FIXTURES / f"{name.removesuffix('_symmetric')}.npz"  # other arithmetic, the same weights
  with np.load(file, allow_pickle=False) as archive:
    return dict(archive)


def as_variables(weights):
  """Returns the backbone's weights as linen has them."""
  variables = {"params": {}, "batch_stats": {}}
  for name, array in weights.items():
    room, *path, leaf = name.split("/")
    if room == "backbone":
      place = variables["batch_stats" if leaf in ("mean", "var") else "params"]
      for part in path:
        place = place.setdefault(part, {})
      place[leaf] = array
  return variables
