"""Findings of made-up predictions on trees of any size, and a page of HTML taken apart."""

import html.parser
import json

import numpy as np

from hierjax.evaluation.likely_nodes import likely_nodes
from hierjax.evaluation.metrics.measure import facts_of
from hierjax.report.page.findings.findings import About, Findings
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Prediction


def wide_tree(tops, leaves, name=lambda level, i: f"{'tb'[level]}{i}"):
  """Returns a tree of `tops` top-level nodes, each with `leaves` leaves."""
  names = [name(0, i) for i in range(tops)] + [name(1, i) for i in range(tops * leaves)]
  return LabelTree.from_children(names, [tops] + [leaves] * tops + [0] * (tops * leaves))


def made_up(tree, count=300, seed=0, pictures=16, signal=2.0, about=None, name_of=lambda row: f"photo {row}.jpg"):
  """Returns findings of random labels, and of probabilities that favour them."""
  rng, leaves = np.random.default_rng(seed), len(tree.leaves)
  true = rng.integers(0, leaves, count)
  scores = rng.normal(size=(count, leaves)).astype(np.float32)
  scores[np.arange(count), true] += signal
  near = tree.parent[tree.leaves]  # siblings are taken for each other
  scores += 1.5 * (near[None] == near[true][:, None])
  prob = np.exp(scores)
  prediction = Prediction.from_leaf_probs(prob / prob.sum(axis=1, keepdims=True), tree)
  facts = facts_of(prediction, tree.encode(tree.leaves[true]), tree)
  shades = rng.integers(0, 256, (count, 3), dtype=np.uint8)
  return Findings(
    about=about or About("made up", "the test split", "photographs", [("command", "none")]),
    facts=facts,
    shortened=facts.predictions,
    likely=likely_nodes(np.asarray(prediction.node_prob), tree),
    numbers=np.arange(count),
    name_of=name_of,
    pictures=(lambda rows: [np.full((pictures, pictures, 3), shades[row]) for row in rows]) if pictures else None,
    side=pictures,
    curves=[{"step": step, "split": "train", "loss": 3 / step} for step in range(1, 40)],
  )


class Page(html.parser.HTMLParser):
  """The tags, attributes and text of a page, and the data in it.

  Attributes:
    tags: the names of all elements.
    attributes: pairs of an element's name and its attributes.
    text: outside of styles and scripts.
    data: the JSON object.
  """

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.text, self._inside, raw = [], [], "", [], []
    self._raw = raw
    self.feed(text)
    self.data = json.loads("".join(raw))

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes.append((tag, dict(attrs)))
    self._inside = [tag, dict(attrs).get("id")] if tag in ("style", "script") else []

  def handle_endtag(self, tag):
    self._inside = []

  def handle_data(self, data):
    if self._inside == ["script", "data"]:
      self._raw.append(data)
    elif not self._inside:
      self.text += data

  def of(self, tag):
    """Returns the attributes of all elements of a name."""
    return [attributes for name, attributes in self.attributes if name == tag]
