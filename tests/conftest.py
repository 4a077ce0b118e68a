"""Strict switches for every test, one folder of compiled programs for all runs of the tests, and shared fixtures."""

import gc
import os
import signal
import tempfile
from pathlib import Path

from compiled_programs import flags_beside, folder_of_programs

if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers, and the commands that tests start, use the same folder
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder_of_programs()))
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # reading one takes a fifth of compiling the smallest
  # Images, features and the Hub's files, in place of the user's.
  CACHE = tempfile.TemporaryDirectory(prefix="hierjax-tests-")
  os.environ.setdefault(
    "MPLCONFIGDIR", str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "matplotlib").expanduser())
  )
  os.environ["XDG_CACHE_HOME"] = CACHE.name
  os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of the commands would compile our sources, in half a second
os.environ["XLA_FLAGS"] = flags_beside(os.environ.get("XLA_FLAGS", ""), devices=4)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest
from initial_weights import initial_weights
from jaxtyping import config as jaxtyping_config

from configs import common
from hierjax.data.source import data_checksum
from hierjax.runs.checkpoint import Checkpoints
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.tree.label_tree import LabelTree

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


# The tier `fast` (python -m pytest -m fast): files and folders whose tests compile no network, but for the tests below.
FAST = (
  "cli",
  "data",
  "evaluation/metrics",
  "evaluation/test_classes.py",
  "evaluation/test_confidences.py",
  "evaluation/test_significance.py",
  "functional",
  "inference/test_image_inputs.py",
  "evaluation/test_label_errors.py",
  "report/plots/test_canvas.py",
  "report/plots/test_chi_square.py",
  "runs/test_folder.py",
  "tree",
  "test_config.py",
  "test_layering.py",
  "test_package.py",
  "test_readings.py",
  "test_tiers.py",
  "test_types.py",
  "training/test_optim.py",
)
NOT_FAST = (
  "data/test_mixing.py",  # these four compile programs over images
  "data/test_packs.py",
  "data/test_photo_augment.py",
  "functional/test_restriction.py",
  "data/test_tfds.py::test_real_cifar100",
  "functional/test_combine.py",  # ensembles of every kind of head
  "test_package.py::test_without_extras_the_core_works_and_other_commands_name_what_they_lack",
  "tree/test_builders.py::test_fifty_thousand_nodes",
)
TESTS = Path(__file__).parent


def pytest_configure(config):
  config.addinivalue_line("markers", "fast: compiles no network; less than a minute in all")
  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path, config):
  """Imports no other file where only the fast tests are wanted."""
  if config.option.markexpr == "fast" and collection_path.is_file() and TESTS in collection_path.parents:
    return None if _within(collection_path.relative_to(TESTS).as_posix(), FAST) else True
  return None


def pytest_collection_finish():
  # Modules and tests stay. Tests that trace networks spent a tenth of their time on collections, and now spend 2%.
  gc.freeze()
  gc.set_threshold(50_000, 20, 50)


def pytest_collection_modifyitems(items):
  for item in items:
    name = f"{item.path.relative_to(TESTS).as_posix()}::{item.originalname}"
    if _within(name, FAST) and not _within(name, NOT_FAST) and not item.get_closest_marker("slow"):
      item.add_marker("fast")


def _within(name, paths):
  return any(name == path or name.startswith((f"{path}/", f"{path}::")) for path in paths)


@pytest.fixture
def key():
  return jax.random.key(0)


@pytest.fixture
def without_shape_checks():
  """As users run it: the shapes and kinds in the signatures, which tests check, would speak first."""
  jaxtyping_config.update("jaxtyping_disable", True)
  yield
  jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.fixture
def toy_tree():
  """Three levels, leaves on two of them: animal > (dog > (basenji, leonberg), cat), thing > cup."""
  return LabelTree.from_children(
    ["animal", "thing", "dog", "cat", "cup", "basenji", "leonberg"], [2, 2, 1, 2, 0, 0, 0, 0]
  )


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
  """Makes the folder of a run that has just begun: each part's weights by numpy, the head's times `sharpness`."""

  def make(config, seed=0, name="run", sharpness=1.0):
    folder = RunFolder(tmp_path_factory.mktemp("runs") / name)
    run = Run.from_config(config)
    train = run.source("train")
    folder.begin(config, run.tree, data_checksum(train))
    collections = dict(run.variable_shapes)
    params = {part: initial_weights(shapes, seed) for part, shapes in collections.pop("params").items()}
    params["head"] = jax.tree.map(lambda x: sharpness * x, params["head"])
    collections = initial_weights(collections)
    checkpoints = Checkpoints(folder.checkpoints, select_best=True, create=True)
    checkpoints.save(1, {"params": params, "collections": collections}, {"step": jax.numpy.int32(1)})
    checkpoints.close()
    return folder

  return make


@pytest.fixture(scope="session")
def context_run(make_run, small_config):
  """The folder of a run of `small_config()`."""
  return make_run(small_config(), name="first")
