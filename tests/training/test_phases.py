"""Alternating training: who trains when, what keeps its bits meanwhile, and that a run which was stopped goes on."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH

from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.checkpoint import Checkpoints
from hierjax.training.loop import run as loop
from hierjax.training.loop import steps
from hierjax.training.optim import OptimConfig, make_optimizer
from hierjax.training.phases import PhasesConfig, make_phases
from hierjax.training.schedule import RunLength

VARIABLES = {
  "params": {"backbone": {"conv": jnp.zeros(2)}, "head": {"sequence": {"u1": jnp.zeros(2)}, "output": jnp.zeros(2)}},
  "batch_stats": {"backbone": {"norm": jnp.zeros(2)}},
}


def phases(steps_per_epoch=10.0, total_steps=100, **config):
  return make_phases(PhasesConfig(**config), OptimConfig(), VARIABLES, RunLength(steps_per_epoch, total_steps))


def test_parts_take_turns_and_then_everything_trains():  # READINGS K14
  found = phases(alternate=0.5, period=2.0)
  assert [found.at(step) for step in (0, 19, 20, 39, 40, 49, 50, 99)] == [0, 0, 1, 1, 0, 0, 2, 2]
  recurrence, backbone, everything = found.all
  assert recurrence.frozen_parts == ("backbone",)
  assert recurrence.frozen_collections["batch_stats"]["backbone"]["norm"] is True
  assert backbone.frozen_parts == () and not backbone.frozen_collections["batch_stats"]["backbone"]["norm"]
  assert backbone.optimizer.frozen["head"] == {"sequence": {"u1": False}, "output": True}  # conversions belong to both
  assert not any(jax.tree.leaves(everything.optimizer.frozen))


def test_without_turns_there_is_one_phase():
  found = phases()
  assert len(found.all) == 1 and found.at(0) == found.at(99) == 0
  assert phases(alternate=1.0, period=0.01).at(99) == 1  # a turn has a step at least


def test_adam_counts_the_steps_of_each_part_by_itself():
  """The steps of a part are those of an Adam that never saw the turns in which it was frozen."""
  params = VARIABLES["params"]
  optim = OptimConfig(name="adamw", decay=((".*", 0.0),))
  config = PhasesConfig(alternate=0.5, period=1.0)  # of 40 steps, turns of 10: the head, and then the backbone
  found = make_phases(config, optim, VARIABLES, RunLength(10.0, 40))
  grads = [jax.tree.map(lambda p, t=t: jnp.full_like(p, 0.1 + np.cos(t)), params) for t in range(40)]
  state = found.all[-1].optimizer.init(params)
  alone = make_optimizer(optim, params)
  reference = {"backbone": (params, alone.init(params)), "head": (params, alone.init(params))}
  updates = [jax.jit(phase.optimizer.update) for phase in found.all]
  update_alone = jax.jit(alone.update)
  held = {0: ("backbone",), 1: ("head",), 2: ()}
  for step, grad in enumerate(grads):
    before, (params, state, _) = (params, state), updates[found.at(step)](grad, state, params, jnp.float32(0.1))
    for part, output in (("backbone", ("conv",)), ("head", ("output",))):
      if part in held[found.at(step)]:
        now, then = ([tree[part][output[0]] for tree in (p, *s[0])] for p, s in ((params, state), before))
        jax.tree.map(np.testing.assert_array_equal, now, then)
      else:
        own_params, own_state = reference[part]
        own_params, own_state, _ = update_alone(grad, own_state, own_params, jnp.float32(0.1))
        reference[part] = own_params, own_state
        np.testing.assert_allclose(params[part][output[0]], own_params[part][output[0]], rtol=1e-6)


def trained(config, workdir, monkeypatch, stop_at=None):
  """Returns the weights and statistics at each checkpoint of a run, by step."""
  found, save = {}, Checkpoints.save

  def keep(self, step, model, *rest):
    found[step] = {
      jax.tree_util.keystr(path, simple=True, separator="/"): np.array(leaf)
      for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]
    }
    save(self, step, model, *rest)
    if step == stop_at:
      raise steps.Stopped(15, step, 0)

  with monkeypatch.context() as patched:
    patched.setattr(Checkpoints, "save", keep)
    patched.setattr(devices, "data_mesh", lambda: MESH)
    if stop_at is None:
      loop.train_and_evaluate(config, str(workdir))
    else:
      with pytest.raises(steps.Stopped):
        loop.train_and_evaluate(config, str(workdir))
  return found


def test_what_is_frozen_keeps_its_bits_and_the_schedule_survives_a_stop(tmp_path, monkeypatch):
  config = importlib.import_module("configs.dhnn_cifar100").get_config("smoke,alternating").to_dict()
  config["backbone"] = {"name": "small_resnet", "widths": (4, 8), "blocks": 1}
  config["head"] |= {"layers": 1, "residual": False}
  config["tree"]["levels"] = config["decode"]["beam"] = 1
  config["data"] |= {"resize": 16, "crop": 16, "validation": 0.0, "balanced": True}
  config["phases"] |= {"alternate": 0.75, "period": 0.5}  # of 12 steps, turns of 3
  config["checkpoint_every"] = config["eval_every"] = 0.5
  whole = trained(config, tmp_path / "whole", monkeypatch)
  assert list(whole) == [3, 6, 9, 12]

  def moved(first, second, part):
    names = [name for name in whole[first] if part in name]
    assert names
    return {not np.array_equal(whole[first][name], whole[second][name]) for name in names}

  assert moved(3, 6, "params/backbone/") == moved(3, 6, "batch_stats/backbone/") == {True}
  assert moved(3, 6, "head/recurrence/") == moved(3, 6, "head/output_kernel") == {False}
  assert moved(6, 9, "params/backbone/") == moved(6, 9, "batch_stats/backbone/") == {False}
  assert moved(6, 9, "head/recurrence/") == moved(6, 9, "head/output_kernel") == {True}
  assert moved(9, 12, "params/") == moved(9, 12, "batch_stats/") == {True}

  trained(config, tmp_path / "stopped", monkeypatch, stop_at=6)
  rest = trained(config, tmp_path / "stopped", monkeypatch)
  assert list(rest) == [9, 12]
  for name, value in whole[12].items():
    np.testing.assert_array_equal(rest[12][name], value, err_msg=name)


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"alternate": 1.5}, r"config\.phases\.alternate = 1\.5: .*0 to 1"),
    ({"period": 0.0}, r"config\.phases\.period = 0\.0: must be more than 0 epochs"),
    ({"frozen": ("^backbone/",)}, r"frozen = .*: must be a tuple, each entry a tuple"),
    (
      {"alternate": 0.5, "frozen": (("^trunk/",),)},
      r"config\.phases\.frozen: '\^trunk/' .*backbone/conv",
    ),
    ({"alternate": 0.5, "frozen": (("(",),)}, r"config\.phases\.frozen: '\(' is not a valid regex"),
  ],
)
def test_refusals(config, message):
  with pytest.raises(UserError, match=message):
    phases(**config)
