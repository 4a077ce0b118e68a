r"""Your own photographs: a pretrained network, and a head that learns your label tree.

  python train.py --config=configs/photos.py --config.data.root=PHOTOS --workdir=runs/mine

which is `hierjax train photos ...`.

PHOTOS/animal/dog/basenji/7.jpg is an image of the path animal > dog > basenji. PHOTOS/animal/dog/8.jpg has a partial
label, animal > dog. If PHOTOS has the folders train, and test or validation, or other words for them, those are the
splits; otherwise a tenth of the images of each label is kept for validation. With --config.data.labels=FILE.csv the
labels come from a CSV file, whose columns are found by their header. `hierjax data check PHOTOS` prints the splits, the
tree and the errors before training.

The network is EfficientNet-Lite0 with ImageNet weights, of the extra `weights`. It is frozen: its features are computed
once and kept in the cache, and a CNN-RNN head is trained on them, which normalises them first. Other weights:
--config.init.weights=lite2, or hf:timm/NAME. Other sizes of images: --config.data.size=288.

Variants, at most one of each line:
  finetune (the network trains too, on squares of 192 pixels, with layer-wise rates; the stem, the first two stages and
    the statistics of the norms stay as they are)
    | from_scratch (a small network from random weights, without any download) | smoke (generated images, seconds)
  context: a C-HRNN neck (Zuo et al. 2016) on the network's last map; the network trains as with finetune
  flat: a softmax over the leaves in place of the CNN-RNN head, with the same dropout and label smoothing
  any_orientation: images of things that have no upright position, such as plankton and aerial views
"""

import ml_collections as mlc

from configs import chrnn, common

CROP_AREA = (0.35, 1.0)


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "images"
  c.data.name = "folder"
  c.data.pad = 0
  c.data.crop_area = CROP_AREA
  c.data.jitter = (0.2, 0.2, 0.2)
  c.head = dict(name="path_rnn", width=256, softmax="nodes", dropout=0.2, label_smoothing=0.1)
  c.head.norm = "layer"
  c.head.image_gain = 0.5
  pretrained(c)
  frozen(c)
  return common.apply(c, variant, KINDS)


def pretrained(c: mlc.ConfigDict) -> None:
  c.backbone = dict(name="pretrained")
  c.init.weights = "lite0"
  c.data.size = c.data.crop = c.data.resize = 0  # as the weights want it
  c.data.mean = c.data.std = ()
  c.data.interpolation = ""
  c.optim.name = "adamw"
  c.optim.decay = (("(bias|scale|embedding)$", 0.0), (".*", 0.01))
  c.optim.clip_norm = 1.0


def frozen(c: mlc.ConfigDict) -> None:
  c.frozen.keep = True
  c.frozen.views = 2
  c.batch_size = 64
  c.epochs = 40.0
  c.least_steps = 500
  c.most_steps = 20_000
  c.eval_every = c.checkpoint_every = 2.0
  c.patience = 30.0
  c.optim.lr = 1e-3
  c.optim.lr_batch = 64
  c.optim.lr_groups = (("^backbone/", None), (".*", 1.0))
  c.schedule.warmup = 2.0


def plain_head(c: mlc.ConfigDict) -> None:
  """Reads features as they are; whether a norm helps those of a network that trains is not known."""
  c.head.norm = "none"
  c.head.image_gain = 2.0


def finetune(c: mlc.ConfigDict) -> None:
  plain_head(c)
  c.frozen.keep = False
  c.frozen.views = 0
  c.data.train_crop = 192
  c.data.crop_area = (0.2, 1.0)
  c.batch_size = 32
  c.epochs = 8.0
  c.least_steps = 300
  c.most_steps = 100_000
  c.eval_every = c.checkpoint_every = 1.0
  c.patience = 4.0
  c.optim.lr = 3e-3
  c.optim.lr_batch = 32
  # The first layers are general, and cost a third of the time: 33 images/s in place of 21 on 2 cores.
  c.optim.lr_groups = (("^backbone/(stem|stages_[01])/", None), ("^backbone/", 0.1), (".*", 1.0))
  c.optim.layer_decay = 0.9
  c.optim.keep_statistics = ("backbone",)
  c.schedule.warmup = 0.5


def from_scratch(c: mlc.ConfigDict) -> None:
  """Images of 64 pixels; larger ones show finer details and take longer."""
  plain_head(c)
  c.head.dropout = c.head.label_smoothing = 0.0  # they are for pretrained networks
  c.init.weights = ""
  c.backbone = dict(name="small_resnet", widths=(32, 64, 128, 256), blocks=1, stem_stride=2)
  c.data.size = 0
  c.data.resize = 72
  c.data.crop = 64
  c.data.interpolation = "bilinear"
  c.data.mean = (0.485, 0.456, 0.406)  # of ImageNet
  c.data.std = (0.229, 0.224, 0.225)
  c.data.crop_area = ()
  c.data.jitter = ()
  c.frozen.keep = False
  c.frozen.views = 0
  c.batch_size = 64
  c.epochs = 30.0
  c.least_steps = c.most_steps = 0
  c.eval_every = c.checkpoint_every = 1.0
  c.patience = 0.0
  c.optim = common.base().optim
  c.schedule.warmup = 1.0


def smoke(c: mlc.ConfigDict) -> None:
  from_scratch(c)
  common.smoke(c)
  c.tree.source = "shapes"
  c.backbone = dict(name="small_resnet", widths=(8, 16), blocks=1)
  if "width" in c.head:
    c.head.width = 16


def context(c: mlc.ConfigDict) -> None:
  if c.frozen.keep:  # the maps of all views are a hundred times as large as the pooled features
    finetune(c)
  c.neck = chrnn.neck()
  c.neck.channels = 256  # those of AlexNet's conv5
  c.neck.scales = (1, 2, 4)
  c.neck.hidden = (512,)


def flat(c: mlc.ConfigDict) -> None:
  """A softmax over the leaves; without label smoothing its loss is near 0 before a pretrained network has adapted."""
  criterion = "label_smoothing" if c.head.label_smoothing else "cross_entropy"
  c.head = dict(name="flat", criterion=criterion, dropout=c.head.dropout)


def any_orientation(c: mlc.ConfigDict) -> None:
  c.data.crop_area = (0.5, 1.0)
  c.data.rotate = 180.0
  c.data.flip = True
  c.data.pad = 0


KINDS = (
  {"finetune": finetune, "from_scratch": from_scratch, "smoke": smoke},
  {"context": context},
  {"flat": flat},
  {"any_orientation": any_orientation},
)
