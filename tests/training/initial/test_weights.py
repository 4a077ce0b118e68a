"""Where a new run starts: the weights of another run, but for those that are skipped."""

import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import MESH
from flax.traverse_util import flatten_dict

from configs import common
from hierjax.data.source import data_checksum
from hierjax.errors import UserError
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.initial.weights import InitConfig, matching, started
from hierjax.training.loop.run import train_and_evaluate


def variables(outputs=3, **more):
  head = {"output": {"kernel": jnp.ones((4, outputs)), "bias": jnp.zeros(outputs)}}
  return {
    "params": {"backbone": {"conv": {"kernel": jnp.full((2, 2), 7.0)}}, "head": head, **more},
    "batch_stats": {"backbone": {"norm": {"mean": jnp.full(2, 5.0)}}},
  }


def test_everything_is_taken_where_nothing_differs():
  fresh = jax.tree.map(jnp.zeros_like, variables())
  taken = matching(variables(), jax.eval_shape(lambda: fresh), InitConfig("runs/a"))
  chex.assert_trees_all_equal(jax.jit(started)(fresh, taken), variables())
  chex.assert_trees_all_equal(jax.jit(started)(fresh, {}), fresh)


def test_what_is_skipped_stays_fresh_whatever_its_shape_statistics_included():
  fresh = jax.tree.map(jnp.zeros_like, variables(5, neck={"kernel": jnp.zeros(1)}))
  saved = variables(3, attic={"kernel": jnp.ones(1)})
  taken = matching(saved, fresh, InitConfig("runs/a", ("^head/", "^neck/", "attic", "norm/mean$")))
  assert set(taken) == {("params", "backbone", "conv", "kernel")}
  found = started(fresh, taken)
  np.testing.assert_array_equal(found["params"]["backbone"]["conv"]["kernel"], 7.0)
  chex.assert_trees_all_equal(found["params"]["head"], fresh["params"]["head"])
  np.testing.assert_array_equal(found["batch_stats"]["backbone"]["norm"]["mean"], 0.0)


def test_a_mismatch_shows_both_sides_and_the_way_out():
  fresh = variables(5, neck={"kernel": jnp.zeros(1)})
  fresh["batch_stats"]["backbone"]["norm"]["mean"] = jnp.zeros(6)
  saved = variables(3, attic={"kernel": jnp.ones(9)})
  with pytest.raises(UserError) as error:
    matching(saved, fresh, InitConfig("runs/a", ("conv",)), " It has another label tree.")
  assert str(error.value).splitlines() == [
    "config.init.run = 'runs/a': its weights are not those of this model. It has another label tree.",
    "  backbone/norm/mean (batch_stats): has shape (2,), wants shape (6,)",
    "  attic/kernel: left over, it has shape (9,)",
    "  head/output/bias: has shape (3,), wants shape (5,)",
    "  head/output/kernel: has shape (4, 3), wants shape (4, 5)",
    "  neck/kernel: missing, wants shape (1,)",
    "to give these weights fresh values, set config.init.skip = ('conv', '^backbone/', '^attic/', '^head/', '^neck/')",
  ]


@pytest.mark.parametrize(
  ("section", "message"),
  [
    ({"skip": ("head",)}, r"config\.init\.run is empty, and config\.init\.skip is not"),
    ({"run": "runs/a", "skip": "head"}, r"skip = 'head': must be a tuple"),
    ({"run": "runs/a", "skip": ("(",)}, r"config\.init\.skip: '\(' is not a valid regex"),
  ],
)
def test_bad_values_get_a_clear_sentence(section, message):
  with pytest.raises(UserError, match=message):
    InitConfig(**section)


def test_a_regex_that_is_found_in_nothing_is_a_slip():
  with pytest.raises(UserError, match="'haed' matches no weight's name, here or in runs/a"):
    matching(variables(), variables(), InitConfig("runs/a", ("haed",)))


def config(**changes):
  c = common.base()
  common.smoke(c)
  c.tree.source = "shapes"
  c.data.examples = 32
  c.data.validation = 0.5
  c.epochs, c.calibrate = 1.0, False
  c.backbone = dict(name="small_resnet", widths=(8,), blocks=1, stem_stride=4)
  c.head = dict(name="flat")
  c.update(changes)
  return c.to_dict()


def weights(workdir):
  run = Run.from_folder(RunFolder(workdir))
  return run, flatten_dict(run.restored_variables(RunFolder(workdir), devices.data_mesh())[1])


def test_a_run_is_fine_tuned_and_goes_on_without_the_first_ones_folder(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(devices, "data_mesh", lambda: MESH)
  first, second = str(tmp_path / "first"), str(tmp_path / "second")
  train_and_evaluate(config(), first)
  held = dict(tree=dict(source="shapes", levels=2), optim=dict(lr_groups=((".*", None),)))  # frozen: stays as it starts
  with pytest.raises(UserError, match=r"head/output/kernel: has shape .*\n.*skip .*\('\^head/',\)") as error:
    train_and_evaluate(config(init=dict(run=first), **held), second)
  assert "another label tree: 31 leaves on 4 levels; here: " in str(error.value)
  assert not (tmp_path / "second").exists()  # so that the same folder can be used once it is put right

  tuned = config(init=dict(run=first, skip=("^head/output",)), **held)
  capsys.readouterr()
  train_and_evaluate(tuned, second)
  printed = capsys.readouterr().out
  assert f"of {first}; fresh are head/output/bias, head/output/kernel." in printed
  (_, before), (run, after) = weights(first), weights(second)
  fresh = flatten_dict(jax.jit(lambda: run.init_variables(jax.random.key(0), (32, 32, 3)))())
  assert any(path[0] == "batch_stats" for path in after)
  for path, value in after.items():
    expected = fresh if path[1] == "head" else before
    np.testing.assert_allclose(value, expected[path], rtol=0 if path[1] != "head" else 1e-6, err_msg=str(path))

  shutil.rmtree(first)
  train_and_evaluate(tuned, second)
  assert "starting from" not in capsys.readouterr().out
  with pytest.raises(UserError, match="there is no such folder"):
    train_and_evaluate(tuned, str(tmp_path / "third"))


def test_a_folder_whose_checkpoint_is_not_whole_is_not_begun_anew(tmp_path):
  tuned = config(init=dict(run="runs/nowhere"))  # whose weights a run that goes on does not read
  folder, run = RunFolder(tmp_path), Run.from_config(tuned)
  folder.begin(tuned, run.tree, data_checksum(run.source("train")))
  (folder.checkpoints / "7" / "model").mkdir(parents=True)
  with pytest.raises(UserError, match=r"checkpoints/7 is damaged \(it has no record"):
    train_and_evaluate(tuned, str(tmp_path))
  assert not folder.metrics.exists()
