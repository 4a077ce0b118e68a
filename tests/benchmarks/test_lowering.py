"""Every config's step lowers for GPUs and TPUs on many devices; and the sums between devices are those it needs."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.lowering import CONFIGS, IMAGENET, PLATFORMS, flop_of, kept_bytes, lowered, run_of, sizes_of
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs.devices import replicated
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import Phase
from hierjax.training.state import init_state
from hierjax.training.step import StepSettings, make_train_step
from hierjax.types import Batch, Examples

USUAL = ("quickstart", "coarse_labels_cifar100", "cnnrnn_imagenet2010")  # a few seconds of one core each
SPECS = [
  pytest.param(spec, devices, id=f"{spec}-{devices}", marks=() if spec in USUAL else pytest.mark.slow)
  for spec in dict.fromkeys((*CONFIGS, *IMAGENET))
  for devices in sizes_of(spec)
]


@pytest.mark.parametrize(("spec", "devices"), SPECS)
def test_every_step_lowers_for_gpus_and_tpus(spec, devices):
  """Those of USUAL in each run of the tests; the others, up to a minute each, are slow: on demand, by `-m slow`."""
  step = lowered(run_of(spec), devices)
  assert set(step.texts) == set(PLATFORMS) and step.flop > 0 and step.activation_bytes > 0
  for train, predict in step.texts.values():
    for text in (train, predict):
      assert f"num_partitions = {devices}" in text and f'<["data"={devices}]>' in text
      assert '[{"data"}, ' in text  # the batch is split
    assert "tf.aliasing_output" in train or "jax.buffer_donor" in train  # the state is donated


def test_the_flop_are_those_of_the_products():
  x, w = jnp.ones((4, 5)), jnp.ones((5, 5))

  def loop(x, w):
    return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, None, length=7)[0]

  assert flop_of(jax.make_jaxpr(loop)(x, w).jaxpr) == 7 * 2 * 4 * 5 * 5
  backward = jax.make_jaxpr(jax.grad(lambda w: loop(x, w).sum()))(w)
  assert flop_of(backward.jaxpr) == 3 * 7 * 2 * 4 * 5 * 5  # forward, and products for the state and for the weights

  images, kernel = jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 3, 4))

  def convolved(kernel, images):
    return jax.lax.conv_general_dilated(
      images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )

  once = 2 * (2 * 4 * 4 * 4) * (3 * 3 * 3)  # each of the outputs reads 3 x 3 x 3 numbers
  assert flop_of(jax.make_jaxpr(convolved)(kernel, images).jaxpr) == once
  branches = jax.make_jaxpr(lambda i, x: jax.lax.switch(i, [lambda x: x @ w, lambda x: (x @ w) @ w], x))(0, x)
  assert flop_of(branches.jaxpr) == 2 * 2 * 4 * 5 * 5


def test_what_a_device_needs_does_not_depend_on_their_number():
  """Of equal parts of a batch; products of weights alone, which CNN-RNN has, are not divided."""
  run = run_of("quickstart:smoke")
  few, many = (lowered(run, devices, ()) for devices in (8, 64))
  assert few.flop == pytest.approx(many.flop) and few.images == many.images
  assert few.activation_bytes == many.activation_bytes


def test_activations_grow_with_the_images_alone():
  run = run_of("quickstart:smoke")
  one, two, five = (kept_bytes(run, count) for count in (1, 2, 5))
  assert two > one and five - two == 3 * (two - one)


def all_reduced(text):
  """Returns the numbers of elements of each result of an all-reduce in compiled HLO."""
  found = []
  for line in text.splitlines():
    if match := re.search(r"= (.*?) all-reduce(?:-start)?\(", line):
      found += [math.prod(map(int, filter(None, sizes.split(",")))) for sizes in re.findall(r"\[([\d,]*)\]", match[1])]
  return found


@pytest.mark.parametrize("norm", [False, True])
def test_each_weights_gradient_is_summed_over_the_devices_once(toy_tree, norm):
  """Of four devices: all-reduces sum the weights' gradients, the norms' statistics, and a few numbers more."""
  tree = tree_arrays(toy_tree)
  backbone = {"name": "small_resnet", "widths": (4,), "blocks": 1} if norm else {"name": "vgg16", "width": 1}
  size = 8 if norm else 32
  method = make_method(ModelConfig(backbone, {"name": "flat"}), tree)
  variables = jax.eval_shape(method.module.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
  optimizer = make_optimizer(OptimConfig(decay=((".*", 0.0),)), variables["params"])
  state = jax.eval_shape(lambda v: init_state(v, optimizer), variables)
  mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
  rows = NamedSharding(mesh, PartitionSpec("data"))

  def normalised(examples, key, tree):
    return Batch(examples.images, examples.paths, examples.mask)

  def placed(tree, sharding):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  examples = Examples(
    jax.ShapeDtypeStruct((8, size, size, 3), jnp.float32),
    jax.ShapeDtypeStruct((8, 1, 3), jnp.int32),
    jax.ShapeDtypeStruct((8,), jnp.float32),
    jax.ShapeDtypeStruct((8, 2), jnp.int32),
  )
  settings = StepSettings(lambda step: jnp.float32(0.1), normalised, jax.random.key(1))
  whole = replicated(mesh)
  step = jax.jit(make_train_step(Phase(optimizer), settings), out_shardings=whole)
  text = step.lower(placed(method, whole), placed(state, whole), placed(examples, rows)).compile().as_text()
  sums = all_reduced(text)
  weights = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  statistics = sum(leaf.size for leaf in jax.tree.leaves(variables.get("batch_stats", {})))
  # Mean and mean square of a norm are summed forwards. Backwards there are two sums a channel, too, some of which are
  # the gradients of scale and bias.
  assert weights + statistics <= sum(sums) <= weights + 2 * statistics + 8
  assert bool(statistics) == norm
