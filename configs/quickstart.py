r"""CNN-RNN label paths (Guo et al. 2018) on `shapes`, drawings made by the package: nothing is downloaded.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
  hierjax train quickstart:smoke                                              # seconds

It takes about 2 minutes on 2 CPU cores; README.md shows the numbers.

Variants, at most one of each line:
  flat: a softmax over the leaves in place of the CNN-RNN head
  smoke: generated images, seconds

Every field can be set on the command line, and a part can be exchanged by its name, which then has its own defaults:
--config.head.dropout=0.5, --config.backbone.name=wide_resnet --config.backbone.depth=10 --config.backbone.width=1.
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
