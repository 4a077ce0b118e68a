"""Metrics that are no mean of a value an image: functions from samples of the images to a number a sample; numpy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from hierjax.evaluation.calibration import BINS
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
  found = []
  for right, member in sample.facts.node_members:
    images = member @ sample.weights.T
    recall = np.divide(right @ sample.weights.T, images, out=np.zeros_like(images), where=images > 0)
    found.append(divided(recall.sum(axis=0), (images > 0).sum(axis=0).astype(np.float64)))
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
  off, said = sample.facts.errors_by_bin
  sums = (off @ sample.weights.T).T.reshape(len(sample.weights), -1, BINS)
  return np.abs(sums).sum(axis=2), sample.weights @ said


def aurc(sample: Sample) -> Float[np.ndarray, "k"]:
  """Returns the mean over k of the share of wrong paths among the k most confident ones.

  Of paths of equal confidence, the mean over their orders: with C paths and E errors before a group of w paths with e
  errors, its part of the sum is E (H(C + w) - H(C)) + e / w (w - C (H(C + w) - H(C))), H being harmonic numbers.
  """
  sizes, errors = sample.by_confidence
  through, errors_before = np.cumsum(sizes, axis=1), np.cumsum(errors, axis=1) - errors
  harmonic = _harmonic(int(sample.counted.max(initial=0)))[through.astype(np.int64)]
  terms = np.diff(harmonic, axis=1, prepend=0.0)
  own = np.divide(errors, sizes, out=np.zeros_like(errors), where=sizes > 0) * (sizes - (through - sizes) * terms)
  return divided((errors_before * terms + own).sum(axis=1), sample.counted)


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
