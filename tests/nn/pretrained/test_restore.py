"""Imported weights give the original's logits, and files that are no such weights get one sentence."""

import json
import re
import struct
import zipfile
from functools import partial
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.nn.backbones.resnet import resnet, resnet50
from hierjax.nn.backbones.vgg import vgg16
from hierjax.nn.layers.attention import CBAM, SE
from hierjax.nn.pretrained import restore as restore_module
from hierjax.nn.pretrained.convnext_names import CONVNEXT_NETWORKS
from hierjax.nn.pretrained.files import read_weights, to_bytes
from hierjax.nn.pretrained.name_maps import NETWORKS
from hierjax.nn.pretrained.restore import restore
from hierjax.nn.pretrained.vit_names import VIT_NETWORKS
from hierjax.nn.registry import BACKBONES
from state_dicts import as_variables, drawn, fixture, from_text, images

SMALL = {
  "vgg16": partial(vgg16, 4, top=(16, 16)),
  "vgg16_bn": partial(vgg16, 4, True, top=(16, 16)),
  "resnet50": partial(resnet50, 4),
  "resnet152": partial(resnet, (1, 2, 11, 1), 4),  # the names of all its blocks are in `published`
  "se_resnet50": partial(resnet, (2, 1, 1, 1), 8, SE),
  "cbam_resnet50": partial(resnet, (2, 1, 1, 1), 8, CBAM),
}


def small_weights(name):
  return {key: drawn(key, shape) for key, shape in from_text(str(fixture(name)["small"])).items()}


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_the_originals(name, tmp_path):
  file = tmp_path / "original.safetensors"
  save_file(small_weights(name), file)
  backbone = SMALL[name]()
  weights = restore(file, NETWORKS[name], backbone)
  pooled = jax.jit(backbone.apply)(as_variables(weights), images(64)).pooled
  logits = np.asarray(pooled) @ weights["classifier/kernel"] + weights["classifier/bias"]
  expected = fixture(name)["logits"]
  # the images' own share in the logits is at least 50 times the tolerance
  assert expected.std(0).mean() > 5e-3 * np.abs(expected).max()
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def published(name):
  """Returns the shapes of a published network's arrays by name.

  SE-ResNeXt-50 has SE-ResNet-50's names; the first two convolutions of a block have twice the channels, and the 3x3 one
  has 32 groups.
  """
  if name != "se_resnext50":
    return from_text(str(fixture(name)["published"]))

  def wider(key, shape):
    if re.search(r"\.(conv[12]|bn[12])\.", key) and shape:
      out, *others = shape
      inputs = [others[0] * 2 // 32, *others[1:]] if ".conv2." in key else others
      return (2 * out, *inputs)
    return (shape[0], 2 * shape[1], *shape[2:]) if ".conv3." in key else shape

  return {key: wider(key, shape) for key, shape in published("se_resnet50").items()}


@pytest.mark.parametrize("name", sorted({*NETWORKS} - {*CONVNEXT_NETWORKS, *VIT_NETWORKS}))  # for those, test_modern.py
def test_the_published_networks_names_and_shapes_fit(name, monkeypatch):
  shapes = published(name)
  shapes = {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
  nothing = np.zeros((), np.float32)
  whole = {f"module.{key}": np.broadcast_to(nothing, shape) for key, shape in shapes.items()}
  monkeypatch.setattr(restore_module, "read_weights", lambda file: whole)
  network = NETWORKS[name]
  weights = restore("any", network, BACKBONES[network.backbone](**network.settings))
  assert len(weights) == len(shapes)
  assert sum(array.size for array in weights.values()) == sum(int(np.prod(shape)) for shape in shapes.values())


def test_timms_spellings_are_the_same_weights(tmp_path):
  def restored(name, weights):
    (tmp_path / "a.npz").write_bytes(to_bytes(weights, "a.npz"))
    return restore(tmp_path / "a.npz", NETWORKS[name], SMALL[name]())

  vgg = {key: array for key, array in small_weights("vgg16").items()}
  fc6, fc7 = vgg["classifier.0.weight"], vgg["classifier.3.weight"]
  timms = {"classifier.0.": "pre_logits.fc1.", "classifier.3.": "pre_logits.fc2.", "classifier.6.": "head.fc."}
  other = {next((b + k[len(a) :] for a, b in timms.items() if k.startswith(a)), k): array for k, array in vgg.items()}
  other["pre_logits.fc1.weight"] = fc6.reshape(16, 32, 7, 7)
  other["pre_logits.fc2.weight"] = fc7[..., None, None]
  squeezed = small_weights("se_resnet50")
  older = {key.replace(".se.", ".se_module."): array for key, array in squeezed.items()}
  for name, one, two in (("vgg16", vgg, other), ("se_resnet50", squeezed, older)):
    assert set(one) != set(two)
    one, two = restored(name, one), restored(name, two)
    assert set(one) == set(two)
    assert all((one[key] == two[key]).all() for key in one)


def refused(weights, name="resnet50", backbone=None, file="a.npz"):
  """Returns the sentence that these weights get, read from a file."""
  Path(file).write_bytes(to_bytes(weights, file))
  with pytest.raises(UserError) as error:
    restore(file, NETWORKS[name], SMALL[name]() if backbone is None else backbone)
  return str(error.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_a_mismatch_shows_both_sides(folder):
  weights = small_weights("vgg16")
  del weights["features.0.bias"]
  weights["features.1.weight"] = np.zeros(3, np.float32)
  weights["features.5.weight"] = np.zeros((8, 4, 5, 5), np.float32)
  weights["classifier.6.bias"] = np.zeros(11, np.float32)
  assert refused(weights, "vgg16").splitlines() == [
    "a.npz: its weights are not those of vgg16.",
    "  features.1.weight: left over, it has shape (3,)",
    "  backbone/stages_0/conv1/bias: missing, wants shape (4,)",
    "  backbone/stages_1/conv1/kernel (features.5.weight): has shape (5, 5, 4, 8), wants shape (3, 3, 4, 8)",
    "  classifier/kernel (classifier.6.weight): has shape (16, 10), wants shape (16, 11)",
  ]


def test_another_network_is_told_apart(folder):
  se, plain = small_weights("se_resnet50"), small_weights("vgg16")
  tiny = resnet((2, 1, 1, 1), 8)
  assert "layer1.0.se.fc1.bias: left over, it has shape (2,)" in refused(se, backbone=tiny)
  message = refused(plain, backbone=tiny).splitlines()
  assert len(message) == 1 + restore_module.MOST_LINES + 1 and message[-1].endswith(" more")
  assert refused({"layer0.conv1.weight": np.ones(3)}) == (
    "a.npz: layer0.conv1.weight is a name of Cadene's networks and timm's legacy_*, in which the 1x1 convolutions have "
    "the stride: hierjax would compute other numbers with them"
  )
  assert "a deep stem" in refused({"conv1.0.weight": np.ones(3)})
  se |= {key.replace(".se.", ".se_module."): array for key, array in se.items() if ".se." in key}
  assert "layer1.0.se.fc1.weight and layer1.0.se_module.fc1.weight are both backbone/stages_0/" in refused(
    se, "se_resnet50"
  )


def test_names_out_of_a_file_cannot_draw_on_the_terminal(folder):
  message = refused({"\x1b[2J\n" + "a" * 999: np.ones(3)}, backbone=resnet((1,), 2))
  assert "\x1b" not in message and "'\\x1b[2J\\naaa" in message and max(map(len, message.splitlines())) < 200


def test_floats_of_any_width_become_float32(folder, rng):
  values = rng.normal(size=(2, 3))
  for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
    save_file({"a": values.astype(kind), "a.num_batches_tracked": np.ones((), np.int64)}, "a.safetensors")
    (array,) = read_weights("a.safetensors").values()
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, values.astype(kind).astype(np.float32))


def safetensors(header, data=b"", length=None):
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text) if length is None else length) + text + data


def npz(**members):
  def write(path):
    with zipfile.ZipFile(path, "w") as archive:
      for name, content in members.items():
        archive.writestr(f"{name}.npy", content)

  return write


def npy(header, data=b""):
  text = header.encode() + b"\n"
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


FLOAT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}"


@pytest.mark.parametrize(
  "name,content,message",
  [
    ("a.safetensors", b"", "is damaged, or no .safetensors file"),
    ("a.safetensors", b"PK\x03\x04 something else", "is damaged, or no .safetensors file"),
    ("a.safetensors", safetensors({}, length=2**62), r"header too large"),
    ("a.safetensors", safetensors({"a": FLOAT}, b"1234"), "is damaged"),
    ("a.safetensors", safetensors({"a": FLOAT | {"shape": [2**61, 8]}}, b"12345678"), "is damaged"),
    ("a.safetensors", safetensors({"a": FLOAT | {"dtype": "I32"}}, b"12345678"), r"a is int32; weights are float16,"),
    ("a.safetensors", safetensors({"a": FLOAT}, b"\0\0\xc0\x7f1234"), "a holds numbers that are not finite"),
    ("a.npz", b"PK\x03\x04", "is damaged, or no .npz file"),
    ("a.npz", npy(HUGE), "is damaged, or no .npz file"),
    ("a.npz", npz(a=npy(HUGE)), "is damaged, or no .npz file"),
    ("a.npz", npz(a=npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\n.")), "is damaged"),
    ("a.npz", npz(a=b"no array"), "a is no array; weights are"),
    ("a.npz", npz(a=npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", b"12345678")), "a is int64; "),
    ("a.npz", npz(a=npy("{'descr': '<f8', 'fortran_order': False, 'shape': ()}", struct.pack("<d", 1e300))), "finite"),
    (
      "a.pth",
      b"version https://git-lfs.github.com/spec/v1",
      "is a pointer of Git LFS and not the weights: run git lfs pull",
    ),
    ("a.h5", b"", r"a file of weights ends with \.safetensors, \.npz, \.pth, .* or \.tar$"),
    ("a.pth", b"", r"is damaged, or no \.pth file \(it begins with b'', as neither of PyTorch's formats does\)"),
  ],
)
def test_files_that_hold_no_weights_get_one_sentence(name, content, message, folder):
  if callable(content):
    content(name)
  else:
    Path(name).write_bytes(content)
  with pytest.raises(UserError, match=message) as error:
    read_weights(name)
  assert str(error.value).startswith(f"{name}: ") and "\n" not in str(error.value)


def test_an_npz_that_unpacks_to_too_much_is_not_unpacked(folder, monkeypatch):
  np.savez_compressed("a.npz", a=np.zeros(5000, np.float32))
  assert read_weights("a.npz")["a"].size == 5000
  monkeypatch.setattr("hierjax.nn.pretrained.files.LARGEST", 10_000)
  with pytest.raises(UserError, match="it unpacks to more than"):
    read_weights("a.npz")


def test_the_command_writes_a_file_of_our_names(folder, capsys):
  shapes = from_text(str(fixture("resnet50")["published"]))
  save_file({key: np.full(shape, 0.5, np.float32) for key, shape in shapes.items()}, "r50.safetensors")
  assert main(["weights", "import", "r50.safetensors", "--backbone", "resnet50"]) == 0
  assert capsys.readouterr().out.splitlines() == [
    # 25,557,032 less the classifier's, and a mean and a variance for each of 26,560 normed channels
    "r50.hierjax.safetensors has 23,561,152 numbers in 265 arrays of resnet50, and its classifier of 1,000 classes, "
    "which stays unused; in a config:",
    "  config.backbone = dict(name='resnet50')",
    '  config.init.weights = "r50.hierjax.safetensors"',
  ]
  written = read_weights("r50.hierjax.safetensors")
  assert written["backbone/stem/conv/kernel"].shape == (7, 7, 3, 64)
  assert written["classifier/kernel"].shape == (2048, 1000)
  for arguments, message in (
    (
      ["r50.safetensors", "--backbone", "resnet51"],
      "--backbone resnet51: choose from cbam_resnet50, efficientnet_lite0, ",
    ),
    (["r50.safetensors", "--backbone", "resnet50", "--out", "./r50.safetensors"], "must be another file than"),
    (["r50.safetensors", "--backbone", "resnet50", "--out", "r50.pth"], r"end with .safetensors or .npz"),
    (["none.npz", "--backbone", "resnet50"], "error: none.npz: there is no such file"),
  ):
    assert main(["weights", "import", *arguments]) == 1
    assert message in capsys.readouterr().err
  for file in folder.iterdir():  # 200 MB, which pytest would keep
    file.unlink()
