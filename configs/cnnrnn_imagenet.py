r"""CNN-RNN on frozen features of ILSVRC 2012 (Guo et al. 2018, section 4.1.2): paths of 4 to 18 labels.

  python train.py --config=configs/cnnrnn_imagenet.py --config.data.root=FEATURES --workdir=runs/cnnrnn-imagenet

FEATURES has the folders train and test (ILSVRC's validation images) with the features of any backbone, made by
`python -m hierjax features` or elsewhere: configs/features.py says how. The paper took ResNet-152's last pooling, 2048
values; of another width: --config.backbone.width=512.

Embedding and LSTM are 1000 wide, as in the paper. Its tree of 860 coarse labels and paths of 1 to 9 was not published;
this one is WordNet's as it ships with the package, with 785 (READINGS G13), so numbers do not compare. It says nothing
of the optimiser: AdamW and a cosine are ours. The paper shows examples and no accuracy, and this has not been run yet.

Variants, at most one of each line:
  siblings: a softmax over the children of the last label, in place of the paper's over all labels
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


def siblings(c: mlc.ConfigDict) -> None:
  c.head.softmax = "siblings"


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  c.data.width = c.backbone.width = 32
  c.head.width = c.head.embed_width = 16


KINDS = ({"siblings": siblings}, {"smoke": smoke})
