import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.functional.metrics import Mean, evaluate_batch
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.tree.label_tree import PAD, STOP, UNKNOWN
from hierjax.types import Batch, Prediction
from random_trees import random_tree


def edges(tree, label, path):
  """Returns the edges between two ends, by the way up; below a label of which no more is known nothing counts."""
  unknown = label.index(UNKNOWN) if UNKNOWN in label else len(label)
  ends = [max([-1, *(node for node in nodes[:unknown] if node >= 0)]) for nodes in (label, path)]
  above = [[end] for end in ends]
  for way in above:
    while way[-1] >= 0:
      way.append(int(tree.parent[way[-1]]))
  common = next(node for node in above[0] if node in above[1])
  return above[0].index(common) + above[1].index(common)


def oracle(tree, label, path, level_nodes, node_prob):
  """Returns the metrics of one example that count it, in plain Python."""
  known = [(t, y) for t, y in enumerate(label) if y >= 0]
  out = {"raw_leave_rate": not tree.is_path(level_nodes)}
  if known:
    right = [path[t] == y for t, y in known]
    ended = all(path[t] < 0 for t, y in enumerate(label) if y == STOP)
    out |= {"path_accuracy": all(right) and ended, "node_accuracy": sum(right) / len(right)}
    if not (all(right) and ended):
      out["mistake_distance"] = edges(tree, label, path)
    out |= {f"level{t}": level_nodes[t] == y for t, y in known}
  if known and tree.is_leaf(known[-1][1]):
    ranking = sorted((leaf for leaf in tree.leaves.tolist() if node_prob[leaf] > 0), key=lambda i: (-node_prob[i], i))
    out |= {f"leaf_top{k}": known[-1][1] in ranking[:k] for k in (1, 5)}
  return out


@pytest.mark.parametrize("short_labels", ["unknown", "stop"])
def test_metrics_are_those_of_plain_python(rng, short_labels):
  tree = random_tree(rng, depth=3, most_children=3)
  b = 300
  labels = tree.encode(rng.integers(-1, tree.num_nodes, size=b), short_labels)
  near = np.where(rng.random(b) < 0.5, tree.ends(labels), rng.integers(0, tree.num_nodes, size=b)).astype(np.int32)
  paths = np.maximum(tree.encode(np.maximum(near, 0), "stop"), STOP)
  paths = np.where(paths >= 0, paths, PAD)
  level_nodes = np.where(rng.random(paths.shape) < 0.2, rng.integers(PAD, tree.num_nodes, size=paths.shape), paths)
  node_prob = rng.integers(0, 4, size=(b, tree.num_nodes)) / 4  # with ties and zeros
  mask = (rng.random(b) < 0.8).astype(np.float32)
  totals: dict[str, list[float]] = {}
  for i in np.flatnonzero(mask):
    arguments = labels[i].tolist(), paths[i].tolist(), level_nodes[i].tolist(), node_prob[i].tolist()
    for name, value in oracle(tree, *arguments).items():
      totals.setdefault(name, []).append(float(value))

  prediction = Prediction(
    paths=jnp.asarray(paths[:, None]), log_prob=jnp.zeros((b, 1)), stop_prob=jnp.ones((b, 1)),
    node_prob=jnp.asarray(node_prob.astype(np.float32)), level_nodes=jnp.asarray(level_nodes.astype(np.int32)),
    level_prob=None,
  )  # fmt: skip
  batch = Batch(inputs=jnp.zeros((b, 1)), paths=jnp.asarray(labels[:, None]), mask=jnp.asarray(mask))
  half = [jax.tree.map(lambda x, s=s: x[s], (prediction, batch)) for s in (slice(0, 150), slice(150, b))]
  step = jax.jit(evaluate_batch)
  parts = [step(*h, tree_arrays(tree, short_labels)) for h in half]
  found = {name: mean.value() for name, mean in jax.tree.map(jnp.add, *parts).items()}
  levels = found.pop("level_accuracy")
  found |= {f"level{t}": value for t, value in enumerate(levels)}
  assert set(found) == set(totals)
  for name, values in totals.items():
    assert 0 < np.mean(values) < (6 if name == "mistake_distance" else 1), name
    np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-5, err_msg=name)


def test_a_mean_is_divided_once_and_padding_is_not_counted():
  a = Mean.of(jnp.array([1.0, 0.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0]))
  b = Mean.of(jnp.array([1.0]), jnp.array([1.0]))
  assert (a + b).value() == pytest.approx(2 / 3)
  assert np.isnan(Mean.of(jnp.ones(1), jnp.zeros(1)).value())
