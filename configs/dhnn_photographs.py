r"""DHNN on photographs with one label path each: the rows of Tables 1 and 2 of Koo et al. (2020).

  hierjax weights import resnet50.safetensors --backbone resnet50 --out resnet50-backbone.npz
  python train.py --config=configs/dhnn_photographs.py:resnet50,alternating,residual --config.data.root=PHOTOS \
    --config.init.weights=resnet50-backbone.npz --workdir=runs/res-rnn-alt-resi     # GPU
  python train.py --config=configs/dhnn_photographs.py:lite0 --config.data.root=PHOTOS --workdir=runs/lite0-rnn

The paper's photographs are proprietary; PHOTOS is a folder of your own, or a CSV file of labels, as in
configs/photos.py. The sizes are the paper's: batches of 32, 30 epochs, 3 recurrent layers of fixed path length and 1 of
the general tree, pooling; of its ranges, p = 1024 numbers a step and states of 512. The rate is not given: Adam's 1e-4.

| Table 1, paths of one length | variant | Table 2, the general tree | variant |
|---|---|---|---|
| VGG-16 | vgg16,cnn | VGG-16 | vgg16,general,cnn |
| VGG-RNN | vgg16 | VGG-S2S | vgg16,general |
| VGG-RNN-Alt | vgg16,alternating | VGG-S2S-Alt | vgg16,general,alternating |
| VGG-RNN-Alt-Resi | vgg16,alternating,residual | Res-50 | resnet50,general,cnn |
| Res-50 | resnet50,cnn | Res-S2S | resnet50,general |
| Res-RNN | resnet50 | Res-S2S-Alt | resnet50,general,alternating |
| Res-RNN-Alt | resnet50,alternating | | |
| Res-RNN-Alt-Resi | resnet50,alternating,residual | | |

Paths of one length: where those of your labels differ, --config.tree.levels=2 cuts them to levels that all reach, as on
the Grocery Store. In the general tree a label may end at any node (`short_labels = stop`). `lite0` trains
EfficientNet-Lite0, whose weights come with the extra `weights`, for 8 epochs at a rate of 1e-3, for machines without a
GPU. None of the rows has been run to its end.

Variants, at most one of each line:
  vgg16: reads conv5_1, conv5_2, conv5_3 and pool5, as the authors' code | resnet50 (the default) | lite0 | frozen_lite0
    (its weights stay, and what the head reads of it is computed once: minutes on 2 cores) | smoke
  fixed (the default): Table 1 | general: Table 2
  plain_rnn (the default) | residual: with residual arcs; with `fixed` alone
  together (the default) | alternating: recurrence and backbone take turns of an epoch in the first half (READINGS K14)
  cnn: the plain network: a softmax over the leaves, or in the general tree over all nodes where labels end
"""

import ml_collections as mlc

from configs import common, photos
from configs.dhnn import alternating, together
from configs.dhnn_openimages import VGG_MAPS, photographs


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "images"
  photographs(c)
  c.batch_size = 32
  c.epochs = 30.0
  c.backbone = dict(name="resnet50")
  c.head = dict(name="dhnn_rnn", width=512, size=1024, layers=3, residual=False, conversion="pool")
  c.optim.name = "adamw"
  c.optim.lr = 1e-4
  c.optim.lr_batch = 32
  c.optim.decay = ((".*", 0.0),)
  c.schedule.name = "constant"
  return common.apply(c, variant, KINDS)


def resnet50(c: mlc.ConfigDict) -> None:
  """The default."""


def vgg16(c: mlc.ConfigDict) -> None:
  c.backbone.name = "vgg16"
  c.head.maps = VGG_MAPS


def lite0(c: mlc.ConfigDict) -> None:
  c.data.sides = ()
  photos.pretrained(c)
  c.optim.decay = ((".*", 0.0),)
  c.optim.lr = 1e-3
  c.optim.lr_groups = (("^backbone/", 0.1), (".*", 1.0))
  c.epochs = 8.0
  c.schedule.name = "cosine"
  c.schedule.warmup = 0.5


def frozen_lite0(c: mlc.ConfigDict) -> None:
  """The vectors of the stages are kept, of three views a photograph; see `hierjax.nn.kept`. States of 128."""
  lite0(c)
  photos.frozen(c)
  c.head.width = 128
  c.data.crop_area = photos.CROP_AREA


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  c.tree.source = "cifar100"
  c.data.pad = 0
  c.backbone = dict(name="small_resnet", widths=(8, 16), blocks=1)
  c.head.layers = 1
  c.head.width = 8
  c.head.size = 32


def fixed(c: mlc.ConfigDict) -> None:
  """The default."""


def general(c: mlc.ConfigDict) -> None:
  c.tree.short_labels = "stop"
  maps = c.head.get("maps", ())
  c.head = dict(name="dhnn_s2s", width=c.head.width, size=c.head.size, conversion="pool", maps=maps)


def plain_rnn(c: mlc.ConfigDict) -> None:
  """The default."""


def residual(c: mlc.ConfigDict) -> None:
  if c.head.name == "dhnn_rnn":
    c.head.residual = True


def cnn(c: mlc.ConfigDict) -> None:
  c.head = dict(name="flat" if c.tree.short_labels == "unknown" else "flat_ends")
  if c.backbone.name == "vgg16":
    c.backbone.top = (4096, 4096)


KINDS = (
  {"vgg16": vgg16, "resnet50": resnet50, "lite0": lite0, "frozen_lite0": frozen_lite0, "smoke": smoke},
  {"fixed": fixed, "general": general},
  {"plain_rnn": plain_rnn, "residual": residual},
  {"together": together, "alternating": alternating},
  {"cnn": cnn},
)
