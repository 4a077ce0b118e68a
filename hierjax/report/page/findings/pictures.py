"""Pictures as data URIs, within the room that a page has for them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

from PIL import Image

from hierjax.report.page.findings.findings import Findings, Pixels

SMALL = 64  # pixels: up to here images are stored without loss, and drawn with visible pixels
_SIDE, _QUALITY = 128, 66  # of larger ones
ROOM = 2_600_000  # characters
_AT_ONCE = 32


def encoded(found: Findings, rows: Iterable[int]) -> dict[int, str]:
  """Returns the pictures of images as data URIs by row, of as many of the first ones as there is room for."""
  if found.pictures is None:
    return {}
  uris: dict[int, str] = {}
  left, waiting = ROOM, list(dict.fromkeys(rows))
  while waiting and left > 0:
    some, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
    for row, pixels in zip(some, found.pictures(some), strict=True):
      uri = "" if pixels is None else uri_of(pixels)
      left -= len(uri)
      if uri and left > 0:
        uris[row] = uri
  return uris


def uri_of(pixels: Pixels) -> str:
  """Returns an image as a data URI: PNG for a small one, else WebP."""
  picture, data = Image.fromarray(pixels), io.BytesIO()
  if max(picture.size) <= SMALL:
    picture.save(data, "PNG", optimize=True)
    return _uri("png", data)
  picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
  picture.save(data, "WEBP", quality=_QUALITY)
  return _uri("webp", data)


def _uri(kind: str, data: io.BytesIO) -> str:
  return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
