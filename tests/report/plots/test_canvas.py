import numpy as np
import pytest
from PIL import Image

from hierjax.data.source import ArraySource
from hierjax.errors import UserError
from hierjax.report.plots.canvas import NodeNames, Page, grid, printable, seen_images, wrap
from hierjax.tree.label_tree import PAD, LabelTree


def test_images_are_the_centre_crops_that_the_model_sees(rng):
  images = rng.integers(0, 255, (4, 9, 7, 3), dtype=np.uint8)
  nodes = np.zeros((4, 1), np.int32)
  np.testing.assert_array_equal(seen_images(ArraySource(images, nodes), [2, 0], 4), images[[2, 0], 2:6, 1:5])
  grey = ArraySource(images[..., :1], nodes)
  np.testing.assert_array_equal(seen_images(grey, [1], 7)[0], np.repeat(images[1, 1:8, :, :1], 3, axis=-1))
  with pytest.raises(UserError, match=r"RGB.*\[5\]"):
    seen_images(ArraySource(np.zeros((4, 5), np.float32), nodes), [0], 4)


def test_names_go_as_far_up_as_they_must():
  tree = LabelTree.from_children(["red", "blue", "disc", "ring", "disc", "cup"], [2, 2, 2, 0, 0, 0, 0])
  names = NodeNames(tree)
  assert [names(i) for i in (0, 2, 3, 4, PAD)] == ["red", "disc (red)", "ring", "disc (blue)", "-"]


def extents(page):
  page._figure.draw_without_rendering()
  return [text.get_window_extent() for text in page._figure.texts]


def test_text_is_cut_to_its_width_and_keeps_its_ending():
  page = Page(4.0, 1.0)
  page.text(1.0, 0.2, "a name that is far too long for its place", width=1.5, ending=" (0.25)", align="center")
  (text,) = page._figure.texts
  assert text.get_text().startswith("a name") and text.get_text().endswith("… (0.25)")
  assert extents(page)[0].x0 >= 150 - 1 and extents(page)[0].x1 <= 2.5 * 150 + 1
  page.text(1.0, 0.2, "short", width=1.5)
  assert page._figure.texts[1].get_text() == "short"


def test_lines_fit_and_break_between_words():
  page, text = Page(4.0, 1.0), "a name of_many words/and-hyphens and one word that is farfartoolongforanyline"
  lines = wrap(text, width=0.8, most=20)
  for line in lines:
    page.text(1.0, 0.2, line, width=0.8)
  assert all(box.x1 - box.x0 <= 0.8 * 150 + 1 for box in extents(page))
  assert [text.get_text() for text in page._figure.texts] == lines  # nothing was cut short
  assert "".join(lines).replace(" ", "") == text.replace(" ", "")
  assert all(line[-1] in "/-_" or f"{line} " in text for line in lines[:-3])
  assert wrap(text, width=0.8, most=2) == [lines[0], text[len(lines[0]) :].lstrip()]
  assert wrap(text, width=9.0) == [text] and wrap("", width=9.0) == [""]


def test_a_grid_is_evenly_filled():
  assert [grid(count, 4) for count in (0, 1, 4, 5, 6, 9)] == [(1, 0), (1, 1), (1, 4), (2, 3), (2, 3), (3, 3)]


def test_text_is_no_mathematics_and_may_have_any_character(tmp_path):
  assert printable("a\n$b$ ∑") == "a $b$ ∑" and printable("犬") == "\N{REPLACEMENT CHARACTER}"
  page = Page(4.0, 1.0)
  page.text(0.0, 0.0, "$\\frac{$ 犬 $x$", width=4.0)  # as mathematics this does not parse; a missing glyph would warn
  page.save(tmp_path / "new" / "page.png")
  assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.png"]
  with Image.open(tmp_path / "new" / "page.png") as picture:
    assert picture.size == (600, 150)


def test_an_image_lies_where_it_was_put(tmp_path):
  page = Page(2.0, 1.0)
  page.image(0.5, 0.2, 0.6, np.full((3, 3, 3), (255, 0, 0), np.uint8))
  page.save(tmp_path / "page.png")
  with Image.open(tmp_path / "page.png") as picture:
    red = np.argwhere((np.asarray(picture.convert("RGB")) == (255, 0, 0)).all(axis=-1))
  assert red.min(axis=0).tolist() == [30, 75] and red.max(axis=0).tolist() == [119, 164]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
  page, path = Page(2.0, 1.0), tmp_path / "page.png"
  path.write_bytes(b"old")
  page._figure.savefig = lambda file, **how: (file.write(b"half"), 1 / 0)
  with pytest.raises(ZeroDivisionError):
    page.save(path)
  assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_page_is_on_the_disk_before_it_takes_the_old_ones_place(tmp_path, monkeypatch):
  path = tmp_path / "page.png"
  path.write_bytes(b"old")
  on_disk = []
  monkeypatch.setattr("os.fsync", lambda descriptor: on_disk.append(path.read_bytes()))
  Page(2.0, 1.0).save(path)
  assert on_disk[0] == b"old" and path.read_bytes().startswith(b"\x89PNG")  # the second is of the folder, with its name
