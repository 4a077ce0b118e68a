"""Metrics that are no mean of a value an image: functions from samples of the images to a number a sample; numpy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_matrix

from hierjax.evaluation.calibration import BINS, bins_of
from hierjax.evaluation.metrics.facts import Sample, divided


def f1(sample: Sample) -> Float[np.ndarray, "k"]:
  """Returns 2 P R / (P + R) of the hierarchical precision P and recall R: 2 sum shared / sum (nodes of both)."""
  shared, said, known = sample.facts.set_sizes
  counted = sample.facts.predictions.counted
  return sample.ratio(counted * 2 * shared, counted * (said + known))


def weighted_level_accuracy(sample: Sample) -> Float[np.ndarray, "k"]:
  """Returns the mean of the raw level accuracies, weighted by the nodes of the level, over levels with labels."""
  facts = sample.facts
  accuracy = sample.mean(facts.scored.raw == facts.predictions.labels, facts.known)
  sizes = np.where(np.isnan(accuracy), 0.0, np.diff(facts.table.tree.level_offsets))
  return divided((sizes * np.nan_to_num(accuracy)).sum(axis=1), sizes.sum(axis=1))


def balanced_accuracy(sample: Sample) -> Float[np.ndarray, "k l"]:
  """Returns for each level the mean of the recalls of its nodes, over nodes with labels."""
  labels, paths = sample.facts.predictions.labels, sample.facts.predictions.paths
  found = []
  for t in range(labels.shape[1]):
    rows = np.flatnonzero(labels[:, t] >= 0)
    nodes, of = np.unique(labels[rows, t], return_inverse=True)
    shape = (len(nodes), labels.shape[0])
    member = csr_matrix((np.ones(len(rows)), (of, rows)), shape)
    right = csr_matrix(((labels[rows, t] == paths[rows, t]).astype(np.float64), (of, rows)), shape)
    recall = divided(right @ sample.weights.T, member @ sample.weights.T)
    found.append(divided(np.nansum(recall, axis=0), (~np.isnan(recall)).sum(axis=0).astype(np.float64)))
  return np.stack(found, axis=1)


def level_ece(sample: Sample) -> Float[np.ndarray, "k l"]:
  """Returns for each level sum_bins |sum (right - probability)| / nodes, over predicted nodes that the label knows."""
  errors, nodes = _calibration(sample)
  return divided(errors, nodes)


def ece(sample: Sample) -> Float[np.ndarray, "k"]:
  """Returns the same over the nodes of all levels, each level with bins of its own."""
  errors, nodes = _calibration(sample)
  return divided(errors.sum(axis=1), nodes.sum(axis=1))


def _calibration(sample: Sample) -> tuple[Float[np.ndarray, "k l"], Float[np.ndarray, "k l"]]:
  facts = sample.facts
  predictions = facts.predictions
  said = (facts.answered >= 0) & predictions.counted[:, None]
  probability = predictions.probability.astype(np.float64)
  off = np.where(said, (facts.answered == predictions.labels) - probability, 0.0)
  in_bin = bins_of(probability)[..., None] == np.arange(BINS)
  errors = [np.abs(sample.weights @ (off[:, t, None] * in_bin[:, t])).sum(axis=1) for t in range(said.shape[1])]
  return np.stack(errors, axis=1), sample.weights @ said.astype(np.float64)


def aurc(sample: Sample) -> Float[np.ndarray, "k"]:
  """Returns the mean over k of the share of wrong paths among the k most confident ones.

  Of paths of equal confidence, the mean over their orders: with C paths and E errors before a group of w paths with e
  errors, its part of the sum is E (H(C + w) - H(C)) + e / w (w - C (H(C + w) - H(C))), H being harmonic numbers.
  """
  facts = sample.facts
  order, starts = facts.by_confidence
  if not len(order):
    return np.full(len(sample.weights), np.nan)
  weights = sample.weights[:, order]
  sizes = np.add.reduceat(weights, starts, axis=1)
  errors = np.add.reduceat(weights * ~facts.predictions.right[order], starts, axis=1)
  before, errors_before = np.cumsum(sizes, axis=1) - sizes, np.cumsum(errors, axis=1) - errors
  harmonic = _harmonic(int(sizes.sum(axis=1).max()))
  terms = harmonic[(before + sizes).astype(np.int64)] - harmonic[before.astype(np.int64)]
  own = np.divide(errors, sizes, out=np.zeros_like(errors), where=sizes > 0) * (sizes - before * terms)
  return divided((errors_before * terms + own).sum(axis=1), sizes.sum(axis=1))


def excess_aurc(sample: Sample) -> Float[np.ndarray, "k"]:
  """Returns `aurc` less that of the best order, in which all right paths come before all wrong ones."""
  mistakes = sample.weights @ sample.facts.mistaken.astype(np.float64)
  right = sample.counted - mistakes
  harmonic = _harmonic(int(sample.counted.max(initial=0)))
  terms = harmonic[sample.counted.astype(np.int64)] - harmonic[right.astype(np.int64)]
  return aurc(sample) - divided(mistakes - right * terms, sample.counted)


def _harmonic(count: int) -> Float[np.ndarray, "k"]:
  return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, count + 1))])


def operating_area(sample: Sample) -> Float[np.ndarray, "k"]:
  """Returns the area below the operating curve.

  For each recall of information from 0 to 1 it is the share of images whose answer is not wrong, at the highest
  threshold with at least that recall; 0 beyond the largest recall.
  """
  facts = sample.facts
  ends = facts.label_ends[facts.predictions.counted]
  empty = np.zeros(len(facts.predictions.counted))
  empty[facts.predictions.counted] = facts.table.information[ends + 1] == 0  # nothing to recall: all of it is
  begin = divided(sample.weights @ empty, sample.counted)
  recall = divided(sample.curve[:, 3], sample.counted[:, None] + np.zeros_like(sample.curve[:, 3])) + begin[:, None]
  correct = 1 - divided(sample.curve[:, 1], sample.counted[:, None] + np.zeros_like(sample.curve[:, 1]))
  return begin + (np.diff(recall, axis=1, prepend=begin[:, None]) * correct).sum(axis=1)


def coverage(sample: Sample, accuracy: float) -> Float[np.ndarray, "k"]:
  """Returns the largest share of images with an answer, over the thresholds of that selective accuracy; or else 0."""
  return _largest(sample, 0, accuracy)


def information_coverage(sample: Sample, accuracy: float) -> Float[np.ndarray, "k"]:
  """Returns the largest mean information of the answers, none counting 0, over the same thresholds; or else 0."""
  return _largest(sample, 2, accuracy)


def _largest(sample: Sample, row: int, accuracy: float) -> Float[np.ndarray, "k"]:
  answers, wrong = sample.curve[:, 0], sample.curve[:, 1]
  good = (answers - wrong >= accuracy * answers - 1e-9) & (answers > 0)
  return divided(np.where(good, sample.curve[:, row], 0.0).max(axis=1, initial=0.0), sample.counted)
