import jax
import pytest

from configs import common
from hierjax.checkpoint import Checkpoints
from hierjax.data.source import data_checksum
from hierjax.run import Run
from hierjax.run_folder import RunFolder


@pytest.fixture(scope="session")
def small_config():
  """Returns the config of a small context network on 96 images of `shapes`; arguments change whole sections."""

  def config(**changes):
    c = common.base()
    c.tree.source = c.data.name = "shapes"
    c.data.examples, c.data.resize, c.data.crop = 96, 20, 16
    c.batch_size = 40
    c.backbone = dict(name="small_resnet", widths=(4,), blocks=1)
    c.neck = dict(name="context", cell="srn", scales=(1, 3), hidden=(8,))
    c.head = dict(name="flat")
    for section, values in changes.items():
      c[section] = {**c[section].to_dict(), **values} if section in ("data", "tree") else values
    return c.to_dict()

  return config


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
  """Makes the folder of a run that has just begun: initial weights, the head's times `sharpness`."""

  def make(config, seed=0, name="run", sharpness=1.0):
    folder = RunFolder(tmp_path_factory.mktemp("runs") / name)
    run = Run.from_config(config)
    train = run.source("train")
    folder.begin(config, run.tree, data_checksum(train))
    variables = jax.jit(lambda key: run.init_variables(key, train.shape))(jax.random.key(seed))
    params = {part: jax.tree.map(lambda x, p=part: x * (sharpness if p == "head" else 1.0), values)
              for part, values in variables["params"].items()}  # fmt: skip
    collections = {key: value for key, value in variables.items() if key != "params"}
    checkpoints = Checkpoints(folder.checkpoints, select_best=True, create=True)
    checkpoints.save(1, {"params": params, "collections": collections}, {"step": jax.numpy.int32(1)})
    checkpoints.close()
    return folder

  return make


@pytest.fixture(scope="session")
def context_run(make_run, small_config):
  """The folder of a run of `small_config()`."""
  return make_run(small_config(), name="first")
