"""The image set `shapes`, drawn by the package from a seed: geometric figures in a tree of 31 leaves.

Figures have random places, sizes, rotations and colours, among clutter, below strokes and noise. Siblings at the bottom
of the tree differ by the width of a border or the number of holes. An example depends only on its split and number.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, UInt8
from PIL import Image

from hierjax.data.config import DataConfig
from hierjax.data.source import ArraySource, Splits
from hierjax.data.sources.shape_figures import FIGURES
from hierjax.errors import UserError
from hierjax.tree.builders import from_paths
from hierjax.tree.label_tree import PAD, LabelTree

SPLIT_NAMES = ("train", "validation", "test")

_SEED = 20260
_CHUNK = 256  # drawn at a time, so that arrays stay near the processor
_CLUTTER = 3  # strokes behind the figures; one more lies before them
_NOISE = np.float32(0.07)

# The random numbers of a layer, which is the background, a stroke or a figure.
_TURN, _SIZE, _X, _Y, _FREE, _NUMBERS = 0, 1, 2, 3, 7, 8
_COLOUR = slice(4, 7)


def tree() -> LabelTree:
  """Returns the label tree of the set."""
  return from_paths([path.split("/") for path in FIGURES])


def splits(config: DataConfig, tree: LabelTree) -> Splits:
  """Returns `config.examples` training images, and a sixth as many each to validate and to test.

  Raises:
    UserError: `tree` is not that of the set.
  """
  try:
    nodes = np.array([tree.find(path.split("/")) for path in FIGURES], np.int32)
  except KeyError as error:
    raise UserError(
      f"config.data.name = 'shapes' goes with the tree of that name; in this one, {error.args[0]}"
    ) from None
  sizes = (config.examples, config.examples // 6, config.examples // 6)
  return {
    name: functools.partial(_source, split, size, config, nodes)
    for split, (name, size) in enumerate(zip(SPLIT_NAMES, sizes, strict=True))
  }


def _source(split: int, size: int, config: DataConfig, nodes: Int[np.ndarray, "k"]) -> ArraySource:
  images, figures = draw(np.arange(size), split, config.resize, config.objects)
  ends = np.where(figures >= 0, nodes[figures], PAD).astype(np.int32)
  return ArraySource(images, ends, f"shapes {SPLIT_NAMES[split]}")


def write_folders(root: Path, count: int, side: int = 64) -> None:
  """Writes images as PNG files in folders named as their labels, an example of a user's own set.

  Args:
    root: the folder; made if absent.
    count: the number of images, equally many of each leaf.
    side: of the images, in pixels.

  Raises:
    UserError: there are files in the folder already.
  """
  if root.exists() and any(root.iterdir()):
    raise UserError(f"{root} is not empty: name a new folder")
  images, figures = draw(np.arange(count), SPLIT_NAMES.index("test"), side)
  for number, (image, figure) in enumerate(zip(images, figures[:, 0].tolist(), strict=True)):
    folder = root / list(FIGURES)[figure]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{number:05d}.png")


def draw(
  indices: Int[np.ndarray, "m"], split: int = 0, side: int = 32, objects: int = 1
) -> tuple[UInt8[np.ndarray, "m {side} {side} 3"], Int[np.ndarray, "m {objects}"]]:
  """Draws examples.

  Args:
    indices: which examples of the split.
    split: its number in `SPLIT_NAMES`.
    side: of the images, in pixels.
    objects: the most figures in an image; it has one or more of them, all different.

  Returns:
    The images, and which of `FIGURES` are in each, -1 where there are fewer than `objects`.
  """
  starts = range(0, max(len(indices), 1), _CHUNK)
  images, figures = zip(*(_draw(indices[i : i + _CHUNK], split, side, objects) for i in starts), strict=True)
  return np.concatenate(images), np.concatenate(figures)


def _draw(indices: np.ndarray, split: int, side: int, objects: int) -> tuple[np.ndarray, np.ndarray]:
  count = len(indices)
  numbers = np.empty((count, 1 + _CLUTTER + objects + 1, _NUMBERS), np.float32)
  noise = np.empty((count, side, side, 3), np.float32)
  others = np.empty((count, len(FIGURES) - 1), np.int64)
  for row, index in enumerate(indices.tolist()):
    rng = np.random.Generator(np.random.Philox(key=np.array([_SEED + split, index], np.uint64)))
    rng.random(out=numbers[row], dtype=np.float32)
    rng.standard_normal(out=noise[row], dtype=np.float32)
    others[row] = rng.permutation(len(FIGURES) - 1)
  background, *layers = np.moveaxis(numbers, 1, 0)
  present = 1 + (background[:, _FREE] * np.float32(objects)).astype(np.int64)
  figures = np.concatenate([np.zeros((count, 1), np.int64), 1 + others[:, : objects - 1]], axis=1)
  figures = np.where(np.arange(objects) < present[:, None], (figures + indices[:, None]) % len(FIGURES), -1)

  pixels = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side / 2) - np.float32(1)
  x, y = pixels[None, None, :], pixels[None, :, None]
  canvas = _background(background, x, y)
  for layer in layers[:_CLUTTER]:
    _paint(canvas, _stroke(layer, x, y), _against(background, layer))
  for i, layer in enumerate(layers[_CLUTTER:-1]):
    place = _Place(background[:, _X] + np.float32(1) * i / np.maximum(present, 1).astype(np.float32), present == 1)
    _paint(canvas, _figure(layer, place, figures[:, i], (x, y)), _against(background, layer))
  _paint(canvas, _stroke(layers[-1], x, y), _against(background, layers[-1]))
  return np.round(np.clip(canvas + _NOISE * noise, 0, 1) * np.float32(255)).astype(np.uint8), figures


def _background(layer: np.ndarray, x: np.ndarray, y: np.ndarray) -> Float32[np.ndarray, "m s s 3"]:
  """Returns a colour that changes slowly across the image."""
  cos, sin = _direction(layer[:, _TURN])
  slope = np.float32(0.4) * (layer[:, _SIZE, None, None] - np.float32(0.5)) * (cos * x + sin * y)
  return layer[:, None, None, _COLOUR] + slope[..., None]


def _stroke(layer: np.ndarray, x: np.ndarray, y: np.ndarray) -> Float32[np.ndarray, "m s s"]:
  """Returns the distance to a short straight stroke anywhere, in half image sides."""
  along, across = _turned(layer, x - _spread(layer[:, _X], 0.9), y - _spread(layer[:, _Y], 0.9))
  length = np.float32(0.15) + np.float32(0.35) * layer[:, _SIZE, None, None]
  beyond = np.maximum(np.abs(along) - length, np.float32(0))
  return np.sqrt(beyond * beyond + across * across) - np.float32(0.05)


class _Place(NamedTuple):
  """The places of one figure in each of m images.

  Attributes:
    turn: `f32[m]`, the place on a ring, as a fraction of a full turn.
    alone: `bool[m]`, whether it is the only figure, which is near the middle instead.
  """

  turn: np.ndarray
  alone: np.ndarray


def _figure(
  layer: np.ndarray, place: _Place, figures: np.ndarray, grid: tuple[np.ndarray, np.ndarray]
) -> Float32[np.ndarray, "m s s"]:
  """Returns the distance to one figure, in half image sides: large and near the middle if alone, else on a ring."""
  x, y = grid
  alone = place.alone[:, None, None]
  cos, sin = _direction(place.turn)
  away = np.where(alone, np.float32(0), np.float32(0.5))
  jitter = np.where(alone, np.float32(0.3), np.float32(0.08))
  radius = np.where(alone, np.float32(0.5), np.float32(0.34))
  radius = radius + np.where(alone, np.float32(0.3), np.float32(0.1)) * layer[:, _SIZE, None, None]
  across = x - away * cos - jitter * _spread(layer[:, _X], 1.0)
  along = y - away * sin - jitter * _spread(layer[:, _Y], 1.0)
  u, v = _turned(layer, across / radius, along / radius)
  distance = np.full(u.shape, np.inf, np.float32)
  for number, figure in enumerate(FIGURES.values()):
    rows = np.flatnonzero(figures == number)
    if len(rows):
      distance[rows] = figure(u[rows], v[rows])
  return distance * radius


def _against(background: np.ndarray, layer: np.ndarray) -> Float32[np.ndarray, "m 3"]:
  """Returns a colour at least 0.3 from the background's in every channel."""
  return (background[:, _COLOUR] + np.float32(0.3) + np.float32(0.4) * layer[:, _COLOUR]) % np.float32(1)


def _paint(canvas: np.ndarray, distance: np.ndarray, colour: np.ndarray) -> None:
  """Paints the inside of a figure over the canvas, in place; an edge is one pixel wide."""
  side = np.float32(canvas.shape[1] / 2)
  cover = np.clip(np.float32(0.5) - distance * side, np.float32(0), np.float32(1))[..., None]
  canvas += cover * (colour[:, None, None] - canvas)


def _turned(layer: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  cos, sin = _direction(layer[:, _TURN])
  return cos * x + sin * y, cos * y - sin * x


def _direction(turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns cosine and sine, rounded from 64 bits, whose last bits may differ between machines."""
  angle = 2 * np.pi * turn.astype(np.float64)[:, None, None]
  return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _spread(numbers: np.ndarray, most: float) -> np.ndarray:
  return ((np.float32(2) * numbers - np.float32(1)) * np.float32(most))[:, None, None]
