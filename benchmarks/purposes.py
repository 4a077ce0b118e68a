r"""What answers for a purpose gain: the mean costs of a run's answers by decoding rule; prints Markdown.

  python -m benchmarks.purposes --run runs/quickstart --split test

The first table has the mean over all images of each cost, by rule: the cost that a rule minimises in expectation should
be the smallest of its column. The second has the accuracy of the nodes of each level, of the best path and of the rule
`level`. The third is about half of the leaves, drawn at random: the path accuracy of images of these, by the best path
of all and by the best that ends at one of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime

import jax
import numpy as np

from hierjax.evaluation.predictions import Predictions, predict_split
from hierjax.functional.costs import COSTS
from hierjax.functional.tree_arrays import heights, tree_arrays
from hierjax.inference.members import open_ensemble, open_images
from hierjax.inference.pipeline import Stages
from hierjax.runs.devices import data_mesh
from hierjax.tree.label_tree import LabelTree


def mean_costs(found: Predictions, tree: LabelTree) -> dict[str, float]:
  """Returns the mean of each cost over the images, from their label paths and their answers."""
  labels, paths = (x[found.counted] for x in (found.labels, found.paths))
  shared = np.logical_and.accumulate((labels == paths) & (paths >= 0), axis=1).sum(axis=1)
  known, named = (labels >= 0).sum(axis=1), (paths >= 0).sum(axis=1)
  above = np.where(shared > 0, np.take_along_axis(labels, np.maximum(shared - 1, 0)[:, None], axis=1)[:, 0], -1)
  height = np.asarray(jax.jit(heights)(tree_arrays(tree)))[above + 1]
  costs = {"edges": known + named - 2.0 * shared, "height": np.where(known + named == 2 * shared, 0.0, height)}
  for name in COSTS.keys() - costs.keys():
    beta = float(name.removeprefix("hf"))
    costs[name] = (1 + beta**2) * shared / np.maximum(beta**2 * known + named, 1)
  return {name: float(costs[name].mean()) for name in COSTS} | {"answered": float((named > 0).mean())}


def main(args: argparse.Namespace) -> None:
  """Prints the tables."""
  ensemble = open_ensemble([args.run], data_mesh(), "", 0)
  images, tree, options = open_images(ensemble, args.split), ensemble.tree, ensemble.whole.run.options

  def predicted(only: tuple[int, ...] | None = None, **fields: object) -> Predictions:
    return predict_split(ensemble, images, Stages(dataclasses.replace(options, **fields), only=only))

  print(f"{datetime.date.today()}; {len(images.source):,} images of {images.split} of {args.run}, seed {args.seed}\n")
  best = predicted()
  print("| decoding rule | edges | height | hF0.5 | hF1 | hF2 | answered |\n|---|---|---|---|---|---|---|")
  for rule in ("beam", *COSTS):
    values = mean_costs(best if rule == "beam" else predicted(rule=rule), tree)
    cells = [f"{values[name]:.3f}" for name in COSTS]
    print(f"| `{rule}` | {' | '.join(cells)} | {values['answered']:.1%} |")
  print("\n| level | best path | rule `level` |\n|---|---|---|")
  for level, name in enumerate(tree.named_levels):
    rows = [x for x in (best, predicted(rule="level", level=level + 1))]
    known = best.counted & (best.labels[:, level] >= 0)
    cells = [f"{(x.paths == x.labels)[known, level].mean():.2%}" for x in rows]
    print(f"| {name} | {' | '.join(cells)} |")
  half = np.random.default_rng(args.seed).choice(tree.leaves, len(tree.leaves) // 2, replace=False)
  among = best.counted & np.isin(best.labels.max(axis=1), half)
  restricted = predicted(only=tuple(sorted(half.tolist())))
  print(f"\n{among.sum():,} images of half of the leaves: path accuracy {best.right[among].mean():.2%}, and "
        f"{restricted.right[among].mean():.2%} restricted to these leaves")  # fmt: skip


def arguments() -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
  parser.add_argument("--run", required=True, help="a run's folder")
  parser.add_argument("--split", default="test")
  parser.add_argument("--seed", type=int, default=0)
  return parser.parse_args()


if __name__ == "__main__":
  main(arguments())
