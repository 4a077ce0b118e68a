r"""C-HRNN on CIFAR-100 for 2 CPU cores: the comparison of Zuo et al. 2016, Table II, on one backbone.

  python train.py --config=configs/chrnn_cifar100.py:hlstm --workdir=runs/hlstm
  hierjax train chrnn_cifar100:spp --workdir=runs/spp

A run takes 3 to 6 minutes. Over three seeds leaf top-1 is 30.4% for `spp` and 34.9% for `hlstm` (docs/results.md).

Variants, at most one of each line:
  cpu (the default)
  hlstm (the default) | hsrn | mlstm | msrn (no links between the scales) | spp (no recurrence)
  directions1 | directions1_se | directions1_sw | directions1_ne | directions2 | directions2_se_ne (of the four) |
    modified_cnn (the same number of weights, no context) | modified_cnn_relu (of which all count: READINGS Z14)
  path: a CNN-RNN head in place of the softmax over the 100 leaves
  smoke: generated images, seconds
"""

import ml_collections as mlc

from configs import chrnn, common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.cifar100()
  c.neck = chrnn.neck()
  c.head = dict(name="flat")
  cpu(c)
  return common.apply(c, variant, KINDS)


def cpu(c: mlc.ConfigDict) -> None:
  c.backbone = dict(name="small_resnet", widths=(32, 64), blocks=1, stem_stride=2)  # its last map has 8 x 8 cells
  c.neck.scales = (1, 2, 4)
  c.neck.hidden = (512,)
  c.neck.dropout = 0.2
  c.batch_size = 64
  c.epochs = 3.0
  c.optim.name = "adamw"  # all rows of the table train at one rate; SGD needs another for each
  c.optim.lr = 2e-3
  c.optim.lr_batch = 64
  c.optim.decay = (("kernel$", 1e-2), (".*", 0.0))
  c.schedule.name = "cosine"
  c.schedule.warmup = 0.25
  c.log_every = 100


KINDS = ({"cpu": cpu}, chrnn.NETWORKS, chrnn.ABLATIONS, chrnn.HEADS, {"smoke": chrnn.smoke})
