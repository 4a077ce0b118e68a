r"""Times of the LSTM of a CNN-RNN head, forward and gradient, against nn.RNN and torch.nn.LSTM; prints Markdown.

  python -m benchmarks.lstm
  python -m benchmarks.lstm --nodes 1785 --rounds 5

All sides have the same weights, labels and images, and are checked for agreement: h_t is a function of the embedding of
the label before step t, of the image, and of h_{t-1}. hierjax's side is `PathRNNHead.states`. nn.RNN over
OptimizedLSTMCell and torch.nn.LSTM have one input a step, so label and image are concatenated. `torch_hoisted` is
written by hand, with the projections of labels and image outside the loop. hierjax projects each node
once: with 120 nodes, as in CIFAR-100, all occur among the labels; with 1785 random ones most; on the first steps of
paths to random leaves of the ImageNet tree of the package a sixth.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks import train_step_torch
from benchmarks.spatial import (
  Side,
  check_agreement,
  cores,
  interleaved,
  load_average,
  machine,
  table_head,
  table_row,
  torch_device,
)
from benchmarks.spatial_baselines import with_gradient
from benchmarks.spatial_torch import torch, use_threads
from hierjax.nn.heads.path_rnn import PathRNNHead
from hierjax.runs import devices
from hierjax.tree import catalog
from hierjax.types import Features

PARTS = ("y", "d images", "d embed")


class Weights:
  """The weights in hierjax's layout, gates in the order i, f, o, m; and a batch: paths, images and a cotangent."""

  def __init__(self, nodes: int | str, width: int, steps: int, batch: int):
    rng = np.random.default_rng(0)
    self.name = str(nodes)
    if isinstance(nodes, str):
      self.paths, nodes = real_paths(nodes, steps, batch, rng)
    else:
      self.paths = rng.integers(0, nodes, (batch, steps), dtype=np.int32)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    self.embed, self.bias = normal(nodes + 1, width), normal(4 * width)
    self.label, self.image, self.hidden = normal(3, width, 4 * width) / np.float32(np.sqrt(width))
    self.previous = np.pad(
      np.maximum(self.paths[:, :-1], -1) + 1, ((0, 0), (1, 0))
    )  # rows of `embed`; START is the first
    self.images, self.cotangent = normal(batch, width), normal(batch, steps, width)


def real_paths(name: str, steps: int, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
  """Returns the first steps of the paths to random leaves of a tree of the catalogue, PAD after them, and its nodes."""
  tree = catalog.load(name)
  return tree.encode(rng.choice(tree.leaves, batch))[:, :steps], tree.num_nodes


def ours(w: Weights) -> Side:
  nodes, width = len(w.embed) - 1, len(w.hidden)
  head = PathRNNHead(nodes, nodes, width=width)
  params = {
    "label": {"kernel": w.label},
    "image": {"kernel": w.image, "bias": w.bias},
    "lstm": {"hidden": {"kernel": w.hidden}},
  }

  def states(images: Any, embed: Any, params: Any) -> Any:
    variables = {"params": {"embed": {"embedding": embed}, **params}}
    return head.apply(variables, Features((), images), jnp.asarray(w.paths), method="states")

  return jax_side(states, w, params)


def flax_rnn(w: Weights) -> Side:
  width = len(w.hidden)
  rnn = nn.RNN(nn.OptimizedLSTMCell(width))
  kernels = zip("ifog", *(np.split(k, 4, axis=1) for k in (np.concatenate([w.label, w.image]), w.hidden)), strict=True)
  params: dict[str, Any] = {}
  for (gate, inputs, hidden), bias in zip(kernels, np.split(w.bias, 4), strict=True):
    params |= {f"i{gate}": {"kernel": inputs}, f"h{gate}": {"kernel": hidden, "bias": bias}}

  def states(images: Any, embed: Any, params: Any) -> Any:
    labels = embed[jnp.asarray(w.previous)]
    inputs = jnp.concatenate([labels, jnp.broadcast_to(images[:, None], labels.shape)], axis=-1)
    return rnn.apply({"params": {"cell": params}}, inputs)

  return jax_side(states, w, params)


def jax_side(states: Any, w: Weights, params: Any) -> Side:
  call = jax.jit(with_gradient(states))
  arguments = jax.tree.map(jnp.asarray, (w.cotangent, w.images, w.embed, params))
  return lambda: jax.block_until_ready(call(*arguments))


def torch_sides(w: Weights, device: str) -> dict[str, Side]:
  tensor = lambda a: torch.tensor(a, device=device)  # noqa: E731
  images, previous, cotangent = tensor(w.images).requires_grad_(), tensor(w.previous).long(), tensor(w.cotangent)
  rows, width = w.embed.shape
  lstm = torch.nn.LSTM(2 * width, width, batch_first=True, device=device)
  embed = torch.nn.Embedding(rows, width, device=device)
  by_hand = train_step_torch.path_lstm(rows, width, width).to(device)
  ifmo = lambda a: np.concatenate([np.split(a, 4, axis=-1)[n] for n in (0, 1, 3, 2)], axis=-1).T  # noqa: E731
  inputs = np.concatenate([w.label, w.image])
  values = [w.embed, ifmo(inputs), ifmo(w.hidden), ifmo(w.bias), np.zeros_like(w.bias)]
  values += [w.embed, w.label.T, w.hidden.T, w.image.T, w.bias]
  with torch.no_grad():
    for parameter, value in zip([*embed.parameters(), *lstm.parameters(), *by_hand.parameters()], values, strict=True):
      parameter.copy_(tensor(value))

  def side_by_side() -> Any:
    labels = embed(previous)
    return lstm(torch.cat([labels, images[:, None].expand_as(labels)], -1))[0]

  def side(states: Any, parameters: list[Any]) -> Side:
    def call() -> Any:
      y = states()
      gradients = torch.autograd.grad(y, [images, *parameters], cotangent)
      if device == "cuda":
        torch.cuda.synchronize()
      return y.detach(), gradients

    return call

  return {
    "torch.nn.LSTM": side(side_by_side, [*embed.parameters(), *lstm.parameters()]),
    "torch_hoisted": side(lambda: by_hand(previous, images), list(by_hand.parameters())),
  }


def row(w: Weights, device: str | None, rounds: int) -> list[str]:
  sides = {"hierjax": ours(w), "nn.RNN": flax_rnn(w)} | (torch_sides(w, device) if device else {})
  check_agreement({name: first_parts(side) for name, side in sides.items()}, 1e-3, PARTS)
  times = interleaved(sides, rounds)

  def cell_of(name: str) -> str:
    ratio = statistics.median(theirs / mine for theirs, mine in zip(times[name], times["hierjax"], strict=True))
    return f"{1e3 * statistics.median(times[name]):.1f} ({ratio:.2f})"

  return [w.name, *map(cell_of, times)]


def first_parts(side: Side) -> Side:
  def call() -> Any:
    y, gradients = side()
    return y, gradients[: len(PARTS) - 1]

  return call


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--nodes", nargs="+", type=int, default=[120, 1785], help="of trees whose labels are random")
  parser.add_argument(
    "--trees", nargs="+", default=["imagenet1k"], help="of the catalogue, with paths to random leaves"
  )
  parser.add_argument("--width", type=int, default=1000, help="of the state, the embedding and the image's features")
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument("--batch", type=int, default=256)
  parser.add_argument("--rounds", type=int, default=10)
  args = parser.parse_args()
  devices.keep_memory()
  print(f"{machine()}; {load_average()} at the start\n")
  print(f"float32, width {args.width}, {args.steps} steps, batch {args.batch}, {args.rounds} rounds\n")
  device = torch_device()
  if device:
    print(use_threads(cores(), "float32") + "\n")
  print("Milliseconds of all states and all gradients: the median, and in brackets how many times hierjax's.\n")
  names = ["hierjax", "nn.RNN", *(("torch.nn.LSTM", "torch_hoisted") if device else ())]
  print(table_head(["nodes or tree", *names]), flush=True)
  for nodes in (*args.nodes, *args.trees):
    print(table_row(row(Weights(nodes, args.width, args.steps, args.batch), device, args.rounds)), flush=True)
  print(f"\n{load_average()} at the end")


if __name__ == "__main__":
  main()
