"""Reading of an image file or buffer as a square of 8-bit RGB, the same in training and in `predict`."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from hierjax.errors import UserError
from hierjax.tree.readers.folders import IMAGE_SUFFIXES as IMAGE_SUFFIXES

# Twice this many pixels is where Pillow itself refuses; at 3 bytes a pixel it is 268 MB of memory.
MAX_PIXELS = 89_478_485

FITS = ("crop", "stretch")

# Those of IMAGE_SUFFIXES, for files of any name: to read EPS, for example, Pillow runs Ghostscript. MPO is JPEG.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class BadImageError(UserError):
  """An image cannot be read; the message has its name and the reason."""


def read_image(image: Path | str | bytes, resize: int, fit: str = "crop", name: str = "") -> UInt8[np.ndarray, "h w 3"]:
  """Reads one image as a square of `resize` pixels.

  By default that is its largest centred square, resized: the shorter side is resized and the centre cropped, in one
  step. An image of this size is not resized. EXIF rotation is applied; transparent pixels lie on
  white; grey, palette, CMYK and 16-bit images become 8-bit RGB; of an animation the first frame is read.

  Args:
    image: a file, or the bytes of one.
    resize: the side of the square, in pixels.
    fit: `crop` as above, or `stretch`, the whole image resized to the square, for any ratio of its sides.
    name: of the image in errors; a file's own path by default.

  Raises:
    BadImageError: it is missing, broken, cut short, no image or in a format whose suffix is not in `IMAGE_SUFFIXES`, or
      has more than `MAX_PIXELS` pixels.
  """
  name = name or ("image" if isinstance(image, bytes) else str(image))
  try:
    if not isinstance(image, bytes) and not stat.S_ISREG(os.stat(image).st_mode):  # reading a pipe may never end
      raise BadImageError(f"{name}: is no file of an image, but a folder, a pipe or a device")
    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=_FORMATS) as opened:
      if opened.width * opened.height > MAX_PIXELS:
        raise BadImageError(f"{name}: {opened.width} x {opened.height} pixels; {MAX_PIXELS} are allowed")
      return _square(opened, resize, fit)
  except (BadImageError, MemoryError):  # Want of memory is no fault of the image.
    raise
  except (Image.DecompressionBombWarning, Image.DecompressionBombError):
    raise BadImageError(f"{name}: more than the {MAX_PIXELS} pixels that are allowed") from None
  except UnidentifiedImageError:
    raise BadImageError(f"{name}: not an image in one of the formats {', '.join(_FORMATS)}") from None
  # For damaged files decoders raise many types: struct.error, SyntaxError, EOFError...
  except Exception as error:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    raise BadImageError(f"{name}: cannot be read ({reason})") from None


def to_grey(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 1"]:
  """Returns the luma of an RGB image; of one that is grey already, its values."""
  return np.array(Image.fromarray(image).convert("L"))[..., None]


def _square(image: Image.Image, resize: int, fit: str) -> np.ndarray:
  image.draft(None, (2 * resize, 2 * resize))  # A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves pixels enough.
  rgb = _to_rgb(ImageOps.exif_transpose(image))
  if rgb.size != (resize, resize):
    width, height = rgb.size if fit == "stretch" else (min(rgb.size),) * 2
    left, top = (rgb.width - width) / 2, (rgb.height - height) / 2
    rgb = rgb.resize(
      (resize, resize), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height), reducing_gap=2.0
    )
  return np.array(rgb)


def _to_rgb(image: Image.Image) -> Image.Image:
  if image.mode == "F":
    raise ValueError("its pixels are floating-point numbers, of unknown range")
  if image.mode.startswith("I"):
    image = Image.fromarray(np.round(np.clip(np.asarray(image), 0, 65535) * (255 / 65535)).astype(np.uint8))
  if image.has_transparency_data:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
  return image.convert("RGB")
