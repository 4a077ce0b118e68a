"""Reading of an image file or buffer as a square of 8-bit RGB, the same in training and in `predict`."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, UnidentifiedImageError

from hierjax.data.images import decoding
from hierjax.errors import UserError
from hierjax.extras import command
from hierjax.tree.readers.folders import IMAGE_SUFFIXES as IMAGE_SUFFIXES

# Twice this many pixels is where Pillow itself refuses; at 3 bytes a pixel it is 268 MB of memory.
MAX_PIXELS = 89_478_485

FITS = ("crop", "stretch", "pad")
INTERPOLATIONS = ("bilinear", "bicubic")

# Those of IMAGE_SUFFIXES, for files of any name: to read EPS, for example, Pillow runs Ghostscript. MPO is JPEG.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_FILTERS = dict(zip(INTERPOLATIONS, (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC), strict=True))
_PADDING = (128, 128, 128)  # near the mean of photographs, so near 0 after normalisation

_ORIENTATION, _PHOTOMETRIC, _MAX_SAMPLE_VALUE = 0x0112, 262, 281  # tags of TIFF and EXIF
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # types of tags
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_UPRIGHT = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM)
_DEEPEST, _SHALLOW = 65535, 4095
_AT_ONCE = 2**22  # bytes of a file that is read whole, before it is decoded
_AHEAD = 16  # files that are open before they are read
_STRIP = 2**20  # pixels of a large image that are converted at once
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})


class BadImageError(UserError):
  """An image cannot be read; the message has its name and the reason."""


def read_image(
  image: Path | str | bytes,
  resize: int,
  fit: str = "crop",
  name: str = "",
  *,
  interpolation: str = "bilinear",
  most_pixels: int | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
  """Reads one image as a square of `resize` pixels.

  By default that is its largest centred square, resized: the shorter side is resized and the centre cropped, in one
  step. An image of this size is not resized. EXIF rotation is applied; transparent pixels lie on
  white; grey, palette, CMYK and 16-bit images become 8-bit RGB; of an animation the first frame is read. HEIC is read
  where `pillow-heif` is installed.

  Args:
    image: a file, or the bytes of one.
    resize: the side of the square, in pixels.
    fit: `crop` as above; `stretch`, the whole image resized to the square, for any ratio of its sides; or `pad`, the
      longer side resized to the square's, and grey at both ends of the shorter one.
    name: of the image in errors; a file's own path by default.
    interpolation: `bilinear` or `bicubic`; both average over all the pixels that become one.
    most_pixels: of an image; one with more is refused before it is decoded. None for `MAX_PIXELS`, the most of all.

  Raises:
    BadImageError: it is missing, broken, cut short, no image or in a format whose suffix is not in `IMAGE_SUFFIXES`, or
      has more than `most_pixels` pixels.
  """
  name = name or ("image" if isinstance(image, bytes) else str(image))
  try:
    with _opened(image if isinstance(image, bytes) else _bytes_or_path(image, name)) as opened:
      allowed = MAX_PIXELS if most_pixels is None else min(most_pixels, MAX_PIXELS)
      if opened.width * opened.height > allowed:
        raise BadImageError(f"{name}: {opened.width} x {opened.height} pixels; {allowed} are allowed")
      return _square(opened, resize, fit, _FILTERS[interpolation])
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


def read_ahead(files: Iterable[str]) -> Generator[str | bytes, None, None]:
  """Yields the bytes of small files in order, and the path of each other file, for `read_image` to say what is wrong.

  The system is told of files some time before they are asked for, and reads them while others are decoded.
  """
  told: deque[tuple[str, int | None]] = deque()
  try:
    for file in files:
      told.append((file, _told(file)))
      if len(told) > _AHEAD:
        yield _read_whole(*told.popleft())
    while told:
      yield _read_whole(*told.popleft())
  finally:
    for _, descriptor in told:
      if descriptor is not None:
        os.close(descriptor)


def _told(file: str) -> int | None:
  """Returns the descriptor of a small file, which the system begins to read; None for any other."""
  try:
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would wait for one
  except (OSError, ValueError):  # of a name that no file can have
    return None
  with contextlib.suppress(OSError):
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= _AT_ONCE:
      if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
      return descriptor
  os.close(descriptor)
  return None


def _read_whole(file: str, descriptor: int | None) -> str | bytes:
  if descriptor is None:
    return file
  with open(descriptor, "rb", buffering=0) as opened, contextlib.suppress(OSError):
    return opened.readall()
  return file


def _bytes_or_path(file: Path | str, name: str) -> Path | str | bytes:
  """Returns the bytes of a small file, which Pillow would ask for in dozens of reads, and of a large one its path."""
  status = os.stat(file)
  if not stat.S_ISREG(status.st_mode):  # reading a pipe may never end
    raise BadImageError(f"{name}: is no file of an image, but a folder, a pipe or a device")
  return Path(file).read_bytes() if status.st_size <= _AT_ONCE else file


def _opened(image: Path | str | bytes) -> Image.Image:
  try:
    return Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=_FORMATS)
  except UnidentifiedImageError:
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIF_BRANDS:
      raise
    return _opened_heif(data)
  except ValueError as error:
    if "MAX_TEXT" not in str(error):  # of a PNG with long texts or a large colour profile
      raise
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return Image.open(io.BytesIO(_without_texts(data)), formats=_FORMATS)


def _opened_heif(data: bytes) -> Image.Image:
  try:
    import pillow_heif
  except ImportError:
    raise ValueError(f"it is a HEIC image: {command('heic')}, or convert it to JPEG") from None
  pillow_heif.register_heif_opener()
  return Image.open(io.BytesIO(data), formats=("HEIF",))


def _without_texts(png: bytes) -> bytes:
  """Returns a PNG without its texts and colour profile."""
  kept, place = [png[:8]], 8
  while place + 8 <= len(png):
    end = place + 12 + int.from_bytes(png[place : place + 4])
    if png[place + 4 : place + 8] not in _TEXT_CHUNKS:
      kept.append(png[place:end])
    place = end
  return b"".join(kept)


def image_size(image: bytes) -> tuple[int, int]:
  """Returns the width and height of an image in pixels, as it is stored; raises as Pillow does."""
  with _opened(image) as opened:
    return opened.size


def image_extent(image: Path | str | bytes) -> tuple[int, int]:
  """Returns the height and width that an image is seen with, by EXIF's orientation; (1, 1) where it cannot be read."""
  with contextlib.suppress(Exception), _opened(image) as opened:
    turn = _TURNS.get(_orientation(opened))
    width, height = opened.size if turn is None or turn in _UPRIGHT else opened.size[::-1]
    return height, width
  return 1, 1


def unstretched(images: UInt8[np.ndarray, "m h w c"], extents: Int[np.ndarray, "m 2"]) -> UInt8[np.ndarray, "m h w c"]:
  """Returns the central squares, as large as the images, of images of those heights and widths that were stretched."""
  found = images.copy()
  side = images.shape[1:3]
  for row, (height, width) in enumerate(extents.tolist()):
    if height * side[1] != width * side[0]:
      tall, wide = (size * min(height, width) / own for size, own in zip(side, (height, width), strict=True))
      top, left = (side[0] - tall) / 2, (side[1] - wide) / 2
      grey = images.shape[3] == 1
      image = Image.fromarray(images[row, ..., 0] if grey else images[row])
      image = image.resize(side[::-1], _FILTERS["bilinear"], box=(left, top, left + wide, top + tall))
      found[row] = np.array(image)[..., None] if grey else np.array(image)
  return found


def to_grey(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 1"]:
  """Returns the luma of an RGB image; of one that is grey already, its values."""
  return np.array(Image.fromarray(image).convert("L"))[..., None]


def _square(image: Image.Image, resize: int, fit: str, filter: Image.Resampling) -> np.ndarray:
  image.draft(None, (2 * resize, 2 * resize))  # A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves pixels enough.
  size, turn, rgb = decoding.in_turn(image.width * image.height, functools.partial(_decoded, image, resize, fit))
  if turn is not None:
    rgb = rgb.transpose(turn)
    size = size if turn in _UPRIGHT else size[::-1]
  if fit == "pad":
    return np.array(_padded(rgb, size, resize, filter))
  if rgb.size != (resize, resize):
    width, height = rgb.size if fit == "stretch" else (min(rgb.size),) * 2
    left, top = (rgb.width - width) / 2, (rgb.height - height) / 2
    rgb = rgb.resize((resize, resize), filter, box=(left, top, left + width, top + height), reducing_gap=2.0)
  return np.array(rgb)


def _decoded(image: Image.Image, resize: int, fit: str) -> tuple[tuple[int, int], Image.Transpose | None, Image.Image]:
  """Returns the size of an image, its turn, and the image as RGB, of fewer pixels where it is large."""
  image.load()
  large = image.width * image.height > decoding.LARGE
  rgb = _reduced(image, resize, fit) if large else _to_rgb(image)
  return image.size, _TURNS.get(_orientation(image)), rgb


def _reduced(image: Image.Image, resize: int, fit: str) -> Image.Image:
  """Returns a large image as RGB, its sides at least four times those that it will have, or as they are.

  Strips are converted and averaged one after the other, since a conversion takes several times the memory of the image.
  Whole blocks of pixels are averaged: up to an eighth of a final pixel is lost at each side.
  """
  width, height = (min(image.size),) * 2 if fit == "crop" else image.size  # what is cut off later is not converted
  sides = (max(image.size),) * 2 if fit == "pad" else (width, height)
  across, down = (max(1, side // (4 * resize)) for side in sides)
  width, height = max(width - width % across, 1), max(height - height % down, 1)
  left, top = (image.width - width) // 2, (image.height - height) // 2
  to_rgb, reduced = _converter(image), Image.new("RGB", (-(-width // across), -(-height // down)))
  rows = max(1, _STRIP // (width * down)) * down
  for start in range(0, height, rows):
    strip = to_rgb((left, top + start, left + width, top + min(start + rows, height)))
    reduced.paste(strip.reduce((across, down)), (0, start // down))
  return reduced


def _padded(rgb: Image.Image, size: tuple[int, int], resize: int, filter: Image.Resampling) -> Image.Image:
  """Returns an image that had `size` before it was reduced, resized, with grey around it."""
  width, height = (max(1, round(side * resize / max(size))) for side in size)
  if rgb.size != (width, height):
    rgb = rgb.resize((width, height), filter, reducing_gap=2.0)
  square = Image.new("RGB", (resize, resize), _PADDING)
  square.paste(rgb, ((resize - width) // 2, (resize - height) // 2))
  return square


def _orientation(image: Image.Image) -> int:
  """Returns the EXIF orientation, 1 to 8; 1 where there is none. A fault of another tag does not matter."""
  found = _orientation_in(image.info.get("exif") or b"")
  if not found:
    with contextlib.suppress(Exception):  # formats that keep it elsewhere, such as TIFF, or XMP in a PNG
      found = image.getexif().get(_ORIENTATION, 1)
  return found if found in range(1, 9) else 1


def _orientation_in(exif: bytes) -> int:
  """Returns the value of the orientation tag in the first directory of EXIF data; 0 where it has none."""
  tiff = exif.removeprefix(b"Exif\0\0")
  order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
  with contextlib.suppress(struct.error):
    start = struct.unpack_from(f"{order}I", tiff, 4)[0] if order else len(tiff)
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from(f"{order}H", tiff, start)[0], 12):
      tag, kind = struct.unpack_from(f"{order}HH", tiff, place)
      if tag == _ORIENTATION and kind in _INTEGERS:
        return int(struct.unpack_from(f"{order}{_INTEGERS[kind]}", tiff, place + 8)[0])
  return 0


def _to_rgb(image: Image.Image) -> Image.Image:
  return _converter(image)((0, 0, *image.size))


def _converter(image: Image.Image) -> Callable[[tuple[int, int, int, int]], Image.Image]:
  """Returns a function from a box (left, top, right, bottom) to that part of an image as RGB."""
  if image.mode == "F":
    raise ValueError("its pixels are floating-point numbers, of unknown range")
  if image.mode.startswith("I"):
    return _deep_converter(image)
  transparent = image.has_transparency_data

  def convert(box: tuple[int, int, int, int]) -> Image.Image:
    part = image if box == (0, 0, *image.size) else image.crop(box)
    if not transparent:
      return part.convert("RGB")
    rgba = part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")

  return convert


def _deep_converter(image: Image.Image) -> Callable[[tuple[int, int, int, int]], Image.Image]:
  """Returns `_converter` of a grey image of 16 or 32 bits; the value that is transparent becomes white."""
  pixels = np.asarray(image)
  least, most = int(np.min(pixels)), int(np.max(pixels))
  tags = getattr(image, "tag_v2", {})  # of a TIFF alone
  declared = tags.get(_MAX_SAMPLE_VALUE)
  scale = declared[0] if isinstance(declared, tuple) else declared or _DEEPEST
  if least < 0 or most > scale:
    raise ValueError(f"its pixels are whole numbers from {least:,} to {most:,}, of unknown range; store 8 or 16 bits")
  if 0 < most <= _SHALLOW and scale == _DEEPEST and image.format != "PPM":
    raise ValueError(
      f"its pixels of 16 bits or more reach {most:,} only, as those of 12 bits or fewer do; scale them to 65,535"
    )
  white_is_zero, key = tags.get(_PHOTOMETRIC, 1) == 0, image.info.get("transparency")

  def convert(box: tuple[int, int, int, int]) -> Image.Image:
    part = pixels[box[1] : box[3], box[0] : box[2]]
    values = scale - part.astype(np.int64) if white_is_zero else part
    grey = np.round(values * (255 / scale)).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    if isinstance(key, int):
      rgb[part == key] = 255
    return Image.fromarray(rgb)

  return convert
