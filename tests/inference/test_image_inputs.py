"""Every form of an image gives the pixels that its file gives."""

import io

import numpy as np
import pytest
from PIL import Image

from hierjax.data.images.read_image import BadImageError
from hierjax.errors import UserError
from hierjax.inference.image_inputs import as_images


@pytest.fixture
def array(rng):
  return rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)


@pytest.fixture
def file(array, tmp_path):
  Image.fromarray(array).save(tmp_path / "a.png")
  return tmp_path / "a.png"


def pixels(inputs, resize=8):
  return np.stack([image.pixels(resize) for image in as_images(inputs)])


def test_one_image_in_any_form_has_the_pixels_of_its_file(array, file):
  expected = pixels(file)
  assert expected.shape == (1, 8, 8, 3)
  forms = (str(file), file.read_bytes(), bytearray(file.read_bytes()), Image.open(file), array, array[None])
  for form in forms:
    np.testing.assert_array_equal(pixels(form), expected)


def test_many_images_of_mixed_forms_keep_their_order_and_names(array, file):
  batch = np.stack([array, 255 - array])
  found = as_images([str(file), batch, file, file.read_bytes()])
  assert [image.name for image in found] == [str(file), "image 1", "image 2", str(file), "image 4"]
  expected = [pixels(form)[0] for form in (file, array, 255 - array, file, file)]
  np.testing.assert_array_equal([image.pixels(8) for image in found], expected)
  assert len(as_images(iter([file, file]))) == 2 and as_images([]) == []


def test_a_plain_string_is_one_file(file):
  assert [image.name for image in as_images(str(file))] == [str(file)]


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_arrays_are_read_as_their_files(rng, tmp_path, channels):
  array = rng.integers(0, 256, (10, 8, channels), dtype=np.uint8)
  Image.fromarray(array[..., 0] if channels == 1 else array).save(tmp_path / "a.png")
  np.testing.assert_array_equal(pixels(array), pixels(tmp_path / "a.png"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_pil_images_of_every_mode_are_read_as_rgb(array, mode):
  image = Image.fromarray(array[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(array)
  image = image if mode == "I;16" else image.convert(mode)
  found = as_images(image)[0].pixels(9)
  assert found.shape == (9, 9, 3) and found.std() > 20


def test_a_pil_image_is_rotated_by_its_exif(array):
  exif = Image.Exif()
  exif[0x0112] = 6  # rotate by 270 degrees to see it upright
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, "PNG", exif=exif)
  image = Image.open(buffer)
  np.testing.assert_array_equal(pixels(image), pixels(buffer.getvalue()))
  np.testing.assert_array_equal(pixels(image), pixels(np.rot90(array, 3).copy()))


def test_floating_point_pixels_are_refused_when_they_are_read():
  with pytest.raises(BadImageError, match=r"image 0.*floating-point"):
    as_images(Image.new("F", (4, 4)))[0].pixels(4)


@pytest.mark.parametrize(
  ("inputs", "words"),
  [
    (np.zeros((4, 4, 3), np.float32), ["float32[4, 4, 3]", "u8[h w c]"]),
    (np.zeros((4, 4), np.uint8), ["uint8[4, 4]"]),
    (np.zeros((4, 4, 2), np.uint8), ["uint8[4, 4, 2]"]),
    (np.zeros((0, 4, 3), np.uint8), ["uint8[0, 4, 3]"]),
    (3, ["int"]),
    (["a.png", None], ["NoneType"]),
  ],
)
def test_what_is_no_image_is_refused_by_its_type(inputs, words):
  with pytest.raises(UserError) as error:
    as_images(inputs)
  assert all(word in str(error.value) for word in words)
