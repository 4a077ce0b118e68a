r"""CNN-RNN on a subset of ImageNet 2010 (Guo et al. 2018, Tables 6, 7 and Figure 8): 143 coarse and 387 fine classes.

  python train.py --config=configs/cnnrnn_imagenet2010.py:cnn_rnn --config.data.root=IMAGES \
    --config.data.labels=labels.csv --config.init.weights=vgg16-hierjax.npz --workdir=runs/vgg-rnn           # GPU
  python train.py --config=configs/cnnrnn_imagenet2010.py:s40 --config.data.root=FEATURES --workdir=runs/rnn-s40

For whoever has the images: labels.csv has the columns image, split (train or test), coarse and fine, after the lists of
Ristin et al. 2015, whose subset it is: 487,000 images to train on and 21,450 to test on. FEATURES has the folders train
and test with their features by VGG-16, 4096 numbers each. The variant `cnn_rnn` with --config.epochs=0 makes a run with
the imported weights, and `hierjax data features RUN FEATURES` writes them; other widths: --config.backbone.width=512.

| Table 6 | variant | Table 7, the RNN | variant |
|---|---|---|---|
| RNN, 0.2 S | s20 | 0.1 S | f10c50,pseudo |
| RNN, 0.4 S | s40 | 0.2 S | f20c50,pseudo |
| RNN, S | rnn | 0.5 S | f50c50,pseudo |
| CNN | cnn | | |
| CNN-RNN | cnn_rnn | | |
| CNN-RNN* | the same, by `hierjax evaluate RUN --known-levels 1` | | |

Pseudo-labels come from the run of the same word with `fine`, by `hierjax data pseudo-label` (see
configs/coarse_labels_cifar100.py): --config.data.pseudo_labels=RUN/pseudo_labels.npz. The paper has 75.09, 76.17 and
77.27 (RNN), 76.01 (CNN), 82 (CNN-RNN) and 90.69 (CNN-RNN*); and 74.26, 75.64 and 77.12 in Table 7. Figure 8 is all nine
pairs of percentages, each with `fine`, `pseudo` and `truth`. The paper gives neither optimiser nor epochs; these are
ours. The config has not been run (READINGS G15).

Variants, at most one of each line:
  rnn (the default): on features | cnn: VGG-16 fine-tuned, a softmax over the leaves | cnn_rnn: VGG-16 and the RNN,
    end to end | smoke: generated features, seconds
  s20 | s40: percent of S, of Table 6 | f10c10 | f10c20 | f10c50 | f20c10 | f20c20 | f20c50 | f50c10 | f50c20 | f50c50:
    percent in S_fine and in S_coarse, of Figure 8
  fine: S_fine alone | pseudo: S_fine + S_coarse^- | truth: S_fine + S_coarse^+ | direct (the default): coarse labels
    train the summed probability of the leaves below them
"""

from functools import partial

import ml_collections as mlc

from configs import common, features
from configs.coarse_labels_cifar100 import LABELS, PAIRS, of_all_images, parts


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = features.get_config()
  c.backbone.width = 4096
  c.head = dict(name="path_rnn", width=1000, embed_width=1000, softmax="nodes")
  c.data.validation = 0.02
  common.apply(c, variant, KINDS)
  return of_all_images(c)


def rnn(c: mlc.ConfigDict) -> None:
  """The default."""


def cnn_rnn(c: mlc.ConfigDict) -> None:
  c.data.name = "folder"
  c.data.resize = 256
  c.data.crop = 224
  c.data.pad = 0
  c.data.mean = (0.485, 0.456, 0.406)  # of ImageNet
  c.data.std = (0.229, 0.224, 0.225)
  c.backbone = dict(name="vgg16", top=(4096, 4096))
  c.batch_size = 128
  c.optim = common.base().optim
  c.optim.lr = 1e-3
  c.optim.lr_groups = (("^backbone/", 1.0), (".*", 10.0))


def cnn(c: mlc.ConfigDict) -> None:
  cnn_rnn(c)
  c.head = dict(name="flat")


def smoke(c: mlc.ConfigDict) -> None:
  features.smoke(c)
  c.data.examples = 8_000  # a tenth of them contains each class
  c.batch_size = 64
  c.epochs = 0.2
  c.schedule.warmup = 0.0
  c.head.width = c.head.embed_width = 16


KINDS = (
  {"rnn": rnn, "cnn": cnn, "cnn_rnn": cnn_rnn, "smoke": smoke},
  {"s20": partial(parts, 20, 0), "s40": partial(parts, 40, 0), **PAIRS},
  LABELS,
)
