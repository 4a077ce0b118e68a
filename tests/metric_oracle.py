"""Metrics in plain Python, image by image, by their definitions: sets of nodes, walks up the tree, sorted lists."""

import functools
import math

import numpy as np

from hierjax.evaluation.metrics.facts import Facts
from hierjax.evaluation.metrics.scored import score
from hierjax.evaluation.metrics.tree_table import TreeTable
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import Prediction
from random_trees import random_tree

BINS = 15


class Image:
  """One image: what its label and its path are, as sets and walks."""

  def __init__(self, tree, label, path, raw, node_prob):
    self.tree, self.label, self.path, self.raw, self.p = tree, label, path, raw, node_prob
    self.known = [v for v in label if v >= 0]
    unknown = label.index(UNKNOWN) if UNKNOWN in label else len(label)
    self.said = [v for v in path[:unknown] if v >= 0]  # what the label does not know does not count
    self.counted = bool(self.known)
    self.end = self.known[-1] if self.known else -1
    self.has_leaf = self.counted and tree.is_leaf(self.end)
    self.right = self.agrees(path)

  def agrees(self, nodes):
    known = all(nodes[t] == v for t, v in enumerate(self.label) if v >= 0)
    return known and all(nodes[t] < 0 for t, v in enumerate(self.label) if v == STOP)


def up(tree, node):
  """Returns a node and its ancestors, the root last."""
  way = [node]
  while way[-1] >= 0:
    way.append(int(tree.parent[way[-1]]))
  return way


@functools.cache
def lca(tree, a, b):
  above = up(tree, b)
  return next(node for node in up(tree, a) if node in above)


@functools.cache
def height(tree, node):
  return max((1 + height(tree, child) for child in tree.children(node)), default=0)


@functools.cache
def leaves_below(tree, node):
  if node >= 0 and tree.is_leaf(node):
    return 1
  return sum(leaves_below(tree, child) for child in tree.children(node))


@functools.cache
def information(tree, node):
  return 1 - math.log(leaves_below(tree, node)) / math.log(len(tree.leaves))


def edges(image):
  ends = image.end, (image.said[-1] if image.said else -1)
  ways = [up(image.tree, end) for end in ends]
  common = lca(image.tree, *ends)
  return ways[0].index(common) + ways[1].index(common)


def lca_height(image):
  return 0 if image.right else height(image.tree, lca(image.tree, image.end, image.said[-1] if image.said else -1))


def ranking(image, nodes):
  return sorted(nodes, key=lambda v: (-image.p[v], v))


def found(image, nodes, node, k):
  return node in [v for v in ranking(image, nodes) if image.p[v] > 0][:k]


def level_nodes(tree, t):
  return range(tree.level_offsets[t], tree.level_offsets[t + 1])


def mean(values):
  return sum(values) / len(values) if values else None


def nll(p):
  return -math.log(max(p, float(np.finfo(np.float32).tiny)))


def by_level(images, value):
  """Returns for each level the mean of `value(image, level)` over the images whose label has it."""
  levels = range(images[0].tree.depth)
  return [mean([value(i, t) for i in images if i.label[t] >= 0]) for t in levels]


def distance_at(images, k):
  def of(image):
    best = ranking(image, image.tree.leaves.tolist())[:k]
    return mean([height(image.tree, lca(image.tree, leaf, image.end)) for leaf in best])

  return mean([of(i) for i in images if i.has_leaf])


def set_metrics(images, root):
  """Returns hierarchical precision, recall and F1, micro and then macro."""
  triples = [
    (len(set(i.known) & set(i.said)) + root, len(i.said) + root, len(i.known) + root) for i in images if i.counted
  ]
  both, said, known = (sum(column) for column in zip(*triples, strict=True))
  p, r = both / said, both / known
  of = lambda a, b: a / b if b else 0.0  # noqa: E731
  each = [(of(b, s), b / k, 2 * b / (s + k)) for b, s, k in triples]
  return [p, r, 2 * p * r / (p + r), *(mean(column) for column in zip(*each, strict=True))]


def ece(images, levels):
  bins = {}
  for image in images:
    for t in levels:
      if image.counted and image.path[t] >= 0 and image.label[t] != UNKNOWN:
        p = float(image.p[image.path[t]])
        number = next(i for i in range(BINS) if p <= (i + 1) / BINS)
        bins.setdefault((t, number), []).append((p, image.path[t] in image.known))
  count = sum(map(len, bins.values()))
  gap = lambda own: abs(mean([r for _, r in own]) - mean([p for p, _ in own]))  # noqa: E731
  return sum(len(own) * gap(own) for own in bins.values()) / count if count else None


def confidence(image):
  nodes = [v for v in image.path if v >= 0]
  return float(image.p[nodes[-1]]) if nodes else 0.0


def aurc(images, rng, orders=500):
  """Returns the mean of the area over random orders of equal confidences."""
  own = [i for i in images if i.counted]
  conf, wrong = np.array([confidence(i) for i in own]), np.array([not i.right for i in own])
  total = 0.0
  for _ in range(orders):
    order = np.lexsort((rng.random(len(own)), -conf))
    total += (np.cumsum(wrong[order]) / np.arange(1, len(own) + 1)).mean()
  return total / orders


def best_aurc(images):
  wrong = sorted(not i.right for i in images if i.counted)
  return mean([sum(wrong[: k + 1]) / (k + 1) for k in range(len(wrong))])


def answer(image, threshold):
  """Returns the nodes of the path above its first node of a probability below the threshold."""
  nodes = []
  for node in image.path:
    if node < 0 or image.p[node] < threshold:
      break
    nodes.append(node)
  return nodes


def not_wrong(image, nodes):
  unknown = image.label.index(UNKNOWN) if UNKNOWN in image.label else len(image.label)
  return set(nodes[:unknown]) <= set(image.known)


def operating_points(images):
  """Returns for each threshold: coverage, selective accuracy, information, share that is not wrong, and recall."""
  own, points = [i for i in images if i.counted], []
  for threshold in sorted({float(i.p[v]) for i in own for v in i.path if v >= 0}, reverse=True):
    answers = [answer(i, threshold) for i in own]
    given = [not_wrong(i, a) for i, a in zip(own, answers, strict=True) if a]
    correct = [not_wrong(i, a) for i, a in zip(own, answers, strict=True)]
    info = [information(i.tree, a[-1]) if a else 0.0 for i, a in zip(own, answers, strict=True)]
    recalls = list(map(recall, own, answers))
    points.append((len(given) / len(own), mean(given), mean(info), mean(correct), mean(recalls)))
  return points


def recall(image, nodes):
  whole = information(image.tree, image.end)
  unknown = image.label.index(UNKNOWN) if UNKNOWN in image.label else len(image.label)
  common = lca(image.tree, nodes[:unknown][-1] if nodes else -1, image.end)
  return information(image.tree, common) / whole if whole > 0 else 1.0


def area(images, points):
  begin = mean([float(information(i.tree, i.end) == 0) for i in images if i.counted])
  at, total = begin, begin
  for _, _, _, correct, x in points:
    total += (x - at) * correct
    at = x
  return total


def coverages(points, accuracy, which):
  fit = [point[which] for point in points if point[1] is not None and point[1] >= accuracy - 1e-12]
  return max(fit, default=0.0)


def balanced(images):
  found = []
  for t in range(images[0].tree.depth):
    nodes = sorted({i.label[t] for i in images if i.label[t] >= 0})
    recalls = [mean([i.path[t] == v for i in images if i.label[t] == v]) for v in nodes]
    found.append(mean(recalls))
  return found


def wap(images):
  tree = images[0].tree
  raw = by_level(images, lambda i, t: i.raw[t] == i.label[t])
  pairs = [(len(level_nodes(tree, t)), value) for t, value in enumerate(raw) if value is not None]
  return sum(n * value for n, value in pairs) / sum(n for n, _ in pairs)


def brier_of_level(image, t):
  tree = image.tree
  block = [*level_nodes(tree, t), *(v for v in tree.leaves.tolist() if tree.level[v] < t)]
  return sum((image.p[v] - (v == image.label[t])) ** 2 for v in block)


def metrics(images, rng, root=False):
  """Returns every metric by name."""
  tree, counted = images[0].tree, [i for i in images if i.counted]
  leaf, wrong = [i for i in images if i.has_leaf], [i for i in images if i.counted and not i.right]
  leaves, levels = tree.leaves.tolist(), range(tree.depth)
  top = lambda k: mean([found(i, leaves, i.end, k) for i in leaf])  # noqa: E731
  missed = [i for i in leaf if not found(i, leaves, i.end, 1)]
  own = lambda i: ranking(i, leaves)[0]  # noqa: E731
  names = ("hierarchical_precision", "hierarchical_recall", "hierarchical_f1")
  area_by_chance, points = aurc(images, rng), operating_points(images)
  return {
    "path_accuracy": mean([i.right for i in counted]),
    "node_accuracy": mean([mean([i.path[t] == v for t, v in enumerate(i.label) if v >= 0]) for i in counted]),
    "mistake_severity_edges": mean([edges(i) for i in wrong]),
    "mistake_severity_height": mean([lca_height(i) for i in wrong]),
    "tree_distance_edges": mean([edges(i) for i in counted]),
    "tree_distance_height": mean([lca_height(i) for i in counted]),
    "level_accuracy": by_level(images, lambda i, t: i.path[t] == i.label[t]),
    "raw_level_accuracy": by_level(images, lambda i, t: i.raw[t] == i.label[t]),
    "leaf_top1": top(1),
    "leaf_top5": top(5),
    "inconsistent_predictions": mean([not tree.is_path(i.raw) for i in images]),
    "exact_match": mean([i.agrees(i.raw) for i in counted]),
    "wap": wap(images),
    "leaf_mistake_severity": mean([height(tree, lca(tree, own(i), i.end)) for i in missed]),
    **{f"hierarchical_distance_{k}": distance_at(images, k) for k in (1, 5, 20)},
    **dict(zip([*names, *(f"macro_{name}" for name in names)], set_metrics(images, root), strict=True)),
    **{
      f"level_top{k}": by_level(images, lambda i, t, k=k: found(i, level_nodes(tree, t), i.label[t], k)) for k in (1, 5)
    },
    "level_balanced_accuracy": balanced(images),
    "leaf_nll": mean([nll(i.p[i.end]) for i in leaf]),
    "level_nll": by_level(images, lambda i, t: nll(i.p[i.label[t]])),
    "brier": mean([sum((i.p[v] - (v == i.end)) ** 2 for v in leaves) for i in leaf]),
    "level_brier": by_level(images, brier_of_level),
    "ece": ece(images, levels),
    "level_ece": [ece(images, [t]) for t in levels],
    "aurc": area_by_chance,
    "excess_aurc": area_by_chance - best_aurc(images),
    "operating_area": area(images, points),
    **{f"coverage_{a}": coverages(points, a / 100, 0) for a in (90, 95, 99)},
    **{f"information_coverage_{a}": coverages(points, a / 100, 2) for a in (90, 95, 99)},
  }


def random_predictions(rng, tree, short_labels, count):
  """Returns random predictions, with ties and zeros, whose paths are often right, and random labels."""
  labels = tree.encode(rng.integers(-1, tree.num_nodes, count), short_labels)
  leaf = rng.integers(0, 4, (count, len(tree.leaves))).astype(np.float32) ** 3
  leaf[np.arange(count), rng.integers(0, len(tree.leaves), count)] += 20
  node_prob = np.zeros((count, tree.num_nodes), np.float32)
  node_prob[:, tree.leaves] = leaf / leaf.sum(axis=1, keepdims=True)
  for node in reversed(range(tree.num_nodes)):
    if tree.parent[node] >= 0:
      node_prob[:, tree.parent[node]] += node_prob[:, node]
  ends = np.where(rng.random(count) < 0.5, np.maximum(tree.ends(labels), 0), tree.leaves[leaf.argmax(axis=1)])
  ends = np.where(rng.random(count) < 0.1, rng.integers(0, tree.num_nodes, count), ends)
  paths = tree.encode(ends, "stop")
  paths = np.where(paths >= 0, paths, PAD).astype(np.int32)
  paths[rng.random(count) < 0.05] = PAD
  raw = np.where(rng.random(paths.shape) < 0.2, rng.integers(PAD, tree.num_nodes, paths.shape), paths).astype(np.int32)
  ones = np.ones((count, 1), np.float32)
  return Prediction(paths[:, None], ones, ones, node_prob, raw), labels


def made(short_labels, seed, count=50, root=False):
  """Returns the facts about random predictions, and the images of the oracle."""
  rng = np.random.default_rng(seed)
  tree = random_tree(rng, depth=3, most_children=4)
  prediction, labels = random_predictions(rng, tree, short_labels, count)
  rows = zip(labels.tolist(), prediction.paths[:, 0].tolist(), prediction.raw_nodes.tolist(), prediction.node_prob,
             strict=True)  # fmt: skip
  images = [Image(tree, *row) for row in rows]
  return Facts(score(prediction, labels, TreeTable.of(tree)), TreeTable.of(tree), root), images
