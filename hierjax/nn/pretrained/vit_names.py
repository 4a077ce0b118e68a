"""Names of vision transformers' weights in timm, torchvision and open_clip, and timm's names of the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hierjax.nn.backbones.vit import group_ends
from hierjax.nn.pretrained.network import Layer, Network

Settings = Mapping[str, Any]

TRUNK = r"(?:visual\.trunk\.)?"  # of the image towers that open_clip takes from timm

# Parts of image-text models beside the image tower, its projection to the space of texts included.
TEXT = "|".join(
  (
    r"visual\.(?:proj|head\..*)",
    r"text\..*|transformer\.resblocks\..*|token_embedding\..*|positional_embedding|ln_final\..*|text_projection.*",
    r"logit_(?:scale|bias)",
  )
)

# Within a block: timm, open_clip, torchvision.
_BLOCK = (
  (r"norm1|ln_1", "norm1", "norm"),
  (r"attn\.qkv", "attention/qkv", "dense"),
  (r"attn|self_attention", "attention/qkv", "in_proj"),
  (r"attn\.(?:out_)?proj|self_attention\.out_proj", "attention/out", "dense"),
  (r"ls_?1", "scale1", "scale"),
  (r"norm2|ln_2", "norm2", "norm"),
  (r"mlp\.(?:fc1|c_fc|0|linear_1)", "mlp/fc1", "dense"),
  (r"mlp\.(?:fc2|c_proj|3|linear_2)", "mlp/fc2", "dense"),
  (r"ls_?2", "scale2", "scale"),
)


def vit_layers(depth: int, stages: int = 4) -> tuple[Layer, ...]:
  """Returns the layers of a transformer of so many blocks, which are in so many stages here."""
  layers = [
    Layer(rf"{TRUNK}patch_embed\.proj|visual\.conv1|conv_proj", "stem/patches", "conv"),
    Layer(r"(?:module|visual\.trunk)?", "stem", "timm_tokens"),
    Layer(r"visual", "stem", "clip_tokens"),
    Layer(r"encoder", "stem", "torchvision_tokens"),
    Layer(rf"{TRUNK}norm_pre|visual\.ln_pre", "stem/norm", "norm"),
    Layer(rf"{TRUNK}norm|visual\.ln_post|encoder\.ln", f"stages_{stages - 1}/norm", "norm"),
    Layer(rf"{TRUNK}fc_norm", "top/norm", "norm"),
    Layer(rf"{TRUNK}attn_pool", "top/attention", "timm_tokens"),
    Layer(rf"{TRUNK}attn_pool\.(q|kv)", r"top/attention/\1", "dense"),
    Layer(rf"{TRUNK}attn_pool\.proj", "top/attention/out", "dense"),
    Layer(rf"{TRUNK}attn_pool\.norm", "top/attention/norm", "norm"),
    Layer(rf"{TRUNK}attn_pool\.mlp\.(fc[12])", r"top/attention/mlp/\1", "dense"),
    Layer(rf"{TRUNK}head|heads\.head", "classifier", "dense"),
  ]
  ends = group_ends(depth, stages)
  for stage, (first, end) in enumerate(zip((0, *ends), ends, strict=False)):
    for number in range(first, end):
      block = rf"(?:{TRUNK}blocks\.|visual\.transformer\.resblocks\.|encoder\.layers\.encoder_layer_){number}"
      place = f"stages_{stage}/blocks_{number - first}"
      layers += [Layer(rf"{block}\.(?:{names})", f"{place}/{ours}", kind) for names, ours, kind in _BLOCK]
  return tuple(layers)


_DEPTH = {"tiny": 12, "small": 12, "base": 12, "large": 24, "so400m": 27}
_NAMES = (
  *(f"vit_{size}_patch16" for size in ("tiny", "small", "base", "large")),
  "vit_large_patch14",
  *(f"vit_{size}_patch14_{kind}" for size in ("small", "base", "large") for kind in ("dinov2", "reg4_dinov2")),
  "vit_base_patch16_clip",
  "vit_large_patch14_clip",
  "vit_base_patch16_siglip",
  "vit_large_patch16_siglip",
  "vit_so400m_patch14_siglip",
)


def _network(backbone: str, settings: Settings | None = None) -> Network:
  return Network(backbone, settings or {}, vit_layers(_DEPTH[backbone.split("_")[1]]), TEXT)


VIT_NETWORKS: Mapping[str, Network] = {
  **{name: _network(name) for name in _NAMES},
  "bioclip": _network("vit_base_patch16_clip"),
  "openai_clip_base_patch16": _network("vit_base_patch16_clip", {"activation": "quick_gelu"}),
  "openai_clip_large_patch14": _network("vit_large_patch14_clip", {"activation": "quick_gelu"}),
}


def _timm() -> dict[str, tuple[str, Settings]]:
  """Returns the rows of families that have several sizes of images."""
  rows: dict[str, tuple[str, Settings]] = {}

  def add(name: str, backbone: str, native: int, sizes: tuple[int, ...], **settings: Any) -> None:
    for size in sizes:
      rows[f"{name}_{size}"] = backbone, (settings if size == native else {**settings, "size": size})

  for size in ("tiny", "small", "base", "large"):
    add(f"vit_{size}_patch16", f"vit_{size}_patch16", 224, (224, 384))
  for size in ("small", "base", "large"):
    add(f"vit_{size}_patch32", f"vit_{size}_patch16", 224, (224, 384), patch=32)
    deit3 = {"layer_scale": 1e-6, "prefix_positions": False}
    add(f"deit3_{size}_patch16", f"vit_{size}_patch16", 224, (224, 384), **deit3)
  for size in ("small", "base"):
    add(f"vit_{size}_patch8", f"vit_{size}_patch16", 224, (224,), patch=8)
  for size in ("tiny", "small", "base"):
    add(f"deit_{size}_patch16", f"vit_{size}_patch16", 224, (224,))
  add("deit_base_patch16", "vit_base_patch16", 224, (384,))
  add("vit_large_patch14", "vit_large_patch14", 224, (224,))
  quick = {"activation": "quick_gelu"}
  add("vit_base_patch16_clip", "vit_base_patch16_clip", 224, (224, 384))
  add("vit_base_patch16_clip_quickgelu", "vit_base_patch16_clip", 224, (224,), **quick)
  add("vit_base_patch32_clip", "vit_base_patch16_clip", 224, (224, 256, 384, 448), patch=32)
  add("vit_base_patch32_clip_quickgelu", "vit_base_patch16_clip", 224, (224,), patch=32, **quick)
  add("vit_large_patch14_clip", "vit_large_patch14_clip", 224, (224, 336))
  add("vit_large_patch14_clip_quickgelu", "vit_large_patch14_clip", 224, (224, 336), **quick)
  average = {"pool": "average"}
  add("vit_base_patch16_siglip", "vit_base_patch16_siglip", 224, (224, 256, 384, 512))
  add("vit_base_patch16_siglip_gap", "vit_base_patch16_siglip", 224, (224, 256, 384, 512), **average)
  add("vit_large_patch16_siglip", "vit_large_patch16_siglip", 256, (256, 384))
  add("vit_large_patch16_siglip_gap", "vit_large_patch16_siglip", 256, (256, 384), **average)
  tanh = {"activation": "gelu_tanh"}  # of SigLIP 2 at this size, in timm
  add("vit_large_patch16_siglip", "vit_large_patch16_siglip", 256, (512,), **tanh)
  add("vit_large_patch16_siglip_gap", "vit_large_patch16_siglip", 256, (512,), **average, **tanh)
  add("vit_so400m_patch14_siglip", "vit_so400m_patch14_siglip", 224, (224, 384))
  return rows


# timm's name without the tag: ours, and the settings that differ.
VIT_TIMM: Mapping[str, tuple[str, Settings]] = {
  **_timm(),
  **{name: (name, {}) for name in _NAMES if name.endswith("dinov2")},
  "vit_base_patch16_224_miil": ("vit_base_patch16", {"qkv_bias": False}),
  "vit_base_patch16_gap_224": ("vit_base_patch16", {"heads": 16, "class_token": False, "pool": "average"}),
  "vit_base_patch16_reg4_gap_256": (
    "vit_base_patch16",
    {
      "size": 256,
      "class_token": False,
      "registers": 4,
      "prefix_positions": False,
      "pool": "average",
      "norm_after_pool": True,
    },
  ),
}
