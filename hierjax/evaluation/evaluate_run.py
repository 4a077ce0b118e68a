"""A run's weights measured on a split of its images: what training ends with, and `evaluate` of one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from hierjax.data.open_source import Opened
from hierjax.data.source import Source
from hierjax.errors import UserError
from hierjax.evaluation.runner import eval_step, evaluate
from hierjax.evaluation.thresholds import options_with_thresholds, predicts_several
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run, asked_split

_SHOWN = 4


def _examples(run: Run, source: Source, answers: Mapping[int, Int[np.ndarray, "k l"]]) -> list[dict[str, str]]:
  """Returns images of a split by name, what they are labelled, and the paths that are predicted."""
  return [
    {
      "image": source.describe(number),
      "label": "; ".join(run.tree.path_text(node) for node in source.nodes[number].tolist() if node >= 0),
      "predicted": "; ".join(run.tree.nodes_text(path[path >= 0].tolist()) for path in paths if path[0] >= 0),
    }
    for number, paths in answers.items()
  ]


def evaluate_run(
  folder: RunFolder,
  mesh: Mesh,
  split: str = "",
  data_root: str = "",
  views: int = 0,
  known_levels: int = 0,
  opened: Opened | None = None,
) -> dict[str, Any]:
  """Measures a run's weights on a split, writes eval/SPLIT.json, and returns what it holds.

  With known levels the file is eval/SPLIT-knownN.json, and says so.

  Args:
    folder: the run's.
    mesh: the devices to use.
    split: `train`, `validation` or `test`; '' for test, or validation where the set has no test split.
    data_root: where the data set is now; '' for where the config says.
    views: of each image that are averaged, 1 or 10; 0 for what the config says.
    known_levels: the upper levels of each label that the decoder is given; see `make_eval_step`.
    opened: `Run.opened` of a run on the same set; None to open the set anew.

  Raises:
    UserError: the folder or the data cannot be used, or there is no such split, or no level would be left to predict.
  """
  run = Run.from_folder(folder, data_root, views)
  run = dataclasses.replace(run, opened=opened or run.opened)
  if not 0 <= known_levels < run.tree.depth:
    raise UserError(
      f"--known-levels {known_levels}: give 0 to {run.tree.depth - 1}; the lowest of the tree's {run.tree.depth} "
      "levels is to be predicted"
    )
  if known_levels and predicts_several(run):
    raise UserError(
      f"--known-levels {known_levels}: the head of this run predicts several paths an image, and none of them is the "
      "one whose upper levels could be given; evaluate without"
    )
  name, source = asked_split(run, split)
  at_step, variables = run.restored_variables(folder, mesh)
  run = dataclasses.replace(run, options=options_with_thresholds(run, folder, at_step, variables, mesh))
  step = eval_step(run.data.transform, run.options, known_levels=known_levels)
  alone = jax.process_count() == 1
  shown = set(np.linspace(0, len(source) - 1, _SHOWN).astype(int).tolist() if alone else ())
  metrics, answers = evaluate(step, run.method, variables, run.eval_batches(source), mesh, shown)
  found = {
    "split": name,
    "step": at_step,
    "views": run.options.views,
    **({"known_levels": known_levels} if known_levels else {}),
    **({"thresholds": list(run.options.thresholds)} if "path_f1" in metrics else {}),
    "level_sizes": np.diff(run.tree.level_offsets).tolist(),
    **metrics,
  }
  if alone:
    found["examples"] = _examples(run, source, answers)
  if jax.process_index() == 0:
    folder.write_evaluation(f"{name}-known{known_levels}" if known_levels else name, found)
  return found
