"""Weights over four devices, of this process or of two: the losses of whole weights, and what a device holds."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from compiled_programs import FLAGS
from jax.sharding import PartitionSpec
from layouts import CASES, FSDP, PARTS, WHOLE, started, toy_tree, trained

from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import ModelConfig, make_method
from hierjax.runs import devices
from hierjax.runs.checkpoint import Checkpoints, num_bytes, template
from hierjax.training import sharding
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.sharding import ShardingConfig, bytes_a_device, layout_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def whole():
  """Returns what training gives in a case, with whole weights on each of four devices."""
  found = {}

  def of(name):
    if name not in found:
      found[name] = trained(CASES[name], WHOLE)
    return found[name]

  return of


@pytest.mark.parametrize("name", CASES)
def test_divided_weights_have_the_losses_of_whole_ones(name, whole):
  losses, state, layout, _ = trained(CASES[name], PARTS)
  expected, reference, _, _ = whole(name)
  np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(jax.device_get(state.params), jax.device_get(reference.params), rtol=1e-3, atol=1e-5)
  assert losses[-1] < 0.9 * losses[0]
  divided = [leaf for leaf in jax.tree.leaves(state.params) if not leaf.sharding.is_fully_replicated]
  assert len(divided) > 0.5 * len(jax.tree.leaves(state.params))
  for tree in (state.params, state.opt_state):
    held = sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(tree))
    assert held == bytes_a_device(tree, jax.tree.map(lambda x: x.sharding, tree))
    assert held < 0.65 * num_bytes(tree)  # two devices share each; some weights are of odd sizes
  assert layout.divides


def collectives(text):
  """Returns the collectives in compiled HLO, by the computation that they are in; a branch or a loop is one."""
  found, computation = {}, ""
  for line in text.splitlines():
    if line.endswith("{") and not line.startswith(" "):
      computation = "ENTRY" if line.startswith("ENTRY") else line.split()[0]
    elif match := re.search(r" (all-reduce|all-gather|all-to-all|collective-permute)(-start)?\(", line):
      found.setdefault(computation, []).append(match[1])
  return found


@pytest.mark.parametrize("name", CASES)
def test_devices_meet_in_no_branch_and_no_loop(name, whole):
  """XLA runs a branch beside what follows it; CPU devices that enter two collectives in two orders wait for ever."""
  found = collectives(whole(name).step.as_text())
  assert set(found) == {"ENTRY"}
  if name != "path_rnn_siblings":  # whose products go over the nodes of all examples in one order
    assert set(found["ENTRY"]) == {"all-reduce"}  # so no device is sent the examples of others


def test_parts_of_a_batch_meet_in_one_loop_that_all_else_waits_for():
  """Beside it is the number of examples alone, which the loop divides by."""
  step, args, _ = started(CASES["flat"], WHOLE, accumulate=2)
  found = collectives(step.lower(*args).compile().as_text())
  assert found.pop("ENTRY") == ["all-reduce"] and len(found) == 1


def test_fsdp_leaves_a_device_a_part_of_every_weight_and_of_its_momentum(whole):
  losses, state, _, _ = trained(CASES["flat"], FSDP)
  np.testing.assert_allclose(losses, whole("flat").losses, rtol=1e-5)
  kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1]
  assert all(4 * leaf.addressable_data(0).size == leaf.size for leaf in kernels)
  (momentum,) = [part for part in jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, dict)) if part]
  assert jax.tree.map(lambda x: x.sharding.spec, momentum) == jax.tree.map(lambda x: x.sharding.spec, state.params)


def test_what_a_device_holds_is_printed_in_mib():
  assert [sharding._mib(count) for count in (0, 1_572_864, 2**40)] == ["0.0", "1.5", "1,048,576.0"]


def test_whole_weights_are_the_default_and_change_nothing(whole):
  _, state, layout, _ = whole("flat")
  assert not layout.divides and all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
  assert layout.mesh.axis_names == ("data",) and layout.in_use(state.params) is state.params


def test_parts_of_a_batch_and_adam_follow_the_layout():
  options = dict(steps=3, name="adamw", accumulate=2, lr=0.01)
  expected, one, _, _ = trained(CASES["flat"], WHOLE, **options)
  losses, two, _, _ = trained(CASES["flat"], PARTS, **options)
  np.testing.assert_allclose(losses, expected, rtol=1e-5)
  chex.assert_trees_all_close(jax.device_get(one.params), jax.device_get(two.params), rtol=1e-3, atol=1e-5)


def test_a_checkpoint_moves_between_layouts(tmp_path):
  """To the bit, from divided weights to whole ones, and back."""
  first = trained(CASES["flat"], PARTS, steps=2).state
  reference = jax.device_get((first.model, first.training))
  state = first
  for step, parts in enumerate((WHOLE, FSDP, PARTS), 2):
    checkpoints = Checkpoints(tmp_path / "checkpoints", select_best=False, create=True)
    checkpoints.save(step, state.model, state.training)
    checkpoints.wait()
    like = trained(CASES["flat"], parts, steps=0).state
    shapes = template(like, jax.tree.map(lambda x: x.sharding, like))
    model, training, _ = checkpoints.restore_latest(shapes.model, shapes.training)
    checkpoints.close()
    state = like.replace(**model, **training)
    chex.assert_trees_all_equal(jax.device_get((state.model, state.training)), reference)
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, like)


@pytest.mark.parametrize(
  "names", [("flat", "path_rnn"), pytest.param(tuple(CASES), marks=pytest.mark.slow)], ids=["two", "all"]
)
def test_two_processes_of_two_devices_have_the_same_losses(names, whole):
  """Two cases, of which `flat` is one, divide a head over the processes, the others over the devices of each."""
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{s.getsockname()[1]}"
  environment = os.environ | {
    "XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count=2",
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
  }
  command = [sys.executable, str(ROOT / "tests" / "layouts.py")]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  both = [
    subprocess.Popen([*command, f"{address},2,{i}", *names], env=environment, cwd=ROOT, **pipes) for i in range(2)
  ]
  try:
    printed, errors = zip(*(process.communicate(timeout=900) for process in both), strict=True)
  finally:
    for process in both:
      process.kill()
  assert [process.returncode for process in both] == [0, 0], errors
  first, second = ([json.loads(line) for line in text.splitlines() if line[0] == "{"] for text in printed)
  assert first == second and [found["case"] for found in first] == list(names)
  for found in first:
    losses, state, _, _ = whole(found["case"])
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-5, atol=1e-6, err_msg=found["case"])
    total = sum(float(np.abs(x).sum()) for x in jax.tree.leaves(jax.device_get(state.params)))
    np.testing.assert_allclose(found["weights"], total, rtol=1e-5)


# Rules.


@pytest.fixture
def rules():
  """Returns the specs with which the weights of a small network are kept and used, by name; words as in the config."""
  method = make_method(
    ModelConfig({"name": "features", "width": 6}, {"name": "path_rnn", "width": 4}), tree_arrays(toy_tree())
  )
  features = jax.numpy.zeros((1, 6))
  paths = jax.numpy.zeros((1, 1, 3), jax.numpy.int32)
  shapes = jax.eval_shape(lambda: method.module.init(jax.random.key(0), features, paths))
  optimizer = make_optimizer(OptimConfig(), shapes["params"])

  def rules(*given, **fields):
    config = ShardingConfig(given, **{"model": 2, "least": 1, **fields})
    layout = layout_of(config, method, shapes, optimizer, config.mesh())
    named = lambda tree: {  # noqa: E731
      jax.tree_util.keystr(path, simple=True, separator="/"): leaf.spec
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    return named(layout.kept), named(layout.used)

  return rules


def test_the_first_rule_that_is_found_counts_and_the_rest_is_whole(rules):
  kept, used = rules(("output/kernel", ("data", "model")), ("output", ("model",)), ("image/kernel", "fsdp"))
  assert kept["head/output/kernel"] == PartitionSpec("data", "model")
  assert used["head/output/kernel"] == PartitionSpec(None, "model")  # gathered over `data` alone
  assert kept["head/output/bias"] == used["head/output/bias"] == PartitionSpec("model")
  assert kept["head/image/kernel"] == PartitionSpec(None, "data")  # 6 x 16: the larger one
  assert used["head/image/kernel"] == kept["head/label/kernel"] == PartitionSpec(None, None)


def test_nodes_are_the_axes_over_the_tree(rules):
  """The outputs are 8 with STOP, which two devices share; four devices do not share the table of 8 rows unevenly."""
  kept, used = rules((".*", "nodes"), ("hidden", (None, "data")))
  assert kept["head/embed/embedding"] == used["head/embed/embedding"] == PartitionSpec("model", None)
  assert kept["head/output/kernel"] == used["head/output/kernel"] == PartitionSpec(None, "model")
  assert kept["head/lstm/hidden/kernel"] == PartitionSpec(None, "data")  # it has none: the next rule counts
  assert kept["head/image/kernel"] == PartitionSpec(None, None)


def test_few_numbers_stay_whole(rules):
  kept, _ = rules((".*", "fsdp"), least=90)
  assert kept["head/output/bias"] == PartitionSpec(None) and kept["head/output/kernel"] == PartitionSpec(None, None)
  assert kept["head/image/kernel"] == PartitionSpec(None, "data") and kept["head/label/kernel"] == PartitionSpec(
    None, None
  )


@pytest.mark.parametrize(
  ("rule", "fields", "message"),
  [
    (("^tail/", "fsdp"), {}, "config.sharding.rules: '^tail/' matches no parameter's name, such as head/"),
    (("^head/image", "nodes"), {}, "'^head/image' matches no parameter with an axis over the tree's nodes, which are"),
    (("(", "fsdp"), {}, "config.sharding.rules: '(' is not a valid regex"),
    (("output/bias", ("modle",)), {}, "'output/bias' names 'modle', and must have a tuple with data, model or None"),
    (("output", "all"), {}, "'output' names 'all', and must have"),
    (("output/kernel", ("data", "data")), {}, "'output/kernel' names an axis of the mesh twice"),
    (("output", ("model",)), {}, "names 1 axes, ('model',), and head/output/kernel has 2, of sizes [4, 8]"),
    (("image/kernel", ("model", None)), {"model": 4}, "of sizes [6, 16], over model: 6 does not divide by its 4"),
    (("output", "nodes"), {"model": 1}, "'output' divides over model, and config.sharding.model = 1"),
    (("output", "nodes"), {"model": 3}, "they make no grid of the 4 devices in use; for model, choose from 1, 2, 4"),
    (("output", "nodes"), {"data": 4}, "config.sharding.data = 4, config.sharding.model = 2: they make no grid"),
    (("output", "nodes"), {"model": 0}, "config.sharding.model = 0: must be 1 or more"),
    (("output", 3), {}, "config.sharding.rules: the axes of 'output', 3, must be a tuple"),
    (("output",), {}, "config.sharding.rules: ('output',) must be a pair of a regex and a tuple"),
  ],
)
def test_a_wrong_rule_gets_a_sentence(rules, rule, fields, message):
  with pytest.raises(UserError, match=re.escape(message)):
    rules(rule, **fields)


def test_arrays_that_one_process_has_are_fetched_as_they_are():
  tree = {"a": np.arange(3), "b": jax.numpy.ones(2)}
  chex.assert_trees_all_equal(devices.fetched(tree), {"a": np.arange(3), "b": np.ones(2, np.float32)})
