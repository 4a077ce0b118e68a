r"""CNN-RNN label paths (Guo et al. 2018) on `shapes`, which the package draws itself: nothing is downloaded.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
  python train.py --config=configs/quickstart.py:smoke                       # seconds

Variants: `smoke`; `flat`, a softmax over the leaves in place of the CNN-RNN head.
"""

import ml_collections as mlc

from configs import common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "shapes"
  c.data.name = "shapes"
  c.batch_size = 128
  c.epochs = 10.0
  c.backbone = dict(name="small_resnet", widths=(16, 32, 64), blocks=1)
  c.head = dict(name="path_rnn", width=64, softmax="nodes")
  c.schedule.warmup = 1.0
  return common.apply(c, variant, KINDS)


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  c.backbone.widths = (8, 16)


KINDS = ({"smoke": smoke}, {"flat": common.flat})
