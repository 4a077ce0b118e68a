"""Training steps of every head and neck in a layout of four devices: of this process, or of two that have joined.

As a program, of two processes: `layouts.py ADDRESS,2,I CASE ...` prints the losses of cases, a JSON object a line.
"""

import json
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from initial_weights import initial_weights

from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs import devices
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.sharding import ShardingConfig, layout_of
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step
from hierjax.tree.label_tree import LabelTree
from hierjax.types import Batch, Examples

HEADS = {
  "flat": {},
  "flat_ends": {},
  "sibling_softmax": {},
  "multilabel": {},
  "coarse_fine": {"strategy": "coarse_to_fine"},
  "path_rnn": {"width": 8},
  "path_rnn_siblings": {"name": "path_rnn", "width": 8, "softmax": "siblings"},
  "dhnn_rnn": {"width": 8, "size": 16, "layers": 2},
  "dhnn_s2s": {"width": 8, "size": 16, "cell": "gru"},
  "dhnn_s2s_labels": {"name": "dhnn_s2s", "width": 8, "size": 16, "feedback": "labels"},
}
CONTEXT = {"name": "context", "cell": "lstm", "scales": (1, 2), "hidden": (8,), "dropout": 0.0}
CASES = {name: {"head": {"name": name, **fields}} for name, fields in HEADS.items()} | {
  "context neck": {"head": {"name": "flat"}, "neck": CONTEXT},
  "merged": {"head": {"name": "coarse_fine"}, "merged": {"shared": 2}},
}
WHOLE = ShardingConfig()
PARTS = ShardingConfig(rules=(("^head/", "nodes"), (".*", "fsdp")), model=2, least=1)
FSDP = ShardingConfig(rules=((".*", "fsdp"),), least=1)
STEPS = 20
ON_VECTORS = ("flat_ends", "coarse_fine", "path_rnn")  # without a backbone's weights, which the other cases divide


def tree_of(case):
  """Returns the tree of a case: of 9 nodes where all paths must be of one length, and else of 7."""
  if case["head"]["name"] != "dhnn_rnn":
    return toy_tree()
  return LabelTree.from_children(
    ["animal", "thing", "dog", "cat", "cup", "basenji", "leonberg", "tabby", "mug"], [2, 2, 1, 2, 1, 1, 0, 0, 0, 0]
  )


def toy_tree():
  """Returns the tree of the fixture of this name: 7 nodes, which two devices cannot share evenly, and 4 leaves."""
  return LabelTree.from_children(
    ["animal", "thing", "dog", "cat", "cup", "basenji", "leonberg"], [2, 2, 1, 2, 0, 0, 0, 0]
  )


def batch_of(tree, rows=slice(None)):
  """Returns rows of a batch of 8 images of 8 x 8 pixels."""
  rng = np.random.default_rng(0)
  paths = tree.encode(rng.choice(tree.leaves, size=(8, 1)))
  images = rng.normal(size=(8, 8, 8, 3)).astype(np.float32)
  examples = Examples(images, paths, np.ones(8, np.float32), np.zeros((8, 2), np.int32))
  return jax.tree.map(lambda x: x[rows], examples)


def started(case, sharding, rows=slice(None), **optim):
  """Returns the train step, its arguments, and the layout."""
  tree = tree_of(case)
  config = OptimConfig(**{"lr": 0.05, "name": "sgd", **optim})
  widths = (4, 8, 8) if case["head"]["name"] == "dhnn_rnn" else (4, 8)  # a stage a level
  backbone, examples = {"name": "small_resnet", "widths": widths, "blocks": 1}, batch_of(tree, rows)
  if case["head"]["name"] in ON_VECTORS and "merged" not in case:
    backbone = {"name": "features", "width": 24}
    examples = examples.replace(images=examples.images[:, 0].reshape(-1, 24))
  method = make_method(ModelConfig(backbone, **case), tree_arrays(tree))
  batch = devices.put_batch(examples, sharding.mesh())

  def variables():
    inputs = jnp.zeros((1, *examples.images.shape[1:]))
    return method.module.init(jax.random.key(0), inputs, jnp.zeros((1, 1, tree.depth), jnp.int32))

  shapes = jax.eval_shape(variables)
  optimizer = make_optimizer(config, shapes["params"])
  layout = layout_of(sharding, method, shapes, optimizer, sharding.mesh())
  settings = StepSettings(
    lambda step: jnp.float32(config.lr),
    lambda examples, key, tree: Batch(examples.images, examples.paths, examples.mask),
    jax.random.key(1),
    config.accumulate,
    layout=layout,
  )
  step = jax.jit(make_train_step(Phase(optimizer), settings), donate_argnums=1, out_shardings=layout.of_step)
  make = jax.jit(lambda given: init_state(given, optimizer), out_shardings=layout.state)
  return step, (layout.reading(method), make(initial_weights(shapes)), batch), layout


class Trained(NamedTuple):
  """Losses, the state after them, the layout, and the compiled step."""

  losses: list
  state: Any
  layout: Any
  step: Any


def trained(case, sharding, steps=STEPS, rows=slice(None), **optim):
  """Returns what some steps give; the batch is the same in each."""
  step, (method, state, batch), layout = started(case, sharding, rows, **optim)
  compiled = step.lower(method, state, batch).compile() if steps else None
  losses = []
  for _ in range(steps):
    state, metrics = compiled(method, state, batch)
    losses.append(float(metrics["loss"]))
  return Trained(losses, state, layout, compiled)


def main():
  devices.join(sys.argv[1])
  rows = slice(4 * jax.process_index(), 4 * jax.process_index() + 4)
  over_processes = ShardingConfig(rules=(("^head/", "nodes"), (".*", "fsdp")), model=4, least=1)
  for name in sys.argv[2:]:
    case = CASES[name]
    sharding = over_processes if name in ("flat", "multilabel") else PARTS
    found = trained(case, sharding, rows=rows)
    whole = devices.fetched(found.state.params)
    total = sum(float(np.abs(x).sum()) for x in jax.tree.leaves(whole))
    print(json.dumps({"case": name, "losses": found.losses, "weights": total}), flush=True)


if __name__ == "__main__":
  main()
