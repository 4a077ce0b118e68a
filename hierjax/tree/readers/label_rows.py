"""The rows of a CSV file of labels: an image, perhaps its split, and its label."""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from hierjax.tree.label_tree import TreeError
from hierjax.tree.readers.columns import Columns, find_columns
from hierjax.tree.readers.folders import is_image_name
from hierjax.tree.readers.foreign_json import check_is_table
from hierjax.tree.readers.split_words import plain_word, split_of_word
from hierjax.tree.readers.tables import Row, read_rows, without_blank_end


@dataclasses.dataclass(frozen=True)
class LabelRow:
  """A row of a CSV file of labels.

  Attributes:
    line: where it is, from 1.
    image: the image's path.
    split: the part of the data set that it belongs to; "" where the file has no splits.
    label: the argument of `LabelFinder.node`; () where there is no label.
    bad_split: the fault of its split; "" where there is none.
    bad_label: the fault of its label, other than blanks; "" where there is none.
  """

  line: int
  image: str
  split: str
  label: tuple[str, ...]
  bad_split: str = ""
  bad_label: str = ""

  @property
  def only_image(self) -> bool:
    """Whether the row names an image and no label of it."""
    return bool(self.image) and not self.bad_split and not self.label

  @property
  def fault(self) -> str:
    """The fault of the row by itself; "" where there is none."""
    if not self.image:
      return "the row has no image"
    if self.bad_split:
      return self.bad_split
    if self.bad_label:
      return self.bad_label
    if not self.label:
      return "the row has no label"
    return "the row has a blank in mid-label" if "" in self.label else ""


@dataclasses.dataclass(frozen=True)
class LabelFormat:
  """The reading of a file of labels, as the section `data` of a config sets it.

  Attributes:
    splits: names of splits, besides those of `split_words`; of two that differ only in capitals, the last counts.
    ignored: names of splits whose rows are left out.
    levels: the names of the columns of the label; () to find them.
    root: the folder of the images, or None.
  """

  splits: tuple[str, ...] = ()
  ignored: tuple[str, ...] = ()
  levels: tuple[str, ...] = ()
  root: str | Path | None = None


@dataclasses.dataclass(frozen=True)
class LabelTable:
  """A file of labels.

  Attributes:
    rows: its rows, in order.
    columns: its columns.
    left_out: the number of rows in a split that is ignored.
  """

  rows: list[LabelRow]
  columns: Columns
  left_out: int = 0


_PLAIN = LabelFormat()
_YES, _NO = frozenset(["1", "1.0", "true", "yes", "y", "t"]), frozenset(["0", "0.0", "false", "no", "n", "f"])


def read_label_table(path: str | Path, options: LabelFormat = _PLAIN) -> LabelTable:
  """Reads a CSV file of labels, whose first row is a header; the columns are found by it, see `find_columns`.

  With several columns of levels, the cells are the names of a path, of which the last ones may be blank. With one, the
  cell is a whole path, `animal/dog`, or an id, or a name that only one node has. So is a row's only filled cell where
  the rows with several filled cells have such a path and no such name. Several rows of one image are several label
  paths of it.

  Raises:
    TreeError: the file is not CSV in UTF-8, or its first row is no header of such columns.
  """
  check_is_table(path)
  rows = read_rows(path)
  _check_header(rows, path, options.root)
  columns = find_columns(rows, str(path), options.levels)
  reader = _Reader(rows[1:], columns, options)
  read = [reader.row(row) for row in rows[1:]]
  found = [row for row in read if row is not None]
  return LabelTable(found, columns, len(read) - len(found))


def _check_header(rows: Sequence[Row], path: str | Path, root: str | Path | None) -> None:
  if not rows or len(rows[0].cells) < 2:
    only = f", not the one cell {rows[0].cells[0]!r}" if rows else ""
    raise TreeError(
      f"{path}: its first row must be a header{only}: the image, perhaps `split`, and the label or its levels, parted "
      "by commas, semicolons or tabs"
    )
  for cell in rows[0].cells:
    if is_image_name(cell) or (root is not None and cell and (Path(root) / cell).is_file()):
      raise TreeError(
        f"{path}:{rows[0].line}: the header is missing, as {cell!r} is an image: write a first row above it, `image`, "
        "perhaps `split`, and `label` or a name for each level"
      )
  if len(rows) == 1:
    raise TreeError(f"{path}: it has a header and no row below it")


class _Reader:
  """The reading of single rows, with what the other rows show of their labels."""

  def __init__(self, rows: Sequence[Row], columns: Columns, options: LabelFormat):
    self._columns = columns
    self._options = options
    self._named = {name.casefold(): name for name in options.splits if name}
    self._ignored = {plain_word(name) for name in options.ignored}
    self._paths: set[tuple[str, ...]] = set()
    for row in rows if len(columns.levels) > 1 else ():
      names = self._names(row)
      if len(names) > 1:
        self._paths.update(names[:end] for end in range(1, len(names) + 1))

  def row(self, row: Row) -> LabelRow | None:
    """Returns a row; None for one of a split that is left out."""
    image = _resolved(_cell(row, self._columns.image), self._options.root)
    split, bad_split = self._split(row)
    if split is None:
      return None
    label, bad_label = self._label(row)
    return LabelRow(row.line, image, split, label, bad_split, bad_label)

  def _names(self, row: Row) -> tuple[str, ...]:
    return tuple(without_blank_end([_cell(row, column) for column in self._columns.levels]))

  def _label(self, row: Row) -> tuple[tuple[str, ...], str]:
    names = self._names(row)
    further = without_blank_end(row.cells)[len(self._columns.header) :]
    if further:
      return names, f"the row has more cells than the header: {further[0]!r}; quote names that hold the delimiter"
    if len(names) != 1:
      return names, ""
    path = path_of_text(names[0])
    if len(self._columns.levels) > 1 and (names in self._paths or path not in self._paths):
      return names, ""
    blank = "" in path and f"the label {names[0]!r} has a blank name; write \\/ for a slash within a name"
    return path, blank or ""

  def _split(self, row: Row) -> tuple[str | None, str]:
    column = self._columns.split
    if column is None:
      return "", ""
    written = _cell(row, column)
    if plain_word(written) in self._ignored and written:
      return None, ""
    if self._columns.split_if:
      return self._split_of_flag(written)
    split = self._named.get(written.casefold(), "") or (plain_word(written) if split_of_word(written) else "")
    if split:
      return split, ""
    what = f"the split {written!r} is not known" if written else "the split is blank"
    return (
      "",
      f"{what}; write one of {', '.join(sorted({'test', 'train', 'val', 'validation', *self._named.values()}))}",
    )

  def _split_of_flag(self, written: str) -> tuple[str, str]:
    yes = self._columns.split_if
    if written.casefold() in _YES:
      return yes, ""
    if written.casefold() in _NO:
      return ("test" if yes == "train" else "train"), ""
    return "", f"the split is {written!r}; write 1 or 0" if written else "the split is blank"


def _cell(row: Row, column: int) -> str:
  return row.cells[column] if column < len(row.cells) else ""


def path_of_text(text: str) -> tuple[str, ...]:
  r"""Returns the names of a path written `animal/dog`, with `\/` and `\\` in names; other backslashes are kept."""
  names = [""]
  for part in re.findall(r"\\[/\\]|.", text, re.DOTALL):
    if part == "/":
      names.append("")
    else:
      names[-1] += part[-1]
  return tuple(name.strip() for name in names)


def _resolved(image: str, root: str | Path | None) -> str:
  """Returns an image's path as the file system has it: of other slashes, or of another Unicode form."""
  slashed = image.replace("\\", "/")
  if root is None or (image.isascii() and slashed == image):
    return slashed
  for text in dict.fromkeys((image, slashed)):
    for form in (text, *(unicodedata.normalize(kind, text) for kind in ("NFC", "NFD"))):
      if (Path(root) / form).is_file():
        return form
  return slashed


def split_faults(rows: Iterable[LabelRow]) -> list[tuple[int, str]]:
  """Returns each fault that splits of rows have, with the line of the first row, and the number of others."""
  lines: dict[str, list[int]] = {}
  for row in rows:
    if row.bad_split:
      lines.setdefault(row.bad_split, []).append(row.line)
  return [
    (first, fault + (f" ({len(others):,} more rows)" if others else "")) for fault, (first, *others) in lines.items()
  ]


def image_key(root: str | Path, image: str) -> str:
  """Returns what paths of one image file have in common: `a.png` and `./a.png` are one image."""
  return os.path.normpath(Path(root) / image)
