"""The kinds of the values in eval/SPLIT.json: a file that has others is damaged, and is made anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NUMBER = (int, float, type(None))
_KINDS = {"split": str, "step": int, "views": int, "num_examples": int, "known_levels": int}
_LISTS = {"level_names": str, "level_sizes": int, "further_metrics": str}
_ROWS: dict[str, dict[str, Any]] = {
  "examples": {"image": str, "label": str, "predicted": str},
  "lowest_recall": {"class": str, "images": int, "recall": _NUMBER, "precision": _NUMBER},
  "confusions": {"label": str, "predicted": str, "images": int, "share": _NUMBER},
  "members": {},
  "ensembles": {},
}


def is_evaluation(found: Mapping[str, Any]) -> bool:
  """Returns whether values are of the kinds that `evaluate` writes.

  Metrics are numbers, None where nothing counts, or lists of one a level. Their intervals are pairs of numbers.
  """
  lengths = {len(value) for key, value in found.items() if _by_level(key) and isinstance(value, list)}
  further = found.get("further_metrics", [])  # a config's own, whose names say nothing
  if not _has_its_kind("further_metrics", further):
    return False
  kinds = (_are_numbers(value) if key in further else _has_its_kind(key, value) for key, value in found.items())
  if len(lengths) > 1 or not all(kinds):
    return False
  levels = max(lengths, default=0)
  fits = all(len(ends) == levels for key, ends in found.get("intervals", {}).items() if _by_level(key))
  named = all(name in found for name in further)
  return (
    fits and named and found.get("known_levels", 0) <= levels and ("lowest_recall" in found) <= ("confusions" in found)
  )


def is_of_images(value: Any) -> bool:
  """Returns whether a value says which images numbers are of, as `Run.images_of` does."""
  return isinstance(value, dict) and {str} == set(map(type, [value.get("checksum"), *value.values()]))


def _by_level(key: str) -> bool:
  return "level_" in key[:10]


def _has_its_kind(key: str, value: Any) -> bool:
  if key in _KINDS:
    return type(value) is _KINDS[key]
  if key == "data":
    return is_of_images(value)
  if key == "intervals":
    return isinstance(value, dict) and all(_are_ends(name, ends) for name, ends in value.items())
  if key == "purpose":
    return isinstance(value, dict) and all(v is None or type(v) in (int, str) for v in value.values())
  if key in _LISTS:
    return isinstance(value, list) and all(type(one) is _LISTS[key] for one in value)
  if key in _ROWS:
    return isinstance(value, list) and all(_is_row(row, _ROWS[key]) for row in value)
  if _by_level(key) or key == "thresholds":
    return isinstance(value, list) and all(type(one) in _NUMBER for one in value)
  return type(value) in _NUMBER


def _are_numbers(value: Any) -> bool:
  return all(type(one) in _NUMBER for one in (value if isinstance(value, list) else [value]))


def _is_row(row: Any, kinds: Mapping[str, Any]) -> bool:
  if not isinstance(row, dict) or not kinds.keys() <= row.keys():
    return False
  return all(type(row[key]) in (kind if isinstance(kind, tuple) else (kind,)) for key, kind in kinds.items())


def _are_ends(name: str, value: Any) -> bool:
  if _by_level(name):
    return isinstance(value, list) and all(map(_is_pair, value))
  return _is_pair(value)


def _is_pair(value: Any) -> bool:
  return value is None or (isinstance(value, list) and [type(end) in (int, float) for end in value] == [True, True])
