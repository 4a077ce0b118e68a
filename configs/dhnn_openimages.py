r"""DHNN with several label paths an image on Open Images (Koo et al. 2020, Table 3).

  hierjax weights import resnet50.safetensors --backbone resnet50 --out resnet50-backbone.npz
  python train.py --config=configs/dhnn_openimages.py:resnet50,pool --config.data.root=PHOTOS \
    --config.data.labels=labels.csv --config.init.weights=resnet50-backbone.npz --workdir=runs/res-s2s-pool     # GPU

labels.csv has a line for each path of an image: the image's file below PHOTOS, then a column for each level. With the
variant `tfds` the images are TFDS's open_images_v4/200k, prepared in --config.data.root (or TFDS_DATA_DIR). Their paths
are those of the objects with boxes, because `objects` also has labels that were verified to be absent. Images without
an object of the tree are left out.

The tree is `openimages30`: 30 classes, in which the children of a node are its parts, as far as Open Images has them,
of the shape that the authors' code fixes: 2, 4 and 24 nodes on 3 levels. The names are ours, because the paper's text
does not contain its own (READINGS K12); so the numbers do not compare. A label that ends above a leaf ends there
(`short_labels = stop`). The config has not been run.

A row of Table 3 is a variant: Res-S2S-Alt-Pool-L is `resnet50,alternating,pool_dense,large`. Pool is `pool_dense`,
which the authors' code runs (READINGS K2), and as their code does, VGG-S2S reads conv5_1, conv5_2, conv5_3 and pool5.
`hierjax evaluate` of three runs, with --config.seed=0, 1 and 2, prints the row: means and deviations.

Variants, at most one of each line:
  vgg16 | resnet50 (the default) | cbam_resnet50 | se_resnet50 | se_resnext50 | resnet152 | smoke
  folder (the default) | tfds
  s2s (the default) | cnn: the plain network, a sigmoid a node on its last features; for VGG-16 these are fc6 and fc7,
    which s2s does not read (there, config.init.skip omits their weights; `hierjax weights import` prints the line)
  together (the default) | alternating: recurrence and backbone take turns of an epoch in the first half (READINGS K14)
  pool (the default) | pool_average | pool_linear | pool_dense | linear | conv | dense: the conversion; not with `cnn`
  small (the default): inputs of 256 and states of 512 | large: 2048 and 1024
"""

from functools import partial

import ml_collections as mlc

from configs import common
from configs.dhnn import CONVERSIONS, alternating, together


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "openimages30"
  c.tree.short_labels = "stop"
  photographs(c)
  c.batch_size = 32
  c.epochs = 15.0
  c.backbone = dict(name="resnet50")
  c.head = dict(name="dhnn_s2s", width=512, size=256, conversion="pool", output="sigmoid")
  c.optim.name = "adamw"
  c.optim.lr = 1e-4
  c.optim.lr_batch = 32
  c.optim.decay = ((".*", 0.0),)
  c.schedule.name = "constant"
  return common.apply(c, variant, KINDS)


def photographs(c: mlc.ConfigDict) -> None:
  """Images of which the shorter side is 256 to 512 pixels long, and crops of 224 (Koo et al., section 4.1)."""
  c.data.name = "folder"
  c.data.resize = 512
  c.data.sides = (256, 512)
  c.data.crop = 224
  c.data.pad = 0
  c.data.mean = (0.485, 0.456, 0.406)  # of ImageNet
  c.data.std = (0.229, 0.224, 0.225)


def folder(c: mlc.ConfigDict) -> None:
  """The default."""


def tfds(c: mlc.ConfigDict) -> None:
  c.data.name = "open_images_v4/200k"
  c.data.label_feature = "bobjects/label"
  c.data.on_no_label = "skip"


def backbone(c: mlc.ConfigDict, name: str) -> None:
  c.backbone.name = name
  if name == "vgg16" and c.head.name.startswith("dhnn"):
    c.head.maps = VGG_MAPS


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  c.data.pad = 0
  c.backbone = dict(name="small_resnet", widths=(8, 16), blocks=1)
  c.head.width = 8
  c.head.size = 32


def s2s(c: mlc.ConfigDict) -> None:
  c.head.name = "dhnn_s2s"


def cnn(c: mlc.ConfigDict) -> None:
  c.head = dict(name="multilabel")
  if c.backbone.name == "vgg16":
    c.backbone.top = (4096, 4096)


def small(c: mlc.ConfigDict) -> None:
  """The default."""


def large(c: mlc.ConfigDict) -> None:
  c.head.size = 2048
  c.head.width = 1024


VGG_MAPS = ("conv5_1", "conv5_2", "conv5_3", "pool5")  # of the authors' code
NETWORKS = ("vgg16", "resnet50", "cbam_resnet50", "se_resnet50", "se_resnext50", "resnet152")
BACKBONES = {name: partial(backbone, name=name) for name in NETWORKS}
KINDS = (
  {"folder": folder, "tfds": tfds},
  {**BACKBONES, "smoke": smoke},
  {"small": small, "large": large},
  {"together": together, "alternating": alternating},
  CONVERSIONS,
  {"s2s": s2s, "cnn": cnn},
)
