"""A small recurrent model of label paths, as a step for the decoders and as a numpy enumeration of all its paths."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import ROOT, STOP
from random_trees import random_tree


class Scored(NamedTuple):
  path: tuple[int, ...]  # its nodes, and STOP where that is a step
  trained: tuple[float, ...]  # log-probability of each step
  shares: tuple[float, ...]  # the same among the step's continuations


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


class TableModel:
  """Logits of a step: a table by the previous node, moved by a state that remembers the nodes before."""

  def __init__(self, rng, tree, stop_at, batch=2):
    """Makes the model; with stop_at = some, paths end at leaves, and at every third node."""
    self.tree = tree = tree.with_label_ends(range(0, tree.num_nodes, 3)) if stop_at == "some" else tree
    self.arrays = tree_arrays(tree, "stop" if stop_at in ("node", "some") else "unknown")
    self.ends = {"bottom": (), "leaf": tree.leaves, "node": range(tree.num_nodes), "some": range(0, tree.num_nodes, 3)}
    self.ends = {*self.ends[stop_at], *(() if stop_at == "bottom" else tree.leaves)}
    assert self.arrays.stop_at == ("node" if stop_at == "some" else stop_at)
    shape = (tree.num_nodes + 1, self.arrays.num_outputs)
    self.table = rng.normal(size=(batch, *shape)).astype(np.float32)
    self.memory, self.pull = rng.normal(size=shape[0]), rng.normal(size=shape[1])
    self.memory, self.pull = self.memory.astype(np.float32), self.pull.astype(np.float32)

  def carry(self, k):
    return {"state": jnp.zeros((len(self.table), k))}

  def step(self, carry, previous, candidates):
    state = 0.5 * carry["state"] + jnp.asarray(self.memory)[previous + 1]
    rows = jnp.arange(len(self.table))[:, None]
    logits = jnp.asarray(self.table)[rows, previous + 1] + state[..., None] * jnp.asarray(self.pull)[None, None]
    log_prob = jax.nn.log_softmax(logits)
    return {"state": state}, log_prob if candidates is None else jnp.take_along_axis(log_prob, candidates, -1)

  def numpy_step(self, example, state, previous):
    state = 0.5 * state + self.memory[previous + 1]
    return state, log_softmax(self.table[example, previous + 1] + state * self.pull)

  def continuations(self, node):
    return [*self.tree.children(node), *[STOP] * (node in self.ends)]

  def enumerate(self, example):
    """Returns every path of the tree with its scores."""
    found = []

    def walk(node, state, path, trained, shares):
      if len(path) == self.tree.depth or path[-1:] == (STOP,):
        found.append(Scored(path, trained, shares))
        return
      state, log_prob = self.numpy_step(example, state, node)
      tokens = self.continuations(node)
      scores = log_prob[[self.tree.num_nodes if t == STOP else t for t in tokens]]
      for token, score, share in zip(tokens, scores, log_softmax(scores), strict=True):
        walk(token if token != STOP else node, state, (*path, token), (*trained, score), (*shares, share))

    walk(ROOT, np.float32(0), (), (), ())
    return found


def random_model(seed, stop_at):
  """Returns a model over a random tree of 4 levels and 10 to 30 leaves."""
  rng = np.random.default_rng(seed)
  while True:
    tree = random_tree(rng, depth=4, most_children=3, early_leaf=0.0 if stop_at == "bottom" else 0.4)
    if 10 <= len(tree.leaves) <= 30 and tree.uniform == (stop_at == "bottom"):
      return TableModel(rng, tree, stop_at)


def nodes_of(path):
  return tuple(int(node) for node in path if node >= 0)


@functools.cache
def path_probs(stop_at, views=3):
  """Returns a tree's arrays, and by view and example the probability of each path, from models of that tree."""
  first = random_model(1, stop_at)
  models = [first, *(TableModel(np.random.default_rng(seed), first.tree, stop_at) for seed in range(1, views))]
  return first.arrays, [
    [{nodes_of(s.path): np.exp(sum(s.shares)) for s in model.enumerate(example)} for example in range(len(model.table))]
    for model in models
  ]


def node_prob_of(view, arrays):
  """Returns for each example and node the sum over the paths through it."""
  found = np.zeros((len(view), arrays.num_nodes), np.float32)
  for example, probs in enumerate(view):
    for path, prob in probs.items():
      found[example, list(path)] += prob
  return found
