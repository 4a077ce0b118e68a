"""ConvNeXt and vision transformers give timm's, torchvision's and open_clip's numbers with their weights."""

import functools
from functools import partial

import jax
import numpy as np
import pytest

from hierjax.cli.main import main
from hierjax.errors import UserError
from hierjax.nn.backbones.convnext import convnext
from hierjax.nn.backbones.vit import vit
from hierjax.nn.pretrained.convnext_names import CONVNEXT_NETWORKS
from hierjax.nn.pretrained.files import read_weights, to_bytes
from hierjax.nn.pretrained.name_maps import NETWORKS, TIMM
from hierjax.nn.pretrained.network import Network
from hierjax.nn.pretrained.restore import converted, left_out, restore
from hierjax.nn.pretrained.vit_names import TEXT, VIT_NETWORKS, vit_layers
from hierjax.nn.registry import BACKBONES
from state_dicts import as_variables, drawn, fixture, from_text, images

NARROW = {"width": 48, "depth": 5, "heads": 3, "size": 64}
DINOV2 = {**NARROW, "size": 56, "patch": 14, "layer_scale": 1e-5}
CLIP = {**NARROW, "pre_norm": True, "epsilon": 1e-5}
SIGLIP = {**NARROW, "class_token": False, "pool": "attention"}
REG4_GAP = {"class_token": False, "registers": 4, "prefix_positions": False, "pool": "average", "norm_after_pool": True}
SMALL = {
  "vit": partial(vit, **NARROW),
  "vit_torchvision": partial(vit, **NARROW),
  "vit_without_bias": partial(vit, **NARROW, qkv_bias=False),
  "dinov2": partial(vit, **DINOV2),
  "dinov2_reg4": partial(vit, **DINOV2, registers=4, prefix_positions=False),
  "clip": partial(vit, **CLIP),
  "clip_quickgelu": partial(vit, **CLIP, activation="quick_gelu"),
  "openai_clip": partial(vit, **CLIP, activation="quick_gelu"),
  "siglip": partial(vit, **SIGLIP),
  "siglip_gap": partial(vit, **{**SIGLIP, "pool": "average"}),
  "reg4_gap": partial(vit, **NARROW, **REG4_GAP),
  "convnext": partial(convnext, (8, 16, 24, 32), (1, 2, 3, 1)),
  "convnext_torchvision": partial(convnext, (8, 16, 24, 32), (1, 2, 3, 1)),
}


FIXTURE = fixture("modern")


def small_network(name):
  if name.startswith("convnext"):
    return CONVNEXT_NETWORKS["convnext_tiny"]
  return Network("vit_base_patch16", {}, vit_layers(NARROW["depth"]), TEXT)


@functools.cache
def small_weights(name):
  return {key: drawn(key, shape) for key, shape in from_text(str(FIXTURE[f"{name} small"])).items()}


@functools.cache
def imported(name):
  return converted("any", small_weights(name), small_network(name), SMALL[name]())


RUNS = [tuple(key.split()[:3]) for key in FIXTURE if key.endswith("pooled")]
# Of other sizes than the weights' own, which is a matter of the positions and of the maps' sides alone.
OTHER_SIZES = {run for run, before in zip(RUNS[1:], RUNS, strict=False) if run[0] == before[0]}
QUICK = {("vit", "96", "32"), ("dinov2_reg4", "84", "42"), ("convnext", "70", "101")}


@pytest.mark.parametrize(
  "name,height,width",
  [pytest.param(*run, marks=pytest.mark.slow if run in OTHER_SIZES - QUICK else ()) for run in RUNS],
)
def test_features_and_logits_are_the_originals(name, height, width):
  weights = imported(name)
  pooled = jax.jit(SMALL[name]().apply)(as_variables(weights), images(int(height), int(width))).pooled
  found = {"pooled": np.asarray(pooled)}
  if "classifier/kernel" in weights:
    found["logits"] = found["pooled"] @ weights["classifier/kernel"] + weights["classifier/bias"]
  assert ("logits" in found) == (name != "openai_clip")  # which has a projection, and no classifier
  for what, ours in found.items():
    expected = FIXTURE[f"{name} {height} {width} {what}"]
    # the images' own share is at least 500 times the tolerance, and another GELU makes 20 times of it
    assert expected.std(0).mean() > 5e-3 * np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_every_case_of_the_fixture_is_run():
  assert {name for name, _, _ in RUNS} == set(SMALL)


def nothing(shapes):
  """Arrays of these shapes without memory."""
  return {key: np.broadcast_to(np.zeros((), np.float32), shape) for key, shape in shapes.items()}


# Whose names differ from another's in nothing but the number of blocks.
LIKE_OTHERS = (
  *("vit_small_patch16", "vit_large_patch16", "vit_large_patch14", "vit_base_patch16_clip", "vit_large_patch14_clip"),
  *("vit_base_patch14_dinov2", "vit_large_patch14_dinov2", "vit_base_patch14_reg4_dinov2"),
  *("vit_large_patch14_reg4_dinov2", "vit_large_patch16_siglip", "vit_so400m_patch14_siglip"),
  *("openai_clip_base_patch16", "convnext_base", "convnext_large"),
)
PUBLISHED = [
  pytest.param(name, marks=pytest.mark.slow) if name in LIKE_OTHERS else name
  for name in (*VIT_NETWORKS, *CONVNEXT_NETWORKS)
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_names_and_shapes_fit(name):
  whole, network = nothing(from_text(str(FIXTURE[f"{name} published"]))), NETWORKS[name]
  weights = converted("any", whole, network, BACKBONES[network.backbone](**network.settings))
  others = left_out(whole, network)
  assert len(weights) + len(others) == len(whole)
  assert bool(others) == (name in ("bioclip", "openai_clip_base_patch16", "openai_clip_large_patch14"))
  kept = sum(array.size for key, array in whole.items() if key not in others)
  assert sum(array.size for array in weights.values()) == kept


def test_what_is_left_out_of_an_image_text_model_is_its_text_tower_and_projections():
  left = left_out(small_weights("openai_clip"), small_network("openai_clip"))
  assert {name.split(".")[0] for name in left} == {
    *("logit_scale", "ln_final", "positional_embedding", "text_projection", "token_embedding", "transformer", "visual"),
  }
  assert [name for name in left if name.startswith("visual")] == ["visual.proj"]
  # The text tower's `positional_embedding` is not the image tower's.
  assert imported("openai_clip")["backbone/stem/positions"].shape == (17, 48)


AUTHORS = (  # of ConvNeXt, in the order in which timm renames them
  ("stem.", "downsample_layers.0."),
  *((f"stages.{i}.downsample.", f"downsample_layers.{i}.") for i in (1, 2, 3)),
  (".blocks.", "."),
  ("conv_dw", "dwconv"),
  ("mlp.fc", "pwconv"),
  ("head.norm", "norm"),
  ("head.fc", "head"),
)


def as_the_authors(name):
  for timms, authors in AUTHORS:
    name = name.replace(timms, authors)
  return name


@pytest.mark.parametrize(
  "name,spelling",
  [
    ("convnext", as_the_authors),
    ("convnext", "visual.trunk.{}".format),
    ("siglip", "visual.trunk.{}".format),
    ("dinov2_reg4", "module.{}".format),
    ("openai_clip", "module.{}".format),
  ],
)
def test_other_spellings_are_the_same_weights(name, spelling):
  other = {spelling(key): array for key, array in small_weights(name).items()}
  one, two = imported(name), converted("any", other, small_network(name), SMALL[name]())
  assert set(other) != set(small_weights(name)) and set(one) == set(two)
  assert all((one[key] == two[key]).all() for key in one)


def test_1x1_convolutions_are_dense_layers():
  weights = small_weights("convnext")
  maps = {key: array[..., None, None] if ".mlp.fc" in key and array.ndim == 2 else array
          for key, array in weights.items()}  # fmt: skip
  one, two = imported("convnext"), converted("any", maps, small_network("convnext"), SMALL["convnext"]())
  assert all((one[key] == two[key]).all() for key in one)


def test_position_embeddings_of_another_size_of_images_are_told(tmp_path):
  file = tmp_path / "a.npz"
  file.write_bytes(to_bytes(small_weights("vit"), file))
  with pytest.raises(UserError, match=r"stem/positions \(pos_embed\): has shape \(17, 48\), wants shape \(26, 48\)"):
    restore(file, small_network("vit"), vit(**{**NARROW, "size": 80}))


def test_arrays_of_any_form_are_refused_and_raise_nothing_else():
  for shape in ((), (0,), (2, 0), (3, 17, 48), (1, 1, 17, 48)):
    with pytest.raises(UserError, match="stem/positions"):
      converted("any", small_weights("vit") | {"pos_embed": np.zeros(shape)}, small_network("vit"), SMALL["vit"]())


@pytest.mark.parametrize("name", TIMM)
def test_timms_names_are_of_networks_and_settings(name):
  ours, settings = TIMM[name]
  network = NETWORKS[ours]
  backbone = BACKBONES[network.backbone](**{**network.settings, **settings})
  side = {"patch14": 14, "patch32": 32}.get(
    next((word for word in name.split("_") if word in ("patch14", "patch32")), "")
  )
  stem = backbone.stem
  assert side is None or stem.patch == side
  size = name.rpartition("_")[2]
  if size.isdigit():
    assert stem.grid == (int(size) // stem.patch,) * 2


def test_the_command_counts_what_it_leaves_out(tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(NETWORKS, "tiny_clip", Network("vit_base_patch16", CLIP, vit_layers(5), TEXT))
  file, out = tmp_path / "a.npz", tmp_path / "b.npz"
  file.write_bytes(to_bytes(small_weights("openai_clip"), file))
  assert main(["weights", "import", str(file), "--backbone", "tiny_clip", "--out", str(out)]) == 0
  first, second, *_ = capsys.readouterr().out.splitlines()
  count = len(left_out(small_weights("openai_clip"), small_network("openai_clip")))
  assert first.startswith(f"left out {count} arrays of other parts than the image network, such as ")
  assert "arrays of vit_base_patch16" in second and "classifier" not in second
  assert read_weights(out)["backbone/stem/positions"].shape == (17, 48)
