"""Choices: values that were chosen on images with labels, with what they were chosen for; choices.json of a run folder.

One record type holds all of them: the temperature, the alpha of classifier adaptation, the confidence threshold
(`threshold` by a sweep, `certified` by a certificate), and the thresholds of a multi-label head.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hierjax.config import read_json
from hierjax.errors import UserError
from hierjax.runs.folder import RunFolder, write_whole

FILE = "choices.json"
_REMEDY = "remove it, and choose again with `hierjax evaluate`"
KINDS = ("temperature", "alpha", "threshold", "certified", "thresholds")


@dataclasses.dataclass(frozen=True)
class Choice:
  """A value chosen on validation, or on calibration images.

  Attributes:
    kind: one of KINDS.
    value: a number, or several for `thresholds`.
    made_for: the conditions under which it holds, as plain data: runs and steps, views, alpha.
    about: how it was chosen, as plain data: the split, its number of images and their checksum, the criterion.
  """

  kind: str
  value: float | Sequence[float]
  made_for: Mapping[str, Any]
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Chosen(NamedTuple):
  """A number that was chosen, and why choices.json does not keep it; '' where it does."""

  value: float
  refused: str


def read_choices(folder: RunFolder) -> list[Choice]:
  """Returns the choices that a folder keeps; none where it has no choices.json.

  Raises:
    UserError: the file is damaged.
  """
  path = folder.path / FILE
  try:
    found = read_json(path, "a file of choices")
  except FileNotFoundError:
    return []
  except UserError as error:
    raise UserError(f"{error}; {_REMEDY}") from None
  rows = found.get("choices") if set(found) == {"choices"} else None
  if not isinstance(rows, list) or not all(map(_is_choice, rows)):
    raise UserError(f"{path} is damaged: it holds no choices; {_REMEDY}")
  return [Choice(**row) for row in rows]


def _is_choice(row: Any) -> bool:
  """Returns whether plain data are the fields of a Choice."""
  if not isinstance(row, dict) or set(row) != {field.name for field in dataclasses.fields(Choice)}:
    return False
  values = row["value"] if row["kind"] == "thresholds" else [row["value"]]
  numbers = isinstance(values, list) and bool(values) and all(type(v) in (int, float) for v in values)
  return row["kind"] in KINDS and numbers and all(isinstance(row[name], dict) for name in ("made_for", "about"))


def keep_choice(folder: RunFolder, choice: Choice) -> str:
  """Writes a choice to choices.json, in place of one of the same kind under the same conditions.

  Returns:
    '', or why it is not kept: it was made on other images than those of the run. A command that answers for new
    photographs does not see the images of a choice, so none but the run's own may be found there.
  """
  found, made_for = read_choices(folder), _plain(choice.made_for)
  replaced = [c for c in found if (c.kind, c.made_for) == (choice.kind, made_for)]
  before = [str(c.about["checksum"]) for c in replaced if "checksum" in c.about]
  split, checksum = choice.about.get("split", ""), choice.about.get("checksum", "")
  if checksum and folder.suffix_of(split, checksum, "".join(before[:1])):
    return f"not kept in {folder.path / FILE}, whose choices are of other {split} images"
  rows = [dataclasses.asdict(c) for c in (*(c for c in found if c not in replaced), choice)]
  write_whole(folder.path / FILE, json.dumps({"choices": rows}, indent=2) + "\n")
  return ""


def find_choice(folder: RunFolder, kind: str, made_for: Mapping[str, Any]) -> Choice | None:
  """Returns the choice of a kind that holds under these conditions; None where there is none."""
  conditions = _plain(made_for)
  return next((c for c in read_choices(folder) if (c.kind, c.made_for) == (kind, conditions)), None)


def keep_temperature(folder: RunFolder, step: int, temperature: float, about: Mapping[str, Any]) -> None:
  """Writes the temperature of the weights of a step to choices.json."""
  keep_choice(folder, Choice("temperature", temperature, {"step": step}, about))


def kept_temperatures(folder: RunFolder) -> dict[int, float]:
  """Returns the temperatures that were fitted, by the step of the weights."""
  found = (choice for choice in read_choices(folder) if choice.kind == "temperature")
  return {choice.made_for["step"]: float(choice.value) for choice in found}  # type: ignore[arg-type]


def chosen_value(folder: RunFolder, kind: str, made_for: Mapping[str, Any]) -> float:
  """Returns the value for `--KIND chosen`.

  Raises:
    UserError: nothing of this kind was chosen, or only under other conditions.
  """
  found = find_choice(folder, kind, made_for)
  again = f"`hierjax evaluate ... --{kind} sweep` chooses it on validation"
  if found is not None:
    assert isinstance(found.value, float | int)
    return float(found.value)
  if any(c.kind == kind for c in read_choices(folder)):
    raise UserError(
      f"--{kind} chosen: {folder.path / FILE} has a choice for other runs, weights, views or alpha; {again} again"
    )
  raise UserError(f"--{kind} chosen: {folder.path / FILE} has none; {again}")


def certified_threshold(folder: RunFolder, made_for: Mapping[str, Any]) -> float:
  """Returns the value for `--threshold certified`.

  Raises:
    UserError: nothing was certified, or only under other conditions.
  """
  found = find_choice(folder, "certified", made_for)
  again = "`hierjax evaluate ... --certify 0.95` looks for one"
  if found is None:
    others = any(choice.kind == "certified" for choice in read_choices(folder))
    what = "a certificate for other runs, weights, views or alpha" if others else "no certificate"
    raise UserError(f"--threshold certified: {folder.path / FILE} has {what}; {again}")
  if found.about.get("certified") is None:
    raise UserError(
      f"--threshold certified: {folder.path / FILE} says that nothing could be certified; {again}: ask for less, or "
      "with more calibration images"
    )
  assert isinstance(found.value, float | int)
  return float(found.value)


def run_identity(out: RunFolder, runs: Sequence[tuple[RunFolder, int]]) -> list[dict[str, Any]]:
  """Returns runs by their relative paths from a folder, so that all may be moved together, with their steps; sorted."""
  found = [{"run": Path(os.path.relpath(folder.path, out.path)).as_posix(), "step": step} for folder, step in runs]
  return sorted(found, key=lambda part: part["run"])


def _plain(value: Mapping[str, Any]) -> Any:
  return json.loads(json.dumps(value))
