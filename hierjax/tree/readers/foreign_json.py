"""Recognition of other programs' JSON files of images, with the way to a CSV file of labels."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from hierjax.tree.label_tree import TreeError

_COCO = (
  "is a COCO file. Write its labels to a CSV file `image,supercategory,category`: for each entry of `annotations`, the "
  "`file_name` of its `image_id` in `images`, and the `supercategory` and `name` of its `category_id` in `categories`"
)
_CATEGORIES = (
  "is a list of COCO categories. For a tree, write a CSV file `parent,child`: for each entry its `supercategory` and "
  "its `name`"
)
_DETECTIONS = (
  "is a file of MegaDetector or Timelapse. Its detections are boxes of animals, not labels: write a CSV file "
  "`image,label` with the `file` of each entry of `images` and the name of its best classification in "
  "`classification_categories`, or export a CSV file of labels from Timelapse"
)


def foreign_form(value: Any) -> str:
  """Returns what a JSON value of another program is, and how to convert it; "" where it is not known."""
  if isinstance(value, dict):
    pairs = value
  elif isinstance(value, list) and all(isinstance(entry, dict) for entry in value) and value:
    return _CATEGORIES if {"id", "name", "supercategory"} <= set(value[0]) else ""
  else:
    return ""
  if "detection_categories" in pairs and "images" in pairs:
    return _DETECTIONS
  if {"images", "annotations"} <= set(pairs):
    return _COCO
  categories = pairs.get("categories")
  return _CATEGORIES if isinstance(categories, list) and categories and isinstance(categories[0], dict) else ""


def check_is_no_foreign_json(text: str, file: str | Path) -> None:
  """Raises TreeError for the JSON of another program."""
  try:
    form = foreign_form(json.loads(text))
  except (ValueError, RecursionError):  # the reader of trees names the line
    return
  if form:
    raise TreeError(f"{file} {form}")


def check_is_table(path: str | Path) -> None:
  """Raises TreeError for a JSON file in the place of a CSV file of labels."""
  if Path(path).suffix.lower() not in (".json", ".jsonl"):
    return
  with contextlib.suppress(OSError, UnicodeDecodeError):
    check_is_no_foreign_json(Path(path).read_text(encoding="utf-8"), path)
  raise TreeError(f"{path}: labels are read from a CSV file with a header such as image,label; this is JSON")
