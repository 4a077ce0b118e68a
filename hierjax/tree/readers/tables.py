"""Label trees in CSV files: a column a level, or an edge a row.

Cells are separated by commas, semicolons or tabs: by the one that the first row has outside quotes.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from hierjax.tree.draft import Draft
from hierjax.tree.label_tree import ROOT, TreeError

_EDGE_HEADERS = (["parent", "child"], ["parent", "child", "name"])
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_NUMBERED = re.compile(r"(?:[a-z]+[\W_]*)?\d+|[a-z]")
_QUOTED = r'"[^"]*+"?'
_RECORD = re.compile(rf'(?:[^"\r\n]|{_QUOTED})++')


@dataclasses.dataclass(frozen=True)
class Row:
  """A record of a CSV file.

  Attributes:
    line: the line it starts on, from 1.
    cells: without surrounding blanks, in the Unicode form NFC.
    delimiter: the file's delimiter, in words.
  """

  line: int
  cells: list[str]
  delimiter: str


def read_text(path: str | Path) -> str:
  """Returns the text of a UTF-8 file without byte order marks; raises TreeError with the line of a malformed byte."""
  try:
    data = Path(path).read_bytes()
  except OSError as error:
    raise TreeError(f"{path}: cannot be read ({error.strerror})") from None
  try:
    return data.decode("utf-8").replace("\ufeff", "")
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b"\n") + 1
    raise TreeError(f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8") from None


def read_rows(path: str | Path) -> list[Row]:
  """Returns the rows of a CSV file that are not blank; raises TreeError where it is not CSV in UTF-8."""
  text = read_text(path)
  delimiter = _delimiter(text, path)
  reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
  rows = []
  line = 1
  try:
    for cells in reader:
      stripped = [unicodedata.normalize("NFC", cell.strip()) for cell in cells]
      if any(stripped):
        rows.append(Row(line, stripped, _DELIMITERS[delimiter]))
      line = reader.line_num + 1
  except csv.Error as error:
    raise TreeError(f"{path}:{line}: not CSV ({error})") from None
  return rows


def _delimiter(text: str, path: str | Path) -> str:
  """Returns the delimiter that the first row has outside quotes, a comma where it has none; TreeError for several."""
  for record in _RECORD.finditer(text):
    if not record[0].strip(' ,;\t"'):
      continue
    found = [delimiter for delimiter in _DELIMITERS if delimiter in re.sub(_QUOTED, "", record[0])]
    if len(found) > 1:
      line = text.count("\n", 0, record.start()) + 1
      several = " and ".join(_DELIMITERS[delimiter] for delimiter in found)
      raise TreeError(f"{path}:{line}: {several} could part the cells of the first row; quote cells that hold one")
    return found[0] if found else ","
  return ","


def named_levels(header: Sequence[str]) -> tuple[str, ...]:
  """Returns the names of the levels in a header; () where it only numbers them, as `level 1`, or leaves one out."""
  return () if not all(header) or any(_NUMBERED.fullmatch(name.lower()) for name in header) else tuple(header)


def without_blank_end(cells: list[str]) -> list[str]:
  """Returns `cells` up to the last one that is not blank."""
  end = len(cells)
  while end and not cells[end - 1]:
    end -= 1
  return cells[:end]


def read_csv(path: str | Path) -> Draft:
  """Reads a tree from a CSV file: edges where the header is `parent,child[,name]`, or else a column a level."""
  rows = read_rows(path)
  return (read_edges if _has_edge_header(rows) else read_levels)(rows, str(path))


def read_levels(rows: list[Row], file: str) -> Draft:
  """Reads a tree from rows of a column a level, the top level first; blank cells end a path early.

  The first row is a header, unless one of its cells comes again below it in the same column.
  """
  draft = Draft(file)
  width = None
  if rows and _has_level_header(rows):
    header = without_blank_end(rows[0].cells)
    width, rows = len(header), rows[1:]
    draft.level_names = named_levels(header)
  node_of: dict[tuple[int, str], int] = {}
  listed: dict[int, int] = {}
  for row in rows:
    names = without_blank_end(row.cells)
    if "" in names:
      above = names[: names.index("")]
      draft.report("blank in mid-path", row.line, names[-1], f"has a blank cell above it, after {'/'.join(above)!r}")
      continue
    if width is not None and len(names) > width:
      message = f"is in cell {len(names)} of a row, and the header has {width}; quote names that hold {row.delimiter}"
      draft.report("ragged row", row.line, names[-1], message)
      continue
    node = ROOT
    for name in names:
      key = (node, name)
      if key not in node_of:
        node_of[key] = draft.add(node, name, row.line)
      node = node_of[key]
    if listed.setdefault(node, row.line) != row.line:
      message = f"is listed twice as {'/'.join(names)!r}, first on line {listed[node]}"
      draft.report("duplicate name among siblings", row.line, names[-1], message)
  return draft


_ONE_NAME = (
  "a name is one node here: give a leaf and its parent of one name two ids, in rows `parent id,child id,name`, or "
  "write a column a level, `decapods,decapods`"
)


def read_edges(rows: list[Row], file: str) -> Draft:
  """Reads a tree from rows `parent,child` of names, or `parent,child,name` of ids and the child's name.

  A header is not needed. A blank parent marks a child as a top. Where a top is marked so, or is called `root`, a parent
  that is nobody's child is an orphan; otherwise it is the root, or one of several tops, which get a root above them.
  """
  draft = Draft(file)
  if _has_edge_header(rows):
    width, rows = len(rows[0].cells), rows[1:]
  else:
    width = 3 if rows and len(rows[0].cells) == 3 else 2
  node_of: dict[str, int] = {}
  parent_of: list[str] = []
  for row in rows:
    if len(row.cells) != width:
      message = f"is in a row of {len(row.cells)} cells, not {width}; quote names that hold {row.delimiter}"
      draft.report("ragged row", row.line, row.cells[0], message)
      continue
    parent, child = row.cells[:2]
    if not child:
      draft.report("blank in mid-path", row.line, parent, "has a child without a name")
    elif child == parent:
      draft.report("cycle", row.line, child, f"is its own parent; {_ONE_NAME}")
    elif child in node_of:
      _report_second_edge(draft, row, node_of[child], parent_of[node_of[child]])
    else:
      node_of[child] = draft.add(ROOT, row.cells[-1], row.line)
      parent_of.append(parent)
  _hang(draft, node_of, parent_of)
  if width == 3:
    draft.ids = list(node_of)
  return draft


def _report_second_edge(draft: Draft, row: Row, node: int, first_parent: str) -> None:
  parent, child = row.cells[:2]
  first = f"on line {draft.lines[node]}"
  if parent == first_parent:
    draft.report("duplicate name among siblings", row.line, child, f"stands twice below {parent!r}, first {first}")
  else:
    message = f"hangs from {parent!r} here and from {first_parent!r} {first}; a node has one parent"
    draft.report("two parents", row.line, child, message)


def _hang(draft: Draft, node_of: dict[str, int], parent_of: list[str]) -> None:
  """Links children to parents; a parent that is nobody's child becomes a top."""
  tops: dict[str, int | None] = {}
  for parent, line in zip(parent_of, draft.lines, strict=True):
    if parent and parent not in node_of:
      tops.setdefault(parent, line)
  first = next(iter(tops), None)
  root = next((top for top in tops if top.lower() == "root"), None)
  declared = root is not None or "" in parent_of
  for top, line in tops.items():
    node_of[top] = draft.add(ROOT, top, line)
    if declared and top != root:
      draft.report("orphan", line, top, "is nobody's child, so the root does not reach it; give it a parent")
    elif not declared and top != first:
      message = f"is nobody's child, nor is {first!r}; a root is made above them"
      draft.warn("orphan", line, top, message)
  for node, parent in enumerate(parent_of):
    draft.parents[node] = node_of[parent] if parent else ROOT


def _has_edge_header(rows: list[Row]) -> bool:
  return bool(rows) and [cell.lower() for cell in rows[0].cells] in _EDGE_HEADERS


def _has_level_header(rows: list[Row]) -> bool:
  first = rows[0].cells
  return not any(
    cell and any(len(row.cells) > i and row.cells[i] == cell for row in rows[1:]) for i, cell in enumerate(first)
  )
