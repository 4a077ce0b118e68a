r"""A head on the precomputed features of any backbone: seconds on a CPU.

  hierjax data features runs/cnnrnn-cpu runs/features
  python train.py --config=configs/features.py --config.data.root=runs/features --config.backbone.width=256

The first command writes the features of a trained run's backbone, once, and prints the second. A run on features is
evaluated as any other. `predict` reads images through the run that made the features, as long as its folder exists.

Features of another program need two files a split, FOLDER/train/features.npy and FOLDER/train/nodes.npy, and the same
for test; validation is a further folder, or a tenth of train. `features` is an array [n d], and `labels` has the class
of each image as an index into the list `classes`, which holds ids (n01440764) or names of leaves in any order:

  tree = hierjax.open_tree("imagenet1k")
  np.save("FOLDER/train/features.npy", features.astype(np.float32))
  np.save("FOLDER/train/nodes.npy", hierjax.class_nodes(tree, classes)[labels])

Give --config.tree.source=imagenet1k too, or write tree.to_json() to FOLDER/tree.json.

Variants, at most one of each line:
  path_rnn (the default): CNN-RNN | flat: a softmax over the leaves | coarse_fine: a softmax a level
  smoke: generated features, seconds
"""

import ml_collections as mlc

from configs import common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.base()
  c.tree.source = "images"
  c.data.name = "features"
  c.backbone = dict(name="features", width=256)
  path_rnn(c)
  c.batch_size = 256
  c.epochs = 10.0
  c.optim.name = "adamw"
  c.optim.lr = 1e-3
  c.optim.lr_batch = 256
  c.optim.decay = (("kernel$", 1e-2), (".*", 0.0))
  c.schedule.warmup = 0.5
  return common.apply(c, variant, KINDS)


def path_rnn(c: mlc.ConfigDict) -> None:
  c.head = dict(name="path_rnn", width=256, embed_width=64, softmax="nodes", dropout=0.0)


def coarse_fine(c: mlc.ConfigDict) -> None:
  c.head = dict(name="coarse_fine", strategy="parallel")


def smoke(c: mlc.ConfigDict) -> None:
  common.smoke(c)
  c.tree.source = "cifar100"
  c.data.width = c.backbone.width = 32
  if c.head.name == "path_rnn":
    c.head.width = c.head.embed_width = 16


KINDS = ({"path_rnn": path_rnn, "flat": common.flat, "coarse_fine": coarse_fine}, {"smoke": smoke})
