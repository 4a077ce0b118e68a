"""Photos as they come: every kind of file becomes the pixels that a person sees."""

import contextlib
import io
import itertools
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PngImagePlugin

from hierjax.data.images import read_image as images
from hierjax.data.images.read_image import IMAGE_SUFFIXES, BadImageError, read_image, to_grey

# Four plain quarters: red, green, blue, grey.
QUARTERS = np.repeat(
  np.repeat(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8), 8, axis=0), 8, axis=1
)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
  buffer = io.BytesIO()
  image.save(buffer, format, **options)
  return buffer.getvalue()


def test_rgb_of_the_stored_size_is_taken_as_it_is(rng):
  pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
  np.testing.assert_array_equal(read_image(encoded(Image.fromarray(pixels)), 16), pixels)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (16, 16), (15, 8)])
def test_shorter_side_is_resized_and_the_centre_cropped(shape):
  height, width = shape
  pixels = np.zeros((height, width, 3), np.uint8)
  side = min(shape)
  top, left = (height - side) // 2, (width - side) // 2
  pixels[top : top + side, left : left + side] = 200
  assert (read_image(encoded(Image.fromarray(pixels)), 4)[1:3, 1:3] == 200).all()
  flat = np.full((height, width, 3), (10, 20, 30), np.uint8)
  np.testing.assert_array_equal(read_image(encoded(Image.fromarray(flat)), 5), np.full((5, 5, 3), (10, 20, 30)))


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("turned", [False, True])
def test_stretching_keeps_all_of_the_image_and_not_its_ratio(turned, format):
  colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
  turn = (1, 0, 2) if turned else (0, 1, 2)
  wide = np.kron(colours, np.ones((60, 80, 1), np.uint8)).transpose(turn)  # 60 x 320
  found = read_image(encoded(Image.fromarray(wide), format), 16, "stretch").transpose(turn)
  for i, colour in enumerate(colours[0].astype(int)):
    assert abs(found[:, 4 * i + 1 : 4 * i + 3] - colour).max() < (40 if format == "JPEG" else 1)


def test_resizing_averages_instead_of_picking(rng):
  checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
  small = read_image(encoded(Image.fromarray(checks.astype(np.uint8))), 8)
  assert abs(small.astype(int) - 127).max() < 12


@pytest.mark.parametrize(
  ("orientation", "undo"),
  [
    (1, lambda x: x),
    (2, lambda x: x[:, ::-1]),
    (3, lambda x: x[::-1, ::-1]),
    (4, lambda x: x[::-1]),
    (5, lambda x: x.transpose(1, 0, 2)),
    (6, lambda x: np.rot90(x, -1)),
    (7, lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
    (8, lambda x: np.rot90(x, 1)),
  ],
)
def test_exif_rotation(orientation, undo):
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encoded(Image.fromarray(QUARTERS), "PNG", exif=exif)
  np.testing.assert_array_equal(read_image(data, 16), undo(QUARTERS))
  jpeg = encoded(Image.fromarray(QUARTERS), "JPEG", exif=exif, quality=95, subsampling=0)
  assert abs(read_image(jpeg, 16).astype(int) - undo(QUARTERS)).max() < 12


def test_grey_bilevel_and_palette():
  grey = QUARTERS[..., 2]
  expected = np.repeat(grey[..., None], 3, axis=-1)
  np.testing.assert_array_equal(read_image(encoded(Image.fromarray(grey)), 16), expected)
  bilevel = read_image(encoded(Image.fromarray(grey > 200)), 16)
  np.testing.assert_array_equal(bilevel, np.where(expected > 200, 255, 0))
  palette = Image.fromarray(QUARTERS).quantize(4)
  assert palette.mode == "P"
  assert abs(read_image(encoded(palette, "GIF"), 16).astype(int) - QUARTERS).max() <= 8


def test_to_grey(rng):
  grey = rng.integers(0, 256, (4, 4, 1), dtype=np.uint8)
  np.testing.assert_array_equal(to_grey(np.repeat(grey, 3, axis=-1)), grey)
  np.testing.assert_array_equal(to_grey(QUARTERS)[[0, 0, 8, 8], [0, 8, 0, 8], 0], [76, 150, 29, 90])  # ITU-R 601


def test_what_is_transparent_lies_on_white():
  alpha = np.zeros((16, 16), np.uint8)
  alpha[:8] = 255
  alpha[8:, 8:] = 102  # 0.4
  expected = QUARTERS.astype(float)
  expected[8:, :8] = 255
  expected[8:, 8:] = 0.4 * 90 + 0.6 * 255
  rgba = Image.fromarray(np.dstack([QUARTERS, alpha]))
  assert abs(read_image(encoded(rgba), 16) - expected).max() <= 1

  grey_alpha = Image.fromarray(np.dstack([QUARTERS[..., 0], alpha]))
  assert grey_alpha.mode == "LA"
  ink = np.where(alpha == 255, QUARTERS[..., 0], 255 - alpha / 255.0 * (255 - QUARTERS[..., 0]))
  assert abs(read_image(encoded(grey_alpha), 16) - ink[..., None]).max() <= 1

  keyed = encoded(Image.fromarray(QUARTERS), "PNG", transparency=(0, 0, 255))
  np.testing.assert_array_equal(read_image(keyed, 16)[8:, :8], np.full((8, 8, 3), 255))
  np.testing.assert_array_equal(read_image(keyed, 16)[:8], QUARTERS[:8])

  indexed = Image.fromarray(QUARTERS).quantize(4)
  hidden = indexed.getpixel((0, 15))
  with_key = read_image(encoded(indexed, "PNG", transparency=hidden), 16)
  np.testing.assert_array_equal(with_key[8:, :8], np.full((8, 8, 3), 255))
  partly = bytes(0 if i == hidden else 255 for i in range(4))
  np.testing.assert_array_equal(read_image(encoded(indexed, "PNG", transparency=partly), 16), with_key)


def test_cmyk_jpeg():
  cmyk = Image.fromarray(QUARTERS).convert("CMYK")
  data = encoded(cmyk, "JPEG", quality=95, subsampling=0)
  assert Image.open(io.BytesIO(data)).mode == "CMYK"
  assert abs(read_image(data, 16).astype(int) - QUARTERS).max() < 12


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(format):
  deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
  expected = np.round(deep * (255 / 65535))
  found = read_image(encoded(Image.fromarray(deep), format), 16)
  np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, axis=-1))


def test_big_endian_and_32_bit_grey():
  deep = np.linspace(0, 65535, 256).reshape(16, 16)
  pgm = b"P5 16 16 65535\n" + deep.astype(">u2").tobytes()
  assert abs(read_image(pgm, 16)[..., 0] - deep / 257).max() <= 1
  wide = encoded(Image.fromarray(deep.astype(np.int32)), "TIFF")
  assert Image.open(io.BytesIO(wide)).mode == "I"
  assert abs(read_image(wide, 16)[..., 0] - deep / 257).max() <= 1


def test_a_large_jpeg_decoded_small_is_the_same_picture(rng):
  blocks = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((200, 200, 1))).astype(np.uint8)
  jpeg, png = (encoded(Image.fromarray(blocks), format) for format in ("JPEG", "PNG"))
  difference = abs(read_image(jpeg, 40).astype(int) - read_image(png, 40))
  assert difference.mean() < 2 and difference.max() < 40


def test_bad_images_are_named(tmp_path, monkeypatch):
  good = encoded(Image.fromarray(np.tile(QUARTERS, (8, 8, 1))), "JPEG")
  (tmp_path / "cut.jpg").write_bytes(good[: len(good) // 2])
  (tmp_path / "text.jpg").write_text("no image")
  (tmp_path / "empty.jpg").write_bytes(b"")
  Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
  for name in ("cut.jpg", "text.jpg", "empty.jpg", "missing.jpg", "float.tif"):
    with pytest.raises(BadImageError, match=name):
      read_image(tmp_path / name, 8)
  os.mkfifo(tmp_path / "pipe.png")  # waiting for one to write would never end
  with pytest.raises(BadImageError, match=r"pipe\.png: is no file of an image"):
    read_image(tmp_path / "pipe.png", 8)
  with pytest.raises(BadImageError, match="page 3"):
    read_image(good[:100], 8, name="page 3")
  monkeypatch.setattr(images, "MAX_PIXELS", 128 * 128 - 1)
  with pytest.raises(BadImageError, match="128 x 128 pixels"):
    read_image(good, 8)


def test_formats_are_those_of_the_suffixes_whatever_a_file_is_called(tmp_path, monkeypatch):
  monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: pytest.fail("Ghostscript would run"))
  photo = Image.fromarray(QUARTERS)
  for format in ("EPS", "TGA", "ICO"):
    (tmp_path / "cat.jpg").write_bytes(encoded(photo, format))
    with pytest.raises(BadImageError, match=r"cat\.jpg: not an image in one of the formats AVIF, BMP, GIF, JPEG,"):
      read_image(tmp_path / "cat.jpg", 16)
  for suffix in sorted(IMAGE_SUFFIXES - {".heic", ".heif"}):
    (photo.convert("L") if suffix == ".pgm" else photo).save(tmp_path / f"dog{suffix}")
    assert read_image(tmp_path / f"dog{suffix}", 16).shape == (16, 16, 3)
  of_a_phone = encoded(photo, "MPO", save_all=True, append_images=[photo])
  assert Image.open(io.BytesIO(of_a_phone)).format == "MPO" and read_image(of_a_phone, 16).shape == (16, 16, 3)


@pytest.mark.parametrize("taken", [40, 3], ids=["all", "the first ones"])
def test_files_that_are_read_ahead_come_in_order_and_are_closed(tmp_path, monkeypatch, taken):
  """A pipe and what is missing or large come as paths, for `read_image` to read or to refuse."""
  monkeypatch.setattr(images, "_AT_ONCE", 100)
  found = {str(tmp_path / f"{number}.png"): bytes([number]) * (101 if number == 5 else number) for number in range(38)}
  for file, data in found.items():
    Path(file).write_bytes(data)
  os.mkfifo(tmp_path / "pipe.png")
  files = [*list(found)[:2], str(tmp_path / "pipe.png"), str(tmp_path / "none.png"), *list(found)[2:]]
  descriptors = len(os.listdir("/dev/fd"))
  with contextlib.closing(images.read_ahead(files)) as ahead:
    read = list(itertools.islice(ahead, taken))
    assert len(os.listdir("/dev/fd")) <= descriptors + 16
  assert len(os.listdir("/dev/fd")) == descriptors
  whole = [found.get(file, file) for file in files]
  whole[7] = files[7]  # the large one
  assert read == whole[:taken]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("at_once", [0, 2**22], ids=["by its path", "at once"])
def test_a_file_is_the_same_image_however_it_is_read(suffix, at_once, tmp_path, monkeypatch):
  monkeypatch.setattr(images, "_AT_ONCE", at_once)
  file = tmp_path / f"a{suffix}"
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)).save(file)
  np.testing.assert_array_equal(read_image(file, 16), read_image(file.read_bytes(), 16))
  file.write_bytes(file.read_bytes()[:60])
  with pytest.raises(BadImageError, match=rf"a{suffix}: (cannot be read|not an image)"):
    read_image(file, 16)


def test_pillows_own_bomb_check_is_a_bad_image(monkeypatch):
  data = encoded(Image.fromarray(QUARTERS))
  for limit in (200, 50):  # Pillow warns above its limit, and raises above twice as much.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BadImageError, match="pixels that are allowed"):
      read_image(data, 8)


def test_random_damage_never_escapes_as_another_error(rng):
  for format in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"):
    data = np.frombuffer(encoded(Image.fromarray(QUARTERS), format), np.uint8)
    for _ in range(30):
      damaged = data.copy()
      places = rng.integers(0, len(data), 4)
      damaged[places] = rng.integers(0, 256, 4)
      with contextlib.suppress(BadImageError):
        assert read_image(damaged.tobytes(), 8).shape == (8, 8, 3)


def test_want_of_memory_is_no_fault_of_the_image(monkeypatch):
  def square(image, resize, fit, filter):
    raise MemoryError

  monkeypatch.setattr(images, "_square", square)
  with pytest.raises(MemoryError):
    read_image(encoded(Image.fromarray(QUARTERS)), 4)


# Photographs as cameras, scanners and web sites write them.


def exif_of(*tags, order="<"):
  """Returns EXIF data of raw entries (tag, type, count, 4 bytes)."""
  entries = b"".join(struct.pack(f"{order}HHI", tag, kind, count) + value for tag, kind, count, value in tags)
  return (
    b"Exif\0\0" + {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(tags)) + entries + b"\0" * 4
  )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
  "fault",
  [
    (0x011A, 5, 1, b"\xff\xff\xff\x7f"),  # a rational beyond the data
    (0x011A, 10, 1, b"\0\0\0\0"),  # a signed rational in the place of an unsigned one
    (0x0128, 16, 1, b"\1\0\0\0"),  # LONG8, of BigTIFF
    (0x0110, 99, 7, b"abcd"),  # a type that there is not
    (0x0110, 2, 2**31, b"abcd"),  # a text without end
    (0x8769, 4, 1, b"\xff\xff\xff\xff"),  # a directory beyond the data
  ],
)
def test_a_fault_of_another_exif_tag_does_not_matter(fault, order):
  turned = (0x0112, 3, 1, struct.pack(f"{order}HH", 6, 0))
  for tags in ((fault, turned), (turned, fault)):
    data = encoded(Image.fromarray(QUARTERS), "JPEG", exif=exif_of(*tags, order=order), quality=95, subsampling=0)
    assert abs(read_image(data, 16).astype(int) - np.rot90(QUARTERS, -1)).max() < 12


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
  "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x" * 9]
)
def test_exif_without_an_orientation(exif):
  data = encoded(Image.fromarray(QUARTERS), "JPEG", exif=exif, quality=95, subsampling=0)
  assert abs(read_image(data, 16).astype(int) - QUARTERS).max() < 12


def test_a_png_with_long_texts_or_a_large_colour_profile():
  info = PngImagePlugin.PngInfo()
  info.add_text("notes", "x" * (2 * 2**20), zip=True)
  np.testing.assert_array_equal(read_image(encoded(Image.fromarray(QUARTERS), pnginfo=info), 16), QUARTERS)
  profile = encoded(Image.fromarray(QUARTERS), icc_profile=b"\0" * (2 * 2**20))
  np.testing.assert_array_equal(read_image(profile, 16), QUARTERS)


DEEP = np.linspace(0, 65535, 256).reshape(16, 16)


@pytest.mark.parametrize(
  ("values", "reason"),
  [
    (DEEP.astype(np.int32) // 257, "reach 255 only"),
    (DEEP.astype(np.int32) * 32767, "from 0 to 2,147,385,345, of unknown range"),
    (DEEP.astype(np.int32) - 9, "from -9 to 65,526, of unknown range"),
    (DEEP.astype(np.uint16) >> 4, "reach 4,095 only"),
  ],
)
def test_whole_numbers_of_unknown_range_are_refused(values, reason):
  with pytest.raises(BadImageError, match=reason):
    read_image(encoded(Image.fromarray(values), "TIFF"), 16)


def test_a_tiff_that_declares_its_range():
  twelve = DEEP.astype(np.uint16) >> 4
  found = read_image(encoded(Image.fromarray(twelve), "TIFF", tiffinfo={281: 4095}), 16)
  np.testing.assert_array_equal(found[..., 0], np.round(twelve * (255 / 4095)))
  assert not read_image(encoded(Image.fromarray(np.zeros((16, 16), np.uint16)), "TIFF"), 16).any(), "black is black"


def test_white_is_zero_in_16_bits():
  data = encoded(Image.fromarray(DEEP.astype(np.uint16)), "TIFF", tiffinfo={262: 0})
  assert Image.open(io.BytesIO(data)).tag_v2[262] == 0
  np.testing.assert_array_equal(
    read_image(data, 16)[..., 0], np.round((65535 - DEEP.astype(np.uint16)) * (255 / 65535))
  )


def test_a_transparent_value_of_16_bits_is_white():
  deep = DEEP.astype(np.uint16)
  found = read_image(encoded(Image.fromarray(deep), transparency=int(deep[3, 3])), 16)
  expected = np.round(deep * (255 / 65535))
  expected[3, 3] = 255
  np.testing.assert_array_equal(found, np.repeat(expected[..., None], 3, axis=-1))


@pytest.mark.parametrize(("shape", "rows", "columns"), [((4, 16), (6, 10), (0, 16)), ((16, 4), (0, 16), (6, 10))])
def test_padding_keeps_all_of_the_image_and_its_ratio(shape, rows, columns):
  found = read_image(encoded(Image.fromarray(np.full((*shape, 3), 7, np.uint8))), 16, "pad")
  expected = np.full((16, 16, 3), 128)
  expected[slice(*rows), slice(*columns)] = 7
  np.testing.assert_array_equal(found, expected)


def test_heic_names_the_package_that_reads_it(monkeypatch, tmp_path):
  (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 20)
  monkeypatch.setitem(sys.modules, "pillow_heif", None)
  with pytest.raises(BadImageError, match=r"a\.HEIC: .*pip install .*hierjax\[heic\]"):
    read_image(tmp_path / "a.HEIC", 8)


def test_heic_is_read_where_its_package_is_installed(tmp_path):
  pytest.importorskip("pillow_heif").register_heif_opener()
  Image.new("RGB", (32, 24), (200, 30, 60)).save(tmp_path / "a.heic")
  assert np.abs(read_image(tmp_path / "a.heic", 8).mean(axis=(0, 1)) - [200, 30, 60]).max() < 4


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_bicubic_pixels_are_pillows(fit, rng):
  image = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
  for interpolation, filter in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
    for side in (16, 40):
      found = read_image(encoded(image), side, fit, interpolation=interpolation)
      np.testing.assert_array_equal(found, np.array(image.resize((side, side), filter, reducing_gap=2.0)))
