r"""Times of CNN-RNN's decoding over a small and a large tree of the same depth and largest fan-out; prints Markdown.

  python -m benchmarks.decoding
  python -m benchmarks.decoding --width 1000 --softmax siblings --beams 5 --rounds 30

The trees have three levels: 64 + 449 + 1,347 = 1,860 nodes, and 64 + 4,096 + 95,840 = 100,000. The nodes of a level are
divided evenly among the nodes above, so in both trees the largest fan-out is 64, the root's. The benchmark times the
paths, their log-probabilities and the stop probabilities of random features. It does not time node probabilities, an
output of size `b n`. Both trees run alternately, one round after another. So does the output layer over all nodes with
its logsumexp, the part whose cost grows with the tree under the paper's softmax. On two cores it takes about 4 minutes.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.spatial import Side, interleaved, load_average, machine, table_head, table_row
from hierjax.functional.decoding import decode
from hierjax.functional.tree_arrays import TreeArrays, tree_arrays
from hierjax.nn.heads.path_rnn import PathRNNHead
from hierjax.tree.label_tree import LabelTree
from hierjax.types import DecodeOptions, Features

LEVELS = ((64, 449, 1347), (64, 4096, 95_840))
SMALL, LARGE = (f"{sum(levels):,}" for levels in LEVELS)


def even_tree(levels: tuple[int, ...]) -> TreeArrays:
  """Returns the tree with levels of these sizes, whose nodes are divided evenly among the nodes above."""
  shared = [np.full(above, size // above) + (np.arange(above) < size % above) for above, size in
            zip((1, *levels[:-1]), levels, strict=True)]  # fmt: skip
  counts = np.concatenate([*shared, np.zeros(levels[-1], np.int64)])
  return jax.tree.map(jnp.asarray, tree_arrays(LabelTree.from_children([str(i) for i in range(sum(levels))], counts)))


@functools.partial(jax.jit, static_argnums=0)
def paths_of(head: PathRNNHead, variables: Any, features: Features, tree: TreeArrays, options: DecodeOptions) -> Any:
  distribution: Any = head.apply(variables, features, None, tree, options, method="distribution")
  found = decode(distribution, tree, options)
  return found.paths, found.log_prob, found.stop_prob


@jax.jit
def output_layer(output: Any, states: jax.Array) -> jax.Array:
  """Returns the mass of all outputs for each state of each step, `f32[l b k]`."""
  return jax.lax.map(lambda h: jax.nn.logsumexp(h @ output["kernel"] + output["bias"], axis=-1), states)


def sides(softmax: str, beam: int, levels: tuple[int, ...], args: argparse.Namespace) -> tuple[Side, Side | None]:
  """Returns decoding, and the output layer alone where all nodes are in it."""
  tree = even_tree(levels)
  head = PathRNNHead(tree.num_nodes, tree.num_outputs, width=args.width, softmax=softmax)
  features = Features((), jax.random.normal(jax.random.key(1), (args.images, args.width)))
  variables = jax.jit(head.init)(jax.random.key(0), features)
  variables = jax.tree.map(lambda x: 3 * x, variables)  # images then have different paths
  decoding = lambda: jax.block_until_ready(paths_of(head, variables, features, tree, DecodeOptions(beam=beam)))  # noqa: E731
  if softmax == "siblings":
    return decoding, None
  states = jax.random.normal(jax.random.key(2), (tree.depth, args.images, beam, args.width))
  return decoding, lambda: output_layer(variables["params"]["output"], states).block_until_ready()


def measure(softmax: str, beam: int, args: argparse.Namespace) -> list[str]:
  """Returns a row of the table."""
  by_tree = {name: sides(softmax, beam, levels, args) for name, levels in zip((SMALL, LARGE), LEVELS, strict=True)}
  everything = {name: decoding for name, (decoding, _) in by_tree.items()}
  everything |= {f"output {name}": output for name, (_, output) in by_tree.items() if output is not None}
  times = interleaved(everything, args.rounds)
  median = {name: statistics.median(values) for name, values in times.items()}
  ratio = statistics.median(large / small for small, large in zip(times[SMALL], times[LARGE], strict=True))
  row = [softmax, str(beam), *(f"{1e3 * median[name]:.1f}" for name in (SMALL, LARGE)), f"{ratio:.2f}"]
  if softmax == "siblings":
    return [*row, "", ""]
  outputs = [(1e3 * median[f"output {name}"], median[f"output {name}"] / median[name]) for name in (SMALL, LARGE)]
  return row + [f"{milliseconds:.1f} ({100 * share:.0f}%)" for milliseconds, share in outputs]


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--softmax", nargs="+", default=["siblings", "nodes"], choices=("siblings", "nodes"))
  parser.add_argument("--beams", nargs="+", type=int, default=[5, 1])
  parser.add_argument("--images", type=int, default=256)
  parser.add_argument("--width", type=int, default=512, help="of the LSTM, the embedding and the features")
  parser.add_argument("--rounds", type=int, default=15)
  return parser.parse_args()


def main() -> None:
  args = arguments()
  jax.config.update("jax_enable_compilation_cache", False)
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"{args.images} images, width {args.width}, float32, {args.rounds} rounds; milliseconds are medians.\n")
  outputs = [f"output layer alone, {name}" for name in (SMALL, LARGE)]
  print(table_head(["softmax", "beam", f"{SMALL} nodes, ms", f"{LARGE} nodes, ms", "ratio", *outputs]), flush=True)
  for softmax in args.softmax:
    for beam in args.beams:
      print(table_row(measure(softmax, beam, args)), flush=True)
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
