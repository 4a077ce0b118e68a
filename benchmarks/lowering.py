r"""Lowering of every config's train step and predict for GPUs and TPUs, without any, and what a device would need.

  python -m benchmarks.lowering
  python -m benchmarks.lowering --configs chrnn_imagenet dhnn_openimages:vgg16 --devices 8 256 --platforms tpu

A step is traced on an abstract mesh of so many devices, with the state whole on each and the batch split over them, and
lowered to StableHLO for each platform; nothing is compiled. The table has, for a device:

- the images of its part of the batch: an eighth of the config's, rounded up, for any number of devices;
- GFLOP of a step: twice the multiplications of all convolutions and matrix products, forward and backward, each step of
  a recurrence counted, and products of weights alone, which every device makes; other arithmetic is not;
- MiB of the weights, and of the whole state: weights, statistics and the optimiser's;
- MiB of activations: what the forward pass keeps for the backward pass, of the images alone. A compiler may keep less.

Configs whose trees or backbones come from files stand with a tree of eight nodes, and EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from hierjax.config import unpack
from hierjax.nn.registry import PRETRAINED
from hierjax.runs.run import Run
from hierjax.training.optim import OptimConfig
from hierjax.training.phases import PhasesConfig, make_phases
from hierjax.training.schedule import RunLength
from hierjax.training.sections import resolved
from hierjax.training.state import TrainState, init_state
from hierjax.training.step import StepSettings, TrainStep, make_train_step
from hierjax.tree.builders import from_paths
from hierjax.types import Examples, Features

PLATFORMS = ("cuda", "tpu")
PART = 8  # a device has this part of a config's batch
LARGE = 256  # devices, of the configs of IMAGENET
CONFIGS = tuple(
  sorted(
    p.stem for p in (Path(__file__).parents[1] / "configs").glob("*.py") if p.stem not in ("chrnn", "common", "dhnn")
  )
)
IMAGENET = ("chrnn_imagenet", "cnnrnn_imagenet", "cnnrnn_imagenet:images", "cnnrnn_imagenet2010")

_TREE = [("animal", "dog", "basenji"), ("animal", "cat", "tabby"), ("thing", "cup", "mug")]
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Step:
  """A config's train step, and what a device needs for it.

  Attributes:
    images: of a batch on a device.
    flop: of a step on a device.
    weights: their number.
    weight_bytes: of the weights.
    state_bytes: of the whole state.
    activation_bytes: kept by the forward pass on a device.
    texts: the StableHLO of the train step and of predict by platform.
  """

  images: int
  flop: float
  weights: int
  weight_bytes: int
  state_bytes: int
  activation_bytes: int
  texts: Mapping[str, tuple[str, str]]


def run_of(spec: str) -> Run:
  """Returns the run of a config `NAME:VARIANT`, without its data and weights."""
  name, _, variant = spec.partition(":")
  config = importlib.import_module(f"configs.{name}").get_config(variant).to_dict()
  if config["backbone"]["name"] == PRETRAINED:
    known = dict(size=0, crop=224, resize=256, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
    others = {"backbone": {"name": "efficientnet_lite0"}, "data": config["data"] | known}
    config = resolved(config | others | {"init": config["init"] | {"weights": ""}})
  return Run.from_config(config, from_paths(_TREE) if config["tree"]["source"] == "images" else None)


def lowered(run: Run, devices: int, platforms: Iterable[str] = PLATFORMS) -> Step:
  """Returns a run's train step on an abstract mesh; raises what lowering raises."""
  mesh = AbstractMesh((devices,), ("data",))
  whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
  images = -(-run.config.batch_size // PART)
  step, state = step_of(run)

  def placed(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  method = placed(run.method, whole)
  train = jax.jit(step, donate_argnums=1, out_shardings=whole)
  traced = train.trace(method, placed(state, whole), placed(examples_of(run, images * devices), rows))
  flop = flop_of(traced.jaxpr.jaxpr)
  fixed = 2 * flop - flop_of_step(run, 2 * images * devices)  # of weights alone, on every device

  def predict(method: Any, variables: Any, examples: Examples) -> Any:
    return method.predict(variables, run.preprocess(examples).inputs, None, run.options)

  predicting = jax.jit(predict).trace(
    method, placed(variables_of(run), whole), placed(examples_of(run, images * devices, kept=False), rows)
  )
  texts = {p: tuple(t.lower(lowering_platforms=(p,)).as_text() for t in (traced, predicting)) for p in platforms}
  return Step(
    images,
    fixed + (flop - fixed) / devices,
    sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    _bytes(state.params),
    _bytes(state),
    images * (kept_bytes(run, 2) - kept_bytes(run, 1)),
    texts,
  )


def variables_of(run: Run) -> Any:
  """Returns the shapes of a run's variables."""
  return jax.eval_shape(lambda: run.init_variables(jax.random.key(0), run.example_shape))


def step_of(run: Run) -> tuple[TrainStep, TrainState]:
  """Returns a run's train step, that of its last phase, and the shapes of its state."""
  shapes = variables_of(run)
  optim = unpack(OptimConfig, run.config.optim, "optim")
  phases = make_phases(unpack(PhasesConfig, run.config.phases, "phases"), optim, shapes, RunLength(10.0, 100))
  phase = phases.all[-1]
  state = jax.eval_shape(lambda variables: init_state(variables, phase.optimizer), shapes)
  settings = StepSettings(lambda step: jnp.float32(0.1), run.augment, jax.random.key(1), optim.accumulate)
  return make_train_step(phase, settings), state


def flop_of_step(run: Run, images: int) -> float:
  """Returns the FLOP of a train step of so many images on one device, traced and not compiled; see `flop_of`."""
  step, state = step_of(run)
  return flop_of(jax.make_jaxpr(step)(run.method, state, examples_of(run, images)).jaxpr)


def examples_of(run: Run, count: int, kept: bool = True) -> Examples:
  """Returns the shapes of a batch as a loader yields it; `kept`: features of a frozen backbone, where it keeps them."""
  if len(run.example_shape) == 1:
    images = jax.ShapeDtypeStruct((count, *run.example_shape), jnp.float32)
  elif kept and run.config.frozen["keep"]:
    width = features_of(run).pooled.shape[1]
    images = jax.ShapeDtypeStruct((count, run.config.frozen["views"] + 1, width), jnp.float32)
  else:
    side = run.data.resize
    images = jax.ShapeDtypeStruct((count, side, side, len(run.data.mean)), jnp.uint8)
  pairs = jax.ShapeDtypeStruct((count, 2), jnp.int32)
  paths = jax.ShapeDtypeStruct((count, 1, run.tree.depth), jnp.int32)
  extents = pairs if run.data.keeps_extents and images.ndim == 4 else None
  return Examples(images, paths, jax.ShapeDtypeStruct((count,), jnp.float32), pairs, extents)


def features_of(run: Run) -> Features:
  """Returns the shapes of the features of one image."""
  module, shapes = run.method.module, variables_of(run)
  image = jax.ShapeDtypeStruct((1, *run.example_shape), jnp.float32)
  found: Features = jax.eval_shape(lambda v, x: module.apply(v, x, method="backbone_features"), shapes, image)
  return found


def kept_bytes(run: Run, count: int) -> int:
  """Returns the bytes that the forward pass of so many images keeps for the backward pass."""
  collections = dict(variables_of(run))
  params = collections.pop("params")
  paths = jax.ShapeDtypeStruct((count, 1, run.tree.depth), jnp.int32)
  inputs: Any = jax.ShapeDtypeStruct((count, *run.example_shape), jnp.float32)
  if run.config.frozen["keep"]:
    width = features_of(run).pooled.shape[1]
    inputs = Features((), jax.ShapeDtypeStruct((count, width), jnp.float32))

  def pullback(params: Any, collections: Any, inputs: Any, paths: Any) -> Any:
    def loss(params: Any) -> Any:
      rngs = {"dropout": jax.random.key(0)}
      outputs, _ = run.method.module.apply(
        {"params": params, **collections}, inputs, paths, train=True, rngs=rngs, mutable=list(collections)
      )
      return run.method.loss(outputs, paths).sum()

    return jax.vjp(loss, params)[1]

  return _bytes(jax.eval_shape(pullback, params, collections, inputs, paths))


def _bytes(tree: Any) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if hasattr(leaf.dtype, "itemsize"))


def flop_of(jaxpr: Jaxpr) -> float:
  """Returns twice the multiplications of the convolutions and matrix products, those of a scan as often as it runs.

  Of the branches of a choice, which is one by platform, the largest counts.
  """
  total = 0.0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
      (contracted, _), _ = params["dimension_numbers"]
      left = equation.invars[0].aval.shape
      total += 2.0 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
    elif name == "conv_general_dilated":
      kernel, spec = equation.invars[1].aval, params["dimension_numbers"].rhs_spec
      taps = math.prod(kernel.shape[axis] for axis in spec[1:])
      total += 2.0 * equation.outvars[0].aval.size * taps / math.prod(params["lhs_dilation"])
    elif name == "cond":
      total += max(flop_of(branch.jaxpr) for branch in params["branches"])
    else:
      inner = sum(flop_of(part) for part in _jaxprs_in(params.values()))
      total += inner * (params["length"] if name == "scan" else 1)
  return total


def _jaxprs_in(values: Iterable[Any]) -> Iterable[Jaxpr]:
  for value in values:
    if isinstance(value, ClosedJaxpr):
      yield value.jaxpr
    elif isinstance(value, Jaxpr):
      yield value
    elif isinstance(value, tuple | list):
      yield from _jaxprs_in(value)


def sizes_of(spec: str) -> tuple[int, ...]:
  """Returns the numbers of devices of a config."""
  return (PART, LARGE) if spec in IMAGENET else (PART,)


def row(spec: str, devices: int, step: Step) -> str:
  """Returns a row of the table."""
  size = (f"{number / _MIB:,.1f}" for number in (step.weight_bytes, step.state_bytes, step.activation_bytes))
  numbers = (f"{devices}", f"{step.images}", f"{step.flop / 1e9:,.2f}", f"{step.weights:,}", *size)
  return f"| `{spec}` | {' | '.join(numbers)} |"


HEAD = (
  "| config | devices | images a device | GFLOP a device | weights | weights, MiB | state, MiB | activations, MiB |\n"
  "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--configs", nargs="+", default=[*CONFIGS, "cnnrnn_imagenet:images"], metavar="NAME:VARIANT")
  parser.add_argument("--devices", nargs="+", type=int, default=[])
  parser.add_argument("--platforms", nargs="+", default=PLATFORMS, choices=PLATFORMS)
  args = parser.parse_args()
  print(f"jax {jax.__version__}, lowered for {' and '.join(args.platforms)}\n\n{HEAD}", flush=True)
  failed = 0
  for spec in args.configs:
    run = run_of(spec)
    for devices in args.devices or sizes_of(spec):
      try:
        print(row(spec, devices, lowered(run, devices, args.platforms)), flush=True)
      except Exception as error:  # of any layer of JAX: the table goes on, and the status says it
        failed += 1
        print(f"| `{spec}` | {devices} | {type(error).__name__}: {str(error)[:200]} |", flush=True)
  sys.exit(1 if failed else 0)


if __name__ == "__main__":
  main()
