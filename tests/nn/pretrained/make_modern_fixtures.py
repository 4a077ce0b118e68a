"""Writes the fixture of test_modern.py: what timm, torchvision and open_clip make of weights that are drawn by name.

  python tests/nn/pretrained/make_modern_fixtures.py

Only this file needs PyTorch, timm, torchvision and open_clip (made with torch 2.13 on a CPU, timm 1.0.31, torchvision
0.28 and open_clip 3.3). modern.npz holds, for each small network of SMALL, the names and shapes of its weights, and for
each size of images what its classifier reads and its logits; and the names and shapes of the PUBLISHED networks.
"""

from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import timm
import torch
from torch import nn
from torchvision.models import convnext as torchvision_convnext
from torchvision.models import vision_transformer as torchvision_vit

from state_dicts import as_text, drawn, images

NARROW = {"embed_dim": 48, "depth": 5, "num_heads": 3, "num_classes": 10}
CLIP = {
  "embed_dim": 10,
  "vision_cfg": {"image_size": 64, "layers": 5, "width": 48, "head_width": 16, "patch_size": 16},
  "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
}


def timms(name, size=64, **settings):
  """Returns timm's network of a name, narrow, which takes images of any size."""
  return timm.create_model(name, img_size=size, dynamic_img_size=True, **{**NARROW, **settings})


def convnext(depths=(1, 2, 3, 1), dims=(8, 16, 24, 32)):
  """Returns torchvision's ConvNeXt, narrow."""
  followers = [*dims[1:], None]
  blocks = [torchvision_convnext.CNBlockConfig(*row) for row in zip(dims, followers, depths, strict=True)]
  return torchvision_convnext.ConvNeXt(blocks, num_classes=10)


def openai_clip():
  """Returns CLIP with OpenAI's activation: image and text tower."""
  return open_clip.CLIP(**CLIP, quick_gelu=True)


SQUARE, OTHERS = (64, 64), ((64, 64), (96, 32))

# Network, and the sizes of images.
SMALL = {
  "vit": (partial(timms, "vit_base_patch16_224"), (*OTHERS, (160, 144))),
  "vit_torchvision": (partial(torchvision_vit.VisionTransformer, 64, 16, 5, 3, 48, 192, num_classes=10), (SQUARE,)),
  "vit_without_bias": (partial(timms, "vit_base_patch16_224_miil"), (SQUARE,)),
  "dinov2": (partial(timms, "vit_small_patch14_dinov2", 56), ((56, 56), (84, 42))),
  "dinov2_reg4": (partial(timms, "vit_small_patch14_reg4_dinov2", 56), ((56, 56), (84, 42))),
  "clip": (partial(timms, "vit_base_patch16_clip_224"), OTHERS),
  "clip_quickgelu": (partial(timms, "vit_base_patch16_clip_quickgelu_224"), (SQUARE,)),
  "openai_clip": (openai_clip, (SQUARE,)),
  "siglip": (partial(timms, "vit_base_patch16_siglip_224"), OTHERS),
  "siglip_gap": (partial(timms, "vit_base_patch16_siglip_gap_224"), (SQUARE,)),
  "reg4_gap": (partial(timms, "vit_base_patch16_reg4_gap_256"), OTHERS),
  "convnext": (
    partial(timm.create_model, "convnext_tiny", depths=(1, 2, 3, 1), dims=(8, 16, 24, 32), num_classes=10),
    ((64, 64), (70, 101)),
  ),
  "convnext_torchvision": (convnext, ((64, 64), (70, 101))),
}

# By our name of the network: the library's name of it.
PUBLISHED = {
  **{name: f"{name}_224" for name in ("vit_tiny_patch16", "vit_small_patch16", "vit_base_patch16")},
  **{name: f"{name}_224" for name in ("vit_large_patch16", "vit_large_patch14", "vit_base_patch16_siglip")},
  **{name: f"{name}_224" for name in ("vit_base_patch16_clip", "vit_large_patch14_clip", "vit_so400m_patch14_siglip")},
  "vit_large_patch16_siglip": "vit_large_patch16_siglip_256",
  **{f"vit_{size}_patch14_dinov2": f"vit_{size}_patch14_dinov2" for size in ("small", "base", "large")},
  **{f"vit_{size}_patch14_reg4_dinov2": f"vit_{size}_patch14_reg4_dinov2" for size in ("small", "base", "large")},
  **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")},
  "bioclip": "open_clip ViT-B-16",
  "openai_clip_base_patch16": "open_clip ViT-B-16-quickgelu",
  "openai_clip_large_patch14": "open_clip ViT-L-14-quickgelu",
}


def outputs(network, size):
  """Returns what the classifier reads, `f32[2 d]`, and the logits, `f32[2 10]`."""
  inputs = torch.from_numpy(images(*size)).permute(0, 3, 1, 2).contiguous()
  with torch.inference_mode():
    if isinstance(network, open_clip.CLIP):
      logits, projection = network.visual(inputs), network.visual.proj
      network.visual.proj = None
      pooled = network.visual(inputs)
      network.visual.proj = projection
      return pooled.numpy(), logits.numpy()
    last = [module for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    read = []
    hook = last.register_forward_hook(lambda module, arguments, result: read.append(arguments[0]))
    logits = network(inputs)
    hook.remove()
  return read[0].numpy(), logits.numpy()


def shapes_of(network):
  """Returns the shapes of a network's weights, by name."""
  return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def published(name):
  """Returns the shapes of the weights of a published network."""
  with torch.device("meta"):
    if name.startswith("open_clip "):
      return shapes_of(open_clip.create_model(name.split()[1], device="meta"))
    return shapes_of(timm.create_model(name))


def main():
  """Writes the file beside this one."""
  found = {}
  for name, (make, sizes) in SMALL.items():
    network = make().eval()
    shapes = shapes_of(network)
    network.load_state_dict({key: torch.from_numpy(np.array(drawn(key, shape))) for key, shape in shapes.items()})
    found[f"{name} small"] = as_text(shapes)
    for size in sizes:
      pooled, logits = outputs(network, size)
      found[f"{name} {size[0]} {size[1]} pooled"], found[f"{name} {size[0]} {size[1]} logits"] = pooled, logits
      print(name, size, pooled.shape, np.abs(pooled[0] - pooled[1]).max() / np.abs(pooled).max())
  for name, original in PUBLISHED.items():
    found[f"{name} published"] = as_text(published(original))
    print(name, len(found[f"{name} published"].splitlines()))
  np.savez_compressed(Path(__file__).with_name("modern.npz"), **found)


if __name__ == "__main__":
  main()
