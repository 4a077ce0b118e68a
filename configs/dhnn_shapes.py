r"""DHNN with several label paths an image (Koo et al. 2020, section 4.2) on `shapes`, drawings made by the package.

  python train.py --config=configs/dhnn_shapes.py --workdir=runs/dhnn-shapes
  python train.py --config=configs/dhnn_shapes.py:cnn --workdir=runs/cnn-shapes
  python train.py --config=configs/dhnn_shapes.py:smoke                       # seconds

An image has one to three different figures. Each node has a sigmoid, and a path is selected where all its nodes pass a
threshold. The threshold is chosen on validation for the largest path F1, and kept in choices.json (READINGS K11). A run
takes 3 to 5 minutes on one core; docs/results.md has the F1 over seeds 0, 1 and 2.

Variants, at most one of each line:
  smoke
  s2s (the default) | rnn: of fixed length, for leaves on one level | cnn: sigmoids on the last features alone
  together (the default) | alternating: recurrence and backbone take turns of an epoch in the first half
  pool (the default) | pool_average | pool_linear | pool_dense | linear | conv | dense: the conversion; not with `cnn`
  one (the default) | levels: a threshold for all nodes, or one a level
"""

import ml_collections as mlc

from configs import common
from configs.dhnn import CONVERSIONS, alternating, together


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "shapes"
  c.data.name = "shapes"
  c.data.objects = 3
  c.data.resize = c.data.crop = 48
  c.batch_size = 64
  c.epochs = 5.0
  c.backbone = dict(name="small_resnet", widths=(16, 32, 64, 128), blocks=1)
  c.head = dict(name="dhnn_s2s", width=64, size=128, conversion="pool", output="sigmoid")
  c.optim.name = "adamw"
  c.optim.lr = 0.002
  c.optim.lr_batch = 64
  c.optim.clip_norm = 5.0
  c.schedule.warmup = 1.0
  return common.apply(c, variant, KINDS)


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  c.data.name = "shapes"
  c.backbone.widths = (8, 8, 16, 16)
  c.head.width = 8
  c.head.size = 32


def s2s(c: mlc.ConfigDict) -> None:
  c.head.name = "dhnn_s2s"


def rnn(c: mlc.ConfigDict) -> None:
  c.head.name = "dhnn_rnn"


def cnn(c: mlc.ConfigDict) -> None:
  c.head = dict(name="multilabel")


def one(c: mlc.ConfigDict) -> None:
  c.decode.threshold_per = "tree"


def levels(c: mlc.ConfigDict) -> None:
  c.decode.threshold_per = "level"


KINDS = (
  {"smoke": smoke},
  {"s2s": s2s, "rnn": rnn, "cnn": cnn},
  {"together": together, "alternating": alternating},
  CONVERSIONS,
  {"one": one, "levels": levels},
)
