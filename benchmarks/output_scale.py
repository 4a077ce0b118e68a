r"""The training loss of a run along the scale of its logits; prints Markdown.

  python -m benchmarks.output_scale runs/quickstart --batches 40

All logits are multiplied by one number. `augmented` is the loss as training computes it: augmented images, batch
statistics and dropout; `plain` is that of the same images as they are evaluated. The excess is how much the loss at
scale 1 lies above the smallest along the line, as a share of the loss: 0 where training has found the scale. `at 1/T`
is the excess at the temperature of the run, which its answers have.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.types import Batch, Examples, Variables

SCALES = np.exp2(np.arange(-1.0, 1.51, 0.0625))


def losses(run: Run, variables: Variables, examples: Examples, augmented: bool) -> jax.Array:
  """Returns the mean loss of a batch at each of SCALES, `f32[scales]`."""
  key = jax.random.key(0)
  batch: Batch = run.augment(examples, key, run.method.tree) if augmented else run.preprocess(examples)
  found: Any = run.method.module.apply(
    variables, batch.inputs, batch.paths, augmented, rngs={"dropout": key}, mutable=["batch_stats"]
  )
  outputs = found[0]

  def at(scale: jax.Array) -> jax.Array:
    loss = run.method.loss(jax.tree.map(lambda logits: scale * logits, outputs), batch.paths)
    return (loss * batch.mask).sum() / batch.mask.sum()

  return jax.lax.map(at, jnp.asarray(SCALES, jnp.float32))


def main(args: argparse.Namespace) -> None:
  """Prints the table."""
  devices.prepare()
  mesh, folder = devices.data_mesh(), RunFolder(args.run)
  run = Run.from_folder(folder)
  _, variables = run.restored_variables(folder, mesh)
  source = run.source("train")
  assert source is not None
  of_batch = jax.jit(functools.partial(losses, run), static_argnums=2)
  print(f"{datetime.date.today()}; {args.batches} batches of train of {args.run}; T = {run.method.temperature:.3f}\n")
  print("| images | loss | smallest | at scale | excess | at 1/T |\n|---|---|---|---|---|---|")
  batches = list(itertools.islice(run.train_batches(source, 0, args.batches), args.batches))
  for augmented in (True, False):
    found = np.mean([of_batch(variables, batch, augmented) for batch in batches], axis=0)
    best = int(found.argmin())
    own, fitted = np.interp((1, 1 / float(run.method.temperature)), SCALES, found)
    print(
      f"| {'augmented' if augmented else 'plain'} | {own:.4f} | {found[best]:.4f} | {SCALES[best]:.2f} | "
      f"{own / found[best] - 1:.2%} | {fitted / found[best] - 1:.2%} |"
    )


def arguments() -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split(";")[0])
  parser.add_argument("run", help="a run's folder; a head whose outputs are logits")
  parser.add_argument("--batches", type=int, default=40)
  return parser.parse_args()


if __name__ == "__main__":
  main(arguments())
