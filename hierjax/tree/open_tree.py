"""Label trees by name or path: a tree of the catalogue, a folder, a CSV or JSON file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from hierjax.errors import did_you_mean
from hierjax.tree import catalog
from hierjax.tree.builders import build
from hierjax.tree.draft import Draft
from hierjax.tree.label_tree import LabelTree, TreeError
from hierjax.tree.readers.folders import read_images_folder
from hierjax.tree.readers.label_files import holds_labels, read_labels
from hierjax.tree.readers.nested_json import read_nested
from hierjax.tree.readers.tables import read_csv, read_edges, read_levels, read_rows, read_text

_SAVED = re.compile(r'\s*\{\s*"format"\s*:\s*"hierjax tree')


def _read_json(path: str) -> Draft:
  text = read_text(path)
  return _read_saved(path) if _SAVED.match(text) else read_nested(text, path)


def _read_saved(path: str) -> Draft:
  return Draft.of_tree(LabelTree.load(path), path)


def _read_table(path: str) -> Draft:
  return read_labels(path) if holds_labels(read_rows(path)) else read_csv(path)


_READERS: dict[str, Callable[[str], Draft]] = {
  "catalog": catalog.read,
  "folder": read_images_folder,
  "levels": lambda path: read_levels(read_rows(path), path),
  "edges": lambda path: read_edges(read_rows(path), path),
  "labels": read_labels,
  "nested": lambda path: read_nested(read_text(path), path),
  "saved": _read_saved,
}
_SUFFIXES: dict[str, Callable[[str], Draft]] = {".csv": _read_table, ".json": _read_json, ".tsv": _read_table}
FORMATS = ("auto", *_READERS)


def open_draft(source: str | Path, format: str = "auto") -> Draft:
  """Reads a tree without building it, so that it can be linted; see `open_tree`."""
  source = str(source)
  if format == "auto":
    return _reader(source)(source)
  if format not in _READERS:
    raise TreeError(f"format = {format!r}: choose from {', '.join(FORMATS)}")
  return _READERS[format](source)


def own_labels(source: str | Path, format: str = "auto") -> str | None:
  """Returns `source` where that is a CSV file of images and labels, whose tree `open_tree` returns; else None."""
  source = str(source)
  if format == "auto" and Path(source).is_file() and _reader(source) is _read_table and holds_labels(read_rows(source)):
    return source
  return source if format == "labels" else None


def open_tree(source: str | Path, format: str = "auto") -> LabelTree:
  """Returns the tree that `source` names.

  Args:
    source: the name of a tree of the catalogue, or the path of a folder, a CSV file or a JSON file. Of a folder whose
      folders are splits, such as `train` and `test`, `train` is the tree.
    format: `auto` decides by the name, and by the start of the file: a CSV file whose header is `parent,child` or
      `parent,child,name` holds `edges`, one whose first column has images `labels`, whose tree it is, and another one
      `levels`; a JSON file is `saved` by `LabelTree.to_json`, or else
      `nested`.

  Raises:
    TreeError: there is no such tree, or it is invalid; a `FaultyTree` lists every error.
  """
  return build(open_draft(source, format))


def _reader(source: str) -> Callable[[str], Draft]:
  path = Path(source)
  if source in catalog.names():
    return catalog.read
  if path.is_dir():
    return read_images_folder
  if not path.exists():
    names, hint = ", ".join(catalog.names()), did_you_mean(source, catalog.names())
    raise TreeError(f"{source}: there is no such file or folder, nor such a tree in the catalogue ({names}){hint}")
  if path.suffix.lower() not in _SUFFIXES:
    raise TreeError(f"{source}: a tree is a folder or a file that ends in {' or '.join(_SUFFIXES)}")
  return _SUFFIXES[path.suffix.lower()]
