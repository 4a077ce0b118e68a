"""Large images: they are averaged in strips, and few of them are decoded at the same time."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from hierjax.data.images import decoding, read_image
from hierjax.data.images.read_image import BadImageError
from hierjax.data.images.read_image import read_image as read


def picture(mode, width, height, rng):
  """Returns a smooth picture of a mode, with some transparency where it has any."""
  y, x = np.mgrid[:height, :width]
  values = np.stack([128 + 120 * np.sin(x / 30 + k) * np.cos(y / 25 - k) for k in range(4)], -1)
  if mode == "I;16":
    return Image.fromarray((values[..., 0] * 257).astype(np.uint16))
  image = Image.fromarray(values.astype(np.uint8), "RGBA")
  return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def encoded(image, kind, **options):
  data = io.BytesIO()
  image.save(data, kind, **options)
  return data.getvalue()


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
@pytest.mark.parametrize(
  ("mode", "kind"),
  [("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("CMYK", "TIFF")],
)
@pytest.mark.parametrize(("size", "turn"), [((600, 371), 1), ((203, 640), 6)])
def test_strips_give_what_the_whole_image_gives(rng, monkeypatch, mode, kind, fit, size, turn):
  exif = Image.Exif()
  exif[0x0112] = turn
  data = encoded(picture(mode, *size, rng), kind, **({"exif": exif} if kind == "PNG" else {}))
  whole = read(data, 24, fit).astype(int)
  monkeypatch.setattr(decoding, "LARGE", 1000)
  monkeypatch.setattr(read_image, "_STRIP", 5000)
  strips = read(data, 24, fit).astype(int)
  difference = np.abs(strips - whole)
  assert difference.mean() < 3 and difference.max() < 20, (difference.mean(), difference.max())


def test_no_more_than_a_strip_is_converted_at_once(rng, monkeypatch):
  monkeypatch.setattr(decoding, "LARGE", 1000)
  monkeypatch.setattr(read_image, "_STRIP", 5000)
  converted, convert = [], Image.Image.convert
  monkeypatch.setattr(Image.Image, "convert", lambda self, *a: (converted.append(self.size), convert(self, *a))[1])
  read(encoded(picture("RGBA", 700, 500, rng), "PNG"), 16)
  assert converted and max(width * height for width, height in converted) <= 5000
  converted.clear()
  read(encoded(Image.new("RGBA", (30_000, 1)), "PNG"), 16)
  assert max(width * height for width, height in converted) <= 1


def test_a_small_image_is_read_as_ever(rng, monkeypatch):
  monkeypatch.setattr(read_image, "_reduced", None)
  assert read(encoded(picture("RGB", 700, 500, rng), "PNG"), 16).shape == (16, 16, 3)


@pytest.mark.parametrize(("pixels", "at_once"), [(10_000, 16), (5 * 2**20, 4), (80_000_000, 1)])
def test_few_large_images_are_decoded_at_the_same_time(pixels, at_once):
  now, most, lock = [0], [0], threading.Lock()

  def decode():
    with lock:
      now[0] += 1
      most[0] = max(most[0], now[0])
    time.sleep(0.01)
    with lock:
      now[0] -= 1
    return 7

  with ThreadPoolExecutor(16) as pool:
    assert list(pool.map(lambda _: decoding.in_turn(pixels, decode), range(32))) == [7] * 32
  assert min(at_once, 2) <= most[0] <= at_once


def test_the_fault_of_a_large_image_is_that_of_a_small_one(rng, monkeypatch):
  monkeypatch.setattr(decoding, "LARGE", 1000)
  with pytest.raises(BadImageError, match="cannot be read"):
    read(encoded(picture("RGB", 700, 500, rng), "PNG")[:-5000], 16)
