"""The images of the page: a choice of all kinds, each with its label and the probabilities of its path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hierjax.evaluation.predictions import Predictions
from hierjax.report.page.findings.findings import Findings
from hierjax.tree.label_tree import UNKNOWN

MOST = 420  # images
_SHARES = (0.34, 0.33, 0.33)  # of right, partly right and wholly wrong ones, while there are so many


def groups_of(predictions: Predictions) -> np.ndarray:
  """Returns `i64[n]`, the number of each image's group in `Predictions.groups`; -1 where its label is not known."""
  masks = np.stack(list(predictions.groups.values()))
  return np.where(masks.any(axis=0), masks.argmax(axis=0), -1)


def chosen(found: Findings, most: int = MOST) -> list[int]:
  """Returns rows of images of every group, so that each label has some before any has many.

  Within a label and a group they are in random order, so that what is shown is typical.
  """
  groups, ends, rng = groups_of(found.predictions), found.facts.label_ends, np.random.default_rng(0)
  by_group = []
  for group in range(len(_SHARES)):
    rows = rng.permutation(np.flatnonzero(groups == group))
    by_group.append(rows[np.lexsort((np.arange(len(rows)), _turns(ends[rows])))])
  room = [min(len(rows), int(share * most)) for rows, share in zip(by_group, _SHARES, strict=True)]
  for group, rows in enumerate(by_group):  # what one group leaves free is for the others
    room[group] += min(len(rows) - room[group], most - sum(room))
  kept = [rows[:count] for rows, count in zip(by_group, room, strict=True)]
  place = np.concatenate([(np.arange(len(rows)) + 0.5) / max(len(rows), 1) for rows in kept])
  return np.concatenate(kept)[np.argsort(place, kind="stable")].tolist()  # groups in turn: pictures may not have room


def _turns(values: np.ndarray) -> np.ndarray:
  """Returns how often each value has come before."""
  order = np.argsort(values, kind="stable")
  turns = np.empty(len(values), np.int64)
  turns[order] = np.arange(len(values)) - np.searchsorted(values[order], values[order])
  return turns


def image_data(found: Findings, rows: Sequence[int], pictures: Sequence[int]) -> list[list[Any]]:
  """Returns an entry an image.

  It has the name; the group; the node where the label ends, and 1 where all below it is unknown, else 0; the
  probability of that node; the number of its picture, -1 for none; the last node of the path and the probabilities of
  its nodes; and, where a threshold shortens another path, that path's last node and probabilities.
  """
  predictions, groups = found.predictions, groups_of(found.predictions)
  data = []
  for row, picture in zip(rows, pictures, strict=True):
    label = int(found.facts.label_ends[row])
    open_end = int((predictions.labels[row] == UNKNOWN).any())
    path, other = _path(predictions, row), _path(found.shortened, row)
    about = [found.name_of(row), int(groups[row]), label, open_end]
    data.append(
      [*about, round(float(predictions.label_probability[row]), 5), picture, *path, *([] if path == other else other)]
    )
  return data


def _path(predictions: Predictions, row: int) -> list[Any]:
  """Returns the last node of a path, -1 for none, and the probabilities of its nodes."""
  nodes = predictions.paths[row] >= 0
  return [int(predictions.ends[row]), [round(p, 5) for p in predictions.probability[row][nodes].tolist()]]
