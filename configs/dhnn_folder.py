r"""DHNN on your own images and tree (Koo et al. 2020), such as a tree of parts: paths of any length.

  python train.py --config=configs/dhnn_folder.py --config.data.root=PHOTOS --workdir=runs/mine

PHOTOS/house/roof/7.jpg is an image of the path house > roof. An image directly in PHOTOS/house is a house and nothing
more (`short_labels = stop`), and the model learns to end the path there. See configs/photos.py for splits and for
labels in a CSV file. Pretrained weights are a good start: see docs/how_to/pretrained.md.

Variants, at most one of each line:
  resnet50 (the default) | vgg16 | se_resnet50 | se_resnext50 | cbam_resnet50 | resnet152 | small: for 64 pixels | smoke
  one (the default) | several: label paths an image, in a CSV file with a line for each
  together (the default) | alternating: recurrence and backbone take turns of an epoch in the first half (READINGS K14)
  pool (the default) | pool_average | pool_linear | pool_dense | linear | conv | dense: the conversion; not with `cnn`
  cnn: the plain network, a softmax over all nodes where labels end, or with `several` a sigmoid a node
"""

import ml_collections as mlc

from configs import common
from configs.dhnn import CONVERSIONS, alternating, together
from configs.dhnn_openimages import BACKBONES, photographs


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "images"
  c.tree.short_labels = "stop"
  photographs(c)
  c.batch_size = 32
  c.epochs = 30.0
  c.backbone = dict(name="resnet50")
  c.head = dict(name="dhnn_s2s", width=512, size=256, conversion="pool", output="softmax")
  c.optim.name = "adamw"
  c.optim.lr = 1e-4
  c.optim.lr_batch = 32
  c.optim.decay = (("kernel$", 0.05), (".*", 0.0))
  c.schedule.warmup = 1.0
  return common.apply(c, variant, KINDS)


def small(c: mlc.ConfigDict) -> None:
  c.data.resize = 72
  c.data.crop = 64
  c.data.sides = ()
  c.backbone = dict(name="small_resnet", widths=(32, 64, 128, 256), blocks=1, stem_stride=2)
  c.head.width = 128
  c.optim.lr = 1e-3


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  c.tree.source = "shapes"
  c.data.pad = 0
  c.backbone = dict(name="small_resnet", widths=(8, 16), blocks=1)
  c.head.width = 8
  c.head.size = 32


def one(c: mlc.ConfigDict) -> None:
  c.head.output = "softmax"


def several(c: mlc.ConfigDict) -> None:
  c.head.output = "sigmoid"


def cnn(c: mlc.ConfigDict) -> None:
  c.head = dict(name="multilabel" if c.head.output == "sigmoid" else "flat_ends")


KINDS = (
  {**BACKBONES, "small": small, "smoke": smoke},
  {"one": one, "several": several},
  {"together": together, "alternating": alternating},
  CONVERSIONS,
  {"cnn": cnn},
)
