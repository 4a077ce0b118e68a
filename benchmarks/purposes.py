r"""What answers for a purpose gain: the mean costs of a run's answers by decoding rule; prints Markdown.

  python -m benchmarks.purposes --run runs/quickstart --split test --restricted

The first table has the mean over all images of each cost, by rule. An expected cost is as right as the probabilities
are, which have the temperature of the run. The second has the accuracy of the nodes of each level, of the best path and
of the rule `level`. With --restricted, a line about half of the leaves, drawn at random:
the path accuracy of images of these, by the best path of all and by the best that ends at one of them.
"""

from __future__ import annotations

import argparse
import datetime
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hierjax.evaluation.answers import Rows, fold, prediction_of
from hierjax.evaluation.predictions import Predictions, compared, predict_split
from hierjax.functional.costs import COSTS
from hierjax.functional.decoding import decode
from hierjax.functional.paths import single_path
from hierjax.functional.tree_arrays import TreeArrays, heights, tree_arrays
from hierjax.inference.members import Answered, Ensemble, open_ensemble, open_images
from hierjax.inference.pipeline import Stages
from hierjax.inference.purpose import Purpose
from hierjax.runs.devices import data_mesh
from hierjax.tree.label_tree import LabelTree
from hierjax.types import DecodeOptions, Distribution


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


class Probabilities(NamedTuple):
  """The predictions of the best path, and the probability of every node, `f32[n n]`."""

  best: Predictions
  node_prob: np.ndarray


def probabilities(ensemble: Ensemble, split: str) -> Probabilities:
  """Returns them for the images of a split, in one pass over them."""
  tree, stages = ensemble.whole.run.method.tree, Stages(ensemble.whole.run.options)
  images = open_images(ensemble, split)

  def rows(answered: Answered) -> Probabilities:
    found = prediction_of(answered, stages, tree)
    return Probabilities(compared(found, single_path(answered.labels), answered.mask), found.node_prob)

  table = Rows(jax.jit(rows))
  fold(ensemble, images, table)
  return Probabilities(*table.values(len(images.source)))


def decoded(found: Probabilities, options: DecodeOptions, tree: TreeArrays) -> Predictions:
  """Returns the predictions by a rule that reads node probabilities alone, beside the labels."""
  paths = jax.jit(decode, static_argnums=2)(Distribution(jnp.asarray(found.node_prob)), tree, options).paths[:, 0]
  return found.best.replace(paths=np.asarray(paths))  # type: ignore[attr-defined,no-any-return]


def main(args: argparse.Namespace) -> None:
  """Prints the tables."""
  ensemble = open_ensemble([args.run], data_mesh(), "", 0)
  tree, arrays = ensemble.tree, ensemble.whole.run.method.tree
  found = probabilities(ensemble, args.split)
  best = found.best
  print(f"{datetime.date.today()}; {len(best.labels):,} images of {args.split} of {args.run}")
  print("\n| decoding rule | edges | height | hF0.5 | hF1 | hF2 | answered |\n|---|---|---|---|---|---|---|")
  for rule in ("beam", *COSTS):
    row = best if rule == "beam" else decoded(found, DecodeOptions(rule=rule), arrays)
    values = mean_costs(row, tree)
    cells = [f"{values[name]:.3f}" for name in COSTS]
    print(f"| `{rule}` | {' | '.join(cells)} | {values['answered']:.1%} |")
  print("\n| level | best path | rule `level` |\n|---|---|---|")
  for level, name in enumerate(tree.named_levels):
    known = best.counted & (best.labels[:, level] >= 0)
    rows = (best, decoded(found, DecodeOptions(rule="level", level=level + 1), arrays))
    print(f"| {name} | {' | '.join(f'{(x.paths == x.labels)[known, level].mean():.2%}' for x in rows)} |")
  if args.restricted:
    restricted_to_half(ensemble, best, args)


def restricted_to_half(ensemble: Ensemble, best: Predictions, args: argparse.Namespace) -> None:
  """Prints the path accuracy of the images of half of the leaves, with and without a restriction to these."""
  tree = ensemble.tree
  half = np.random.default_rng(args.seed).choice(tree.leaves, len(tree.leaves) // 2, replace=False)
  among = best.counted & np.isin(best.labels.max(axis=1), half)
  only = Purpose(only=tuple(tree.path_text(leaf) for leaf in half.tolist())).nodes(tree)
  found = predict_split(ensemble, open_images(ensemble, args.split), Stages(ensemble.whole.run.options, only=only))
  print(f"\n{among.sum():,} images of half of the leaves: path accuracy {best.right[among].mean():.2%}, and "
        f"{found.right[among].mean():.2%} restricted to these leaves")  # fmt: skip


def arguments() -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
  parser.add_argument("--run", required=True, help="a run's folder")
  parser.add_argument("--split", default="test")
  parser.add_argument("--restricted", action="store_true", help="print the restriction to half of the leaves, too")
  parser.add_argument("--seed", type=int, default=0)
  return parser.parse_args()


if __name__ == "__main__":
  main(arguments())
