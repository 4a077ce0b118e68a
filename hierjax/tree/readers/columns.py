"""The columns of a CSV file of labels: the image, the split, and the levels of the label, found by the header."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from hierjax.tree.label_tree import TreeError
from hierjax.tree.readers.folders import is_image_name
from hierjax.tree.readers.split_words import plain_word, split_of_word, word_list
from hierjax.tree.readers.tables import Row, named_levels

_IMAGE = word_list("""
  image images filename file_name file files filepath file_path path paths image_path imagepath img_path image_file
  image_filename image_name img img_name relative_path relativepath rel_path photo photos picture pictures fname
  image_id imageid photo_path location
""")
_VAGUE = word_list("file files path paths photo photos picture pictures location")
_SPLIT = word_list("split splits subset set partition fold data_split split_name dataset_split phase usage")
_IS_SPLIT = re.compile(r"(?:is|in)_(train|training|val|valid|validation|test|testing)(?:_(?:image|set))?")
_LABEL = word_list("label labels target label_path taxonomy hierarchy class_path class_name classname annotation")
_SCALES = (
  word_list("""
    domain kingdom phylum division class subclass order suborder family subfamily tribe genus species subspecies
  """),
  word_list("""
    supergroup group supercategory superclass coarse coarse_label category class fine fine_label subcategory subclass
    breed variety make model
  """),
)
_NUMBERED = re.compile(r"(?:level|lvl|l|label|tier|layer|depth|cat|category)_?(\d+)|(\d+)")
_OTHER = word_list("""
  note notes comment comments remark remarks description caption title text date datetime time timestamp year month
  day hour created created_at modified observed_on photographer author user username observer owner annotator
  reviewer rights license licence copyright source url link website confidence conf score probability prob quality
  rating width height size file_size filesize bytes area channels format mime extension ext md5 sha1 sha256 hash
  checksum latitude longitude lat lon lng long altitude elevation depth_m x y xmin ymin xmax ymax bbox box count
  number individuals index idx id ids uuid guid key row row_id camera camera_id lens iso exposure aperture flash
  site station deployment location_id sequence seq_id seq_num_frames frame frame_num country state city region
  address weather temperature humidity sex age behavior behaviour life_stage verified unnamed unnamed_0
""")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_FEW_ROWS = 10
_MANY = 0.9


def names_an_image_column(header: Iterable[str]) -> bool:
  """Returns whether a header has a column that is surely one of images: `image` or `filename`, but not `path`."""
  return any(plain_word(name) in _IMAGE and plain_word(name) not in _VAGUE for name in header)


@dataclasses.dataclass(frozen=True)
class Columns:
  """The columns of a file of labels, by their numbers.

  Attributes:
    header: the names of all columns.
    image: the column of the images' paths.
    levels: the columns of the label, the top level first; or one column of whole paths.
    split: the column of the splits; None where there is none.
    split_if: the split of the rows in which `split` holds a true value, such as `train`; "" where it holds names.
  """

  header: tuple[str, ...]
  image: int
  levels: tuple[int, ...]
  split: int | None = None
  split_if: str = ""

  @property
  def roles(self) -> dict[str, str]:
    """The use of each column by its name: `image`, `split`, `label`, `level 1`, ... or `not used`."""
    found = dict.fromkeys(range(len(self.header)), "not used")
    found |= {column: f"level {i + 1}" for i, column in enumerate(self.levels)}
    if len(self.levels) == 1:
      found[self.levels[0]] = "label"
    found[self.image] = "image"
    if self.split is not None:
      found[self.split] = "split"
    return {self.header[column] or f"column {column + 1}": role for column, role in found.items()}

  @property
  def level_names(self) -> tuple[str, ...]:
    """The names of the levels; () where the header only numbers them, or has one column of paths."""
    return named_levels([self.header[column] for column in self.levels]) if len(self.levels) > 1 else ()


def find_columns(rows: Sequence[Row], file: str, levels: Sequence[str] = ()) -> Columns:
  """Returns the columns of a table whose first row is its header.

  Args:
    rows: the header and the rows below it.
    file: its name in messages.
    levels: the names of the columns of the label, the top level first; () to find them.

  Raises:
    TreeError: a column cannot be found, or it is not clear which ones are levels.
  """
  table = _Table(rows, file)
  image = table.image_column(levels)
  if levels:
    named = tuple(table.named(name) for name in levels)
    split, split_if = table.split_column({image, *named})
    return Columns(table.header, image, named, split, split_if)
  split, split_if = table.split_column({image})
  return Columns(table.header, image, table.level_columns({image, split}), split, split_if)


class _Table:
  """The header of a table, and the values of its columns."""

  def __init__(self, rows: Sequence[Row], file: str):
    self.file = file
    self.header = tuple(rows[0].cells)
    width = len(self.header)
    self.words = [plain_word(name) for name in self.header]
    cells = [(row.cells + [""] * (width - len(row.cells)))[:width] for row in rows[1:]]
    self.columns = list(zip(*cells, strict=True)) if cells else [()] * width
    self.num_rows = len(cells)

  def named(self, name: str) -> int:
    """Returns the column called `name`."""
    for columns in (self.header, self.words):
      wanted = name.strip() if columns is self.header else plain_word(name)
      if columns.count(wanted) == 1:
        return columns.index(wanted)
    found = ", ".join(filter(None, self.header))
    raise TreeError(f"{self.file}: config.data.levels names the column {name!r}; the header has {found}")

  def values(self, column: int) -> list[str]:
    """Returns the cells of a column that are not blank."""
    return [cell for cell in self.columns[column] if cell]

  def image_column(self, levels: Sequence[str]) -> int:
    taken = {self.named(name) for name in levels}
    free = [column for column in range(len(self.header)) if column not in taken]
    hold = [column for column in free if self._holds_images(column)]
    called = sorted((c for c in free if self.words[c] in _IMAGE), key=lambda c: _IMAGE.index(self.words[c]))
    both = [column for column in called if column in hold]
    for columns in (both, called if not hold else [], hold, free[:1] if free and not self._unlikely(free[0]) else []):
      if columns:
        return columns[0]
    raise TreeError(f"{self.file}: no column of the header is that of the images: call one of them `image`")

  def _holds_images(self, column: int) -> bool:
    values = self.values(column)[:100]
    return sum(map(is_image_name, values)) * 2 > len(values)

  def split_column(self, taken: set[int]) -> tuple[int | None, str]:
    """Returns the column of the splits, and the split that its true values stand for, see `Columns`."""
    free = [column for column in range(len(self.header)) if column not in taken]
    found = [column for column in free if self.words[column] in _SPLIT]
    found = sorted(found, key=lambda column: _SPLIT.index(self.words[column]))
    if found:
      return found[0], ""
    for column in free:
      if match := _IS_SPLIT.fullmatch(self.words[column]):
        return column, split_of_word(match[1])
    return None, ""

  def level_columns(self, taken: set[int | None]) -> tuple[int, ...]:
    free = [column for column in range(len(self.header)) if column not in taken and self.header[column]]
    labels = [column for column in free if self.words[column] in _LABEL]
    ranked = [column for column in free if self._is_rank(column) and column not in labels]
    if len(labels) == 1 and (not ranked or self._holds_paths(labels[0])):
      return tuple(labels)
    if labels:
      self._ask([*ranked, *labels])
    unclear = [
      column
      for column in free
      if column not in ranked and self.words[column] not in _OTHER and not self._unlikely(column)
    ]
    if ranked and unclear and not all(self._trivial(column) for column in unclear):
      self._ask([*ranked, *unclear])
    if ranked:
      return self._sorted(ranked)
    if unclear and not self._nested(unclear):
      self._ask(unclear)
    if unclear:
      return tuple(unclear)
    left = [column for column in free if self.words[column] not in _OTHER]
    if left:
      reasons = ", ".join(f"the column {self.header[column]!r} {self._unlikely(column)}" for column in left)
      raise TreeError(f"{self.file}: no column is known to hold labels: {reasons}{self._remedy(left)}")
    raise TreeError(
      f"{self.file}: its first row must be a header of the image, perhaps `split`, and the label or its levels; no "
      f"column of {', '.join(filter(None, self.header))} is known to hold labels{self._remedy(free)}"
    )

  def _is_rank(self, column: int) -> bool:
    word = self.words[column]
    return any(word in scale for scale in _SCALES) or bool(_NUMBERED.fullmatch(word))

  def _holds_paths(self, column: int) -> bool:
    values = self.values(column)
    return sum("/" in value for value in values) * 2 > len(values)

  def _trivial(self, column: int) -> bool:
    return len(set(self.values(column))) == 0

  def _unlikely(self, column: int) -> str:
    """Returns the reason for which a column is hardly one of labels; "" where there is none."""
    values = self.values(column)
    if values and all(map(_NUMBER.fullmatch, values)):
      return "holds numbers"
    if values and all(map(split_of_word, values)):
      return "holds the names of splits"
    if self.num_rows >= _FEW_ROWS and len(set(values)) >= _MANY * self.num_rows:
      return "holds nearly as many values as there are rows"
    return ""

  def _nested(self, columns: Sequence[int]) -> bool:
    """Returns whether most names of each column but the first stand below one name of the column before."""
    for above, below in itertools.pairwise(columns):
      parents = defaultdict(set)
      for parent, child in zip(self.columns[above], self.columns[below], strict=True):
        if parent and child:
          parents[child].add(parent)
      single = Counter(len(names) == 1 for names in parents.values())
      if self.num_rows >= _FEW_ROWS and single[False] > single[True]:
        return False
    return True

  def _sorted(self, columns: Sequence[int]) -> tuple[int, ...]:
    """Returns columns of levels, the top first: by rank or number where all of them have one of a scale."""
    words = [self.words[column] for column in columns]
    numbers = [_NUMBERED.fullmatch(word) for word in words]
    if all(numbers):
      return tuple(sorted(columns, key=lambda c: int("".join(re.findall(r"\d+", self.words[c])))))
    for scale in _SCALES:
      if all(word in scale for word in words):
        return tuple(sorted(columns, key=lambda c: scale.index(self.words[c])))
    return tuple(columns)

  def _ask(self, columns: Iterable[int]) -> None:
    names = [self.header[column] for column in sorted(columns)]
    raise TreeError(
      f"{self.file}: it is not clear which of the columns {', '.join(map(repr, names))} hold the label"
      f"{self._remedy(sorted(columns))}"
    )

  def _remedy(self, columns: Sequence[int]) -> str:
    names = ",".join(self.header[column] for column in columns) or "group,species"
    return f"; name the ones that do, the top level first, such as config.data.levels = ({names},)"
