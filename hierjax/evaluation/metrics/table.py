"""The table of metrics of single-path predictions, `METRICS`: name, formula, citation, direction and function.

In the formulas, n images have label paths T and predicted paths P, sets of nodes; at levels that a label does not know,
predicted nodes do not count. p(v) is the probability of a node, [c] is 1 where c holds and else 0, and "mean" is over
the images that count. h(v) is the height of a node: the edges down to the deepest leaf below it. lca is the lowest
common ancestor of the ends of P and T.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from hierjax.evaluation.metrics import statistics
from hierjax.evaluation.metrics.facts import Facts, Sample
from hierjax.evaluation.metrics.scored import TOP, ProbabilityScores, is_right

SMALLEST = float(np.finfo(np.float32).tiny)  # the probability that stands for 0 in logarithms
ACCURACIES = (90, 95, 99)  # percent, of the coverages

Values = tuple[np.ndarray, np.ndarray]


class Metric(NamedTuple):
  """One metric: an entry of `METRICS`.

  Attributes:
    title: the row of tables; for a metric by level, of which the level's name takes the place of the word `level`.
    formula: its definition.
    reference: where the definition comes from.
    values: the value of each image, and whether the image counts, of which the metric is the mean: `[n]`, or `[n l]`
      for a metric by level; None for a metric of another kind.
    statistic: from samples of the images to the metric, `[k]` or `[k l]`; None for a mean.
    unit: `share` (printed as a percentage), or the unit of a plain number.
    higher_is_better: the direction.
    needs: `nodes` for predicted nodes, `probabilities` for those of all nodes too.
    shown: whether `evaluate` prints it without `--every-metric`.
  """

  title: str
  formula: str
  reference: str
  values: Callable[[Facts], Values] | None = None
  statistic: Callable[[Sample], Float[np.ndarray, "k *l"]] | None = None
  unit: Literal["share", "edges", "height", "nats", "number"] = "share"
  higher_is_better: bool = True
  needs: Literal["nodes", "probabilities"] = "nodes"
  shown: bool = False

  def of(self, sample: Sample) -> Float[np.ndarray, "k *l"]:
    """Returns the metric of each sample of the images; nan where nothing counts."""
    if self.values is not None:
      return sample.mean(*self.values(sample.facts))
    assert self.statistic is not None
    return self.statistic(sample)


def nodes_of(facts: Facts) -> ProbabilityScores:
  """Returns what the probabilities say; a metric that needs them is left out where there are none."""
  assert facts.scored.nodes is not None
  return facts.scored.nodes


def _everywhere(facts: Facts) -> Bool[np.ndarray, "n"]:
  return np.ones(len(facts.predictions.labels), bool)


def _node_accuracy(facts: Facts) -> Values:
  right = (facts.known & (facts.predictions.paths == facts.predictions.labels)).sum(axis=1)
  return right / np.maximum(facts.known.sum(axis=1), 1), facts.predictions.counted


def _leaf_top(facts: Facts, k: int) -> Values:
  return nodes_of(facts).leaf_rank < k, facts.has_leaf


def _level_top(facts: Facts, k: int) -> Values:
  return nodes_of(facts).level_rank < k, facts.known


def _heights(facts: Facts, k: int) -> Values:
  return nodes_of(facts).heights[:, TOP.index(k)], facts.has_leaf


def _leaf_severity(facts: Facts) -> Values:
  return nodes_of(facts).heights[:, 0], facts.has_leaf & (nodes_of(facts).leaf_rank > 0)


def _precision(facts: Facts) -> Values:
  shared, said, _ = facts.set_sizes
  return shared / np.maximum(said, 1), facts.predictions.counted


def _recall(facts: Facts) -> Values:
  shared, _, known = facts.set_sizes
  return shared / np.maximum(known, 1), facts.predictions.counted


def _f1(facts: Facts) -> Values:
  shared, said, known = facts.set_sizes
  return 2 * shared / np.maximum(said + known, 1), facts.predictions.counted


def _pooled(part: int, of: int, sample: Sample) -> Float[np.ndarray, "k"]:
  sizes, counted = sample.facts.set_sizes, sample.facts.predictions.counted
  return sample.ratio(counted * sizes[part], counted * sizes[of])


def _nll(probability: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
  return -np.log(np.maximum(probability.astype(np.float64), SMALLEST))


def _brier(squares: Float[np.ndarray, "*n"], probability: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
  return squares - 2 * probability.astype(np.float64) + 1


GUO = "Guo et al. 2018"
KOO = "Koo et al. 2020; READINGS K16"
BERTINETTO = "Bertinetto et al. 2020"
KIRITCHENKO = "Kiritchenko et al. 2006"
GEIFMAN = "Geifman et al. 2019"
VALMADRE = "Valmadre 2022"
GOREN = "Goren et al. 2024"
PARK = "Park et al. 2025"
BRIER = "Brier 1950"
ECE = "Guo, Pleiss et al. 2017"

METRICS: dict[str, Metric] = {
  "path_accuracy": Metric(
    "path accuracy", "mean [P = T], and P ends where T says that the path ends", KOO,
    lambda f: (f.predictions.right, f.predictions.counted), shown=True,
  ),
  "node_accuracy": Metric("mean node accuracy", "mean |P ∩ T| / |T|", KOO, _node_accuracy, shown=True),
  "mistake_severity_edges": Metric(
    "mistake severity (edges)", "mean over wrong P of |P \\ T| + |T \\ P|",
    f"{BERTINETTO}, with edges in place of heights", lambda f: (f.edges, f.mistaken),
    unit="edges", higher_is_better=False, shown=True,
  ),
  "mistake_severity_height": Metric(
    "mistake severity (LCA height)", "mean over wrong P of h(lca)", BERTINETTO, lambda f: (f.lca_height, f.mistaken),
    unit="height", higher_is_better=False, shown=True,
  ),
  "tree_distance_edges": Metric(
    "mean tree distance (edges)", "mean |P \\ T| + |T \\ P|: (1 - path accuracy) x mistake severity (edges)",
    "Dekel et al. 2004, tree-induced error", lambda f: (f.edges, f.predictions.counted),
    unit="edges", higher_is_better=False, shown=True,
  ),
  "tree_distance_height": Metric(
    "mean tree distance (LCA height)",
    "mean h(lca), 0 for right P: (1 - path accuracy) x mistake severity (LCA height)",
    "Deng et al. 2010; Russakovsky et al. 2015", lambda f: (f.lca_height, f.predictions.counted),
    unit="height", higher_is_better=False, shown=True,
  ),
  "level_accuracy": Metric(
    "level accuracy", "for each level, mean [P's node = T's node], over T that reach the level", GUO,
    lambda f: (f.predictions.paths == f.predictions.labels, f.known), shown=True,
  ),
  "raw_level_accuracy": Metric(
    "raw level accuracy", "the same for the head's own argmax at the level", f"{GUO}; READINGS A3",
    lambda f: (f.scored.raw == f.predictions.labels, f.known), shown=True,
  ),
  "leaf_top1": Metric(
    "leaf top-1", "mean [rank of T's leaf by p < 1, and p > 0]", "Russakovsky et al. 2015",
    lambda f: _leaf_top(f, 1), needs="probabilities", shown=True,
  ),
  "leaf_top5": Metric(
    "leaf top-5", "mean [rank of T's leaf by p < 5, and p > 0]", "Russakovsky et al. 2015",
    lambda f: _leaf_top(f, 5), needs="probabilities", shown=True,
  ),
  "inconsistent_predictions": Metric(
    "inconsistent predictions", "share of images whose raw argmaxes are no path of the tree; TICE",
    f"{GUO}; READINGS G3; {PARK}", lambda f: (~f.scored.raw_is_path, _everywhere(f)), higher_is_better=False,
    shown=True,
  ),
  "exact_match": Metric(
    "exact match of raw argmaxes", "mean [raw argmaxes = T]; FPA", PARK,
    lambda f: (is_right(f.scored.raw, f.predictions.labels), f.predictions.counted), shown=True,
  ),
  "wap": Metric(
    "raw level accuracy, weighted by nodes", "sum over levels of nodes x raw level accuracy / sum of nodes; wAP", PARK,
    statistic=statistics.weighted_level_accuracy,
  ),
  "leaf_mistake_severity": Metric(
    "mistake severity of the best leaf (LCA height)",
    "mean of h(lca of the most probable leaf and T), over images where that is not T's leaf",
    BERTINETTO, _leaf_severity, unit="height", higher_is_better=False, needs="probabilities",
  ),
  **{
    f"hierarchical_distance_{k}": Metric(
      f"hierarchical distance at {k} (LCA height)",
      f"mean over images of the mean over the {k} most probable leaves of h(lca of leaf and T)"
      + ("; (1 - leaf top-1) x mistake severity of the best leaf" if k == 1 else ""),
      BERTINETTO, functools.partial(_heights, k=k), unit="height", higher_is_better=False, needs="probabilities",
    )
    for k in TOP
  },
  "hierarchical_precision": Metric(
    "hierarchical precision (micro)", "sum |P ∩ T| / sum |P|", KIRITCHENKO, statistic=functools.partial(_pooled, 0, 1),
  ),
  "hierarchical_recall": Metric(
    "hierarchical recall (micro)", "sum |P ∩ T| / sum |T|", KIRITCHENKO, statistic=functools.partial(_pooled, 0, 2),
  ),
  "hierarchical_f1": Metric(
    "hierarchical F1 (micro)", "2 sum |P ∩ T| / sum (|P| + |T|): of these two", KIRITCHENKO,
    statistic=statistics.f1, shown=True,
  ),
  "macro_hierarchical_precision": Metric(
    "hierarchical precision (macro)", "mean |P ∩ T| / |P|, 0 without P", KIRITCHENKO, _precision
  ),
  "macro_hierarchical_recall": Metric(
    "hierarchical recall (macro)", "mean |P ∩ T| / |T|; without the root the mean node accuracy", KIRITCHENKO, _recall,
  ),
  "macro_hierarchical_f1": Metric("hierarchical F1 (macro)", "mean 2 |P ∩ T| / (|P| + |T|)", KIRITCHENKO, _f1),
  **{
    f"level_top{k}": Metric(
      f"level top-{k}", f"for each level, mean [rank of T's node among its level's by p < {k}, and p > 0]",
      "Russakovsky et al. 2015", functools.partial(_level_top, k=k), needs="probabilities",
    )
    for k in (1, 5)
  },
  "level_balanced_accuracy": Metric(
    "balanced level accuracy", "for each level, mean over its nodes with labels of their recall by P",
    "Brodersen et al. 2010", statistic=statistics.balanced_accuracy,
  ),
  "leaf_nll": Metric(
    "leaf negative log-likelihood", "mean -log p(T's leaf); p is at least the smallest normal float32", "Good 1952",
    lambda f: (_nll(f.predictions.label_probability), f.has_leaf),
    unit="nats", higher_is_better=False, needs="probabilities", shown=True,
  ),
  "level_nll": Metric(
    "level negative log-likelihood", "for each level, mean -log p(T's node)", "Good 1952",
    lambda f: (_nll(nodes_of(f).label), f.known), unit="nats", higher_is_better=False, needs="probabilities",
  ),
  "brier": Metric(
    "Brier score of leaves", "mean of the sum over leaves v of (p(v) - [v in T])^2, 0 to 2", BRIER,
    lambda f: (_brier(nodes_of(f).leaf_squares, f.predictions.label_probability), f.has_leaf),
    unit="number", higher_is_better=False, needs="probabilities", shown=True,
  ),
  "level_brier": Metric(
    "level Brier score", "for each level, the same over its nodes and the leaves above it", BRIER,
    lambda f: (_brier(nodes_of(f).squares, nodes_of(f).label), f.known),
    unit="number", higher_is_better=False, needs="probabilities",
  ),
  "ece": Metric(
    "ECE", "sum over bins of |sum ([v in T] - p(v))| / nodes, over the nodes v of P, in 15 bins a level", ECE,
    statistic=statistics.ece, unit="number", higher_is_better=False, needs="probabilities", shown=True,
  ),
  "level_ece": Metric(
    "level ECE", "for each level, the same", ECE, statistic=statistics.level_ece,
    unit="number", higher_is_better=False, needs="probabilities",
  ),
  "aurc": Metric(
    "AURC", "mean over k = 1 ... n of the share of wrong P among the k of the largest p(end of P)", GEIFMAN,
    statistic=statistics.aurc, unit="number", higher_is_better=False, needs="probabilities", shown=True,
  ),
  "excess_aurc": Metric(
    "excess AURC", "AURC less that of the best order of the same paths", GEIFMAN,
    statistic=statistics.excess_aurc, unit="number", higher_is_better=False, needs="probabilities",
  ),
  "operating_area": Metric(
    "area under the operating curve",
    "integral over r = 0 ... 1 of the largest share of answers that are not wrong, over the thresholds with a mean "
    "I(lca of answer and T) / I(T) of at least r; I(v) = 1 - log(leaves below v) / log(leaves)",
    f"{VALMADRE}, AC(info)", statistic=statistics.operating_area, unit="number", needs="probabilities",
  ),
  **{
    f"coverage_{percent}": Metric(
      f"coverage at {percent}% selective accuracy",
      f"largest share of images with an answer, over the thresholds at which {percent}% of the answers are right",
      GEIFMAN, statistic=functools.partial(statistics.coverage, accuracy=percent / 100), needs="probabilities",
      shown=percent == 95,
    )
    for percent in ACCURACIES
  },
  **{
    f"information_coverage_{percent}": Metric(
      f"information-weighted coverage at {percent}%", "largest mean I(end of the answer), 0 without one, over the same",
      GOREN, statistic=functools.partial(statistics.information_coverage, accuracy=percent / 100),
      needs="probabilities",
    )
    for percent in ACCURACIES
  },
}  # fmt: skip
