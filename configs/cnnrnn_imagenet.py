r"""CNN-RNN on frozen features of ILSVRC 2012 (Guo et al. 2018, section 4.1.2): paths of 4 to 18 labels.

  python train.py --config=configs/cnnrnn_imagenet.py --config.data.root=FEATURES --workdir=runs/cnnrnn-imagenet

FEATURES has the folders train and test (ILSVRC's validation images) with the features of any backbone, written by
`hierjax data features` or by another program: see configs/features.py. The paper uses the last pooling of ResNet-152,
2048 values. For another width: --config.backbone.width=512.

The variant `images` reads the images, TFDS's imagenet2012 or folders, through a frozen ResNet-152 with imported
weights; every epoch costs its forward pass. As in the paper, images are resized to 224 x 224 without keeping their
ratio, and are neither cropped nor mirrored:

  hierjax weights import resnet152.safetensors --backbone resnet152 --out resnet152-hierjax.safetensors
  python train.py --config=configs/cnnrnn_imagenet.py:images --config.init.weights=resnet152-hierjax.safetensors

To store the features once, add --config.epochs=0, and then run `hierjax data features RUN FEATURES`. For folders:
--config.data.name=folder --config.data.root=PHOTOS --config.data.test_split=

Embedding and LSTM are 1000 wide, as in the paper. The paper's tree of 860 coarse labels and paths of 1 to 9 was not
published. This config uses WordNet's tree with 785 inner nodes (READINGS G13), so numbers do not compare. The paper
does not give the optimiser; AdamW and the cosine schedule are ours. It shows examples and no accuracy. The config has
not been run.

Variants, at most one of each line:
  siblings: a softmax over the children of the last label, in place of the paper's over all labels
  images: through a frozen ResNet-152, in place of stored features
  smoke: generated features, seconds
"""

import ml_collections as mlc

from configs import common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "imagenet1k"
  c.data.name = "features"
  c.data.validation = 0.02  # of the training images, where FEATURES has no folder `validation`
  c.backbone = dict(name="features", width=2048)
  c.head = dict(name="path_rnn", width=1000, embed_width=1000, softmax="nodes", dropout=0.0)
  c.batch_size = 256
  c.epochs = 10.0
  c.optim.name = "adamw"
  c.optim.lr = 1e-3
  c.optim.lr_batch = 256
  c.optim.decay = (("kernel$", 1e-2), (".*", 0.0))
  c.optim.clip_norm = 1.0
  c.schedule.warmup = 0.1
  return common.apply(c, variant, KINDS)


def images(c: mlc.ConfigDict) -> None:
  c.data.name = "imagenet2012"
  c.data.test_split = "validation"
  c.data.resize = 224
  c.data.fit = "stretch"
  c.data.crop = 224
  c.data.pad = 0
  c.data.mirror = False
  c.data.mean = (0.485, 0.456, 0.406)
  c.data.std = (0.229, 0.224, 0.225)
  c.backbone = dict(name="resnet152")
  c.optim.lr_groups = (("^backbone/", None), (".*", 1.0))


def siblings(c: mlc.ConfigDict) -> None:
  c.head.softmax = "siblings"


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  if c.backbone.name == "features":
    c.data.width = c.backbone.width = 32
  else:
    c.backbone.width = 4
    c.data.test_split = ""
  c.head.width = c.head.embed_width = 16


KINDS = ({"images": images}, {"siblings": siblings}, {"smoke": smoke})
