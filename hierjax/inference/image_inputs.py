"""The forms in which a user may give images to a predictor, as one type."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from hierjax.data.images.read_image import read_image
from hierjax.errors import UserError

# The modes of a PIL image that a format keeps.
_AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
_AS_TIFF = ("F", "CMYK", "YCbCr", "LAB")


@dataclasses.dataclass(frozen=True)
class ImageInput:
  """An image that is not read yet.

  Attributes:
    name: the file's path, or `image 0` and so on for what has no name.
    source: a file, or the bytes of an image file.
  """

  name: str
  source: Path | bytes

  def pixels(
    self, resize: int, fit: str = "crop", interpolation: str = "bilinear", most_pixels: int | None = None
  ) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the image as a square of `resize` pixels; arguments and errors are those of `read_image`."""
    return read_image(self.source, resize, fit, self.name, interpolation=interpolation, most_pixels=most_pixels)


def as_images(inputs: Any) -> list[ImageInput]:
  """Returns one image or many, in any of these forms, as a list.

  Args:
    inputs: a file's path as text or `Path`, the bytes of an image file, a PIL image, an array `u8[h w c]` or a batch
      `u8[b h w c]`, of 1, 3 or 4 channels; or a sequence or iterator of these, in which each image counts.

  Raises:
    UserError: an input has another type, or an array has another shape or dtype.
  """
  return [ImageInput(_name(source, number), source) for number, source in enumerate(_sources(inputs))]


def _sources(inputs: Any) -> Iterator[Path | bytes]:
  if isinstance(inputs, str | os.PathLike):
    yield Path(inputs)
  elif isinstance(inputs, bytes | bytearray | memoryview):
    yield bytes(inputs)
  elif isinstance(inputs, Image.Image):
    yield _encoded(inputs)
  elif hasattr(inputs, "__array__"):
    yield from map(_encoded, _images_of(np.asarray(inputs)))
  elif isinstance(inputs, Sequence) or hasattr(inputs, "__next__"):
    for each in inputs:
      yield from _sources(each)
  else:
    raise UserError(
      f"{type(inputs).__name__} is no image: give a file, bytes, a PIL image, an array u8[h w c] or u8[b h w c], or a "
      "list of these"
    )


def _images_of(array: np.ndarray) -> list[Image.Image]:
  """Returns the images of an array; raises UserError for one that holds none."""
  shape = list(array.shape)
  batch = array[None] if array.ndim == 3 else array
  if array.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] not in (1, 3, 4) or 0 in batch.shape[1:]:
    raise UserError(
      f"an array {array.dtype}{shape} is no image: give u8[h w c] or u8[b h w c] with values 0 to 255, and 1, 3 or 4 "
      "channels last"
    )
  return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in batch]


def _encoded(image: Image.Image) -> bytes:
  """Returns an image as the bytes of a file, without loss and rotated by EXIF, for `read_image`."""
  upright, buffer = ImageOps.exif_transpose(image), io.BytesIO()
  if image.mode in _AS_PNG:
    upright.save(buffer, "PNG", compress_level=0)
  elif image.mode in _AS_TIFF:
    upright.save(buffer, "TIFF")
  else:
    upright.convert("RGBA").save(buffer, "PNG", compress_level=0)
  return buffer.getvalue()


def _name(source: Path | bytes, number: int) -> str:
  """Returns what to call an image; bytes of a file's name that are not text are written as escapes."""
  return f"image {number}" if isinstance(source, bytes) else os.fsencode(source).decode("utf-8", "backslashreplace")
