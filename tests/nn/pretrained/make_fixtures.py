"""Writes the fixtures of test_restore.py: what PyTorch makes of small networks whose weights are drawn by name.

  python tests/pretrained/make_fixtures.py

The networks are written down here from torchvision's, timm's and CBAM's papers and state dicts; only this file needs
PyTorch (made with torch 2.13 on a CPU). Each NAME.npz holds the names and shapes of a small network (`small`) and of
the published one (`published`), and the small one's logits `f32[2 10]` for `state_dicts.images(64)`.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from state_dicts import as_text, drawn, images


class SE(nn.Module):
  def __init__(self, channels, reduction=16):
    super().__init__()
    self.fc1 = nn.Conv2d(channels, max(1, channels // reduction), 1)
    self.fc2 = nn.Conv2d(max(1, channels // reduction), channels, 1)

  def forward(self, x):
    return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class ChannelGate(nn.Module):
  def __init__(self, channels, reduction=16):
    super().__init__()
    hidden = max(1, channels // reduction)
    self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

  def forward(self, x):
    gate = torch.sigmoid(self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3))))
    return x * gate[:, :, None, None]


class SpatialGate(nn.Module):
  def __init__(self):
    super().__init__()
    layers = OrderedDict(conv=nn.Conv2d(2, 1, 7, padding=3, bias=False), bn=nn.BatchNorm2d(1))
    self.spatial = nn.Sequential(layers)

  def forward(self, x):
    return x * torch.sigmoid(self.spatial(torch.stack([x.amax(1), x.mean(1)], 1)))


class CBAM(nn.Module):
  def __init__(self, channels):
    super().__init__()
    self.ChannelGate = ChannelGate(channels)
    self.SpatialGate = SpatialGate()

  def forward(self, x):
    return self.SpatialGate(self.ChannelGate(x))


class Bottleneck(nn.Module):
  def __init__(self, before, width, stride, attention):
    super().__init__()
    self.conv1 = nn.Conv2d(before, width, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(4 * width)
    self.downsample = None
    if stride != 1 or before != 4 * width:
      self.downsample = nn.Sequential(nn.Conv2d(before, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
    self.attention = attention
    if attention:
      self.add_module(attention, {"se": SE, "cbam": CBAM}[attention](4 * width))

  def forward(self, x):
    y = torch.relu(self.bn1(self.conv1(x)))
    y = torch.relu(self.bn2(self.conv2(y)))
    y = self.bn3(self.conv3(y))
    if self.attention:
      y = getattr(self, self.attention)(y)
    return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
  def __init__(self, blocks, width=64, classes=1000, attention=""):
    super().__init__()
    self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    before = width
    for i, count in enumerate(blocks):
      layer = []
      for j in range(count):
        layer.append(Bottleneck(before, width * 2**i, 2 if i and not j else 1, attention))
        before = 4 * width * 2**i
      self.add_module(f"layer{i + 1}", nn.Sequential(*layer))
    self.fc = nn.Linear(before, classes)

  def forward(self, x):
    x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
    for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
      x = layer(x)
    return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
  def __init__(self, batch_norm, width=64, classes=1000, top=4096):
    super().__init__()
    layers, before = [], 3
    for factor, count in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
      for _ in range(count):
        norm = [nn.BatchNorm2d(factor * width)] if batch_norm else []
        layers += [nn.Conv2d(before, factor * width, 3, padding=1), *norm, nn.ReLU()]
        before = factor * width
      layers.append(nn.MaxPool2d(2))
    self.features = nn.Sequential(*layers)
    self.avgpool = nn.AdaptiveAvgPool2d(7)
    hidden = [nn.Linear(before * 49, top), nn.ReLU(), nn.Dropout(), nn.Linear(top, top), nn.ReLU(), nn.Dropout()]
    self.classifier = nn.Sequential(*hidden, nn.Linear(top, classes))

  def forward(self, x):
    return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


# The small network, the published one, and the weights of that.
NETWORKS = {
  "vgg16": (lambda: VGG(False, 4, 10, 16), lambda: VGG(False), 138_357_544),
  "vgg16_bn": (lambda: VGG(True, 4, 10, 16), lambda: VGG(True), 138_365_992),
  "resnet50": (lambda: ResNet((3, 4, 6, 3), 4, 10), lambda: ResNet((3, 4, 6, 3)), 25_557_032),
  "resnet152": (lambda: ResNet((1, 2, 11, 1), 4, 10), lambda: ResNet((3, 8, 36, 3)), 60_192_808),
  "se_resnet50": (
    lambda: ResNet((2, 1, 1, 1), 8, 10, "se"),
    lambda: ResNet((3, 4, 6, 3), attention="se"),
    28_088_024,
  ),
  "cbam_resnet50": (
    lambda: ResNet((2, 1, 1, 1), 8, 10, "cbam"),
    lambda: ResNet((3, 4, 6, 3), attention="cbam"),
    28_089_624,
  ),
}


def main():
  """Writes the files beside this one."""
  inputs = torch.from_numpy(images(64)).permute(0, 3, 1, 2).contiguous()
  for name, (small, published, weights) in NETWORKS.items():
    with torch.device("meta"):
      whole = published()
    assert sum(parameter.numel() for parameter in whole.parameters()) == weights, name
    network = small().eval()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    network.load_state_dict({key: torch.from_numpy(drawn(key, shape)) for key, shape in shapes.items()})
    with torch.inference_mode():
      logits = network(inputs).numpy()
    of_whole = {key: tuple(value.shape) for key, value in whole.state_dict().items()}
    np.savez_compressed(
      Path(__file__).with_name(f"{name}.npz"), small=as_text(shapes), published=as_text(of_whole), logits=logits
    )
    print(name, logits.std(0).mean(), np.abs(logits).max())


if __name__ == "__main__":
  main()
