r"""Partial labels on CIFAR-100 (Guo et al. 2018, section 4.2 and Figure 8): fine labels from coarse ones.

A part of the training images, S_fine, has whole labels, and another part, S_coarse, only the superclass. On the
features of a backbone that was trained on coarse labels alone, a run takes seconds on a CPU:

  python train.py --config=configs/cnnrnn_cifar100.py:cpu_long --config.tree.levels=1 --workdir=runs/superclasses
  hierjax data features runs/superclasses runs/superclass-features

The paper's method trains on S_fine alone, predicts the fine labels of S_coarse given the coarse ones, and trains anew
on both parts:

  python train.py --config=configs/coarse_labels_cifar100.py:f20c50,fine --config.data.root=runs/superclass-features \
    --workdir=runs/f20-fine
  hierjax data pseudo-label runs/f20-fine
  python train.py --config=configs/coarse_labels_cifar100.py:f20c50,pseudo --config.data.root=runs/superclass-features \
    --config.data.pseudo_labels=runs/f20-fine/pseudo_labels.npz --workdir=runs/f20c50-pseudo

Our method needs one run: a coarse label trains the summed probability of the leaves below it. The upper bound trains on
S_coarse with its true labels:

  python train.py --config=configs/coarse_labels_cifar100.py:f20c50,direct --config.data.root=runs/superclass-features
  python train.py --config=configs/coarse_labels_cifar100.py:f20c50,truth --config.data.root=runs/superclass-features

`python -m benchmarks.coarse_labels_table` trains all nine pairs and draws Figure 8; docs/results.md has the table. With
`cpu` or another network, training is end to end on the images.

Variants, at most one of each line:
  f10c10 | f10c20 | f10c50 | f20c10 | f20c20 | f20c50 | f50c10 | f50c20 | f50c50 (the default): percent of the images in
    S_fine and in S_coarse
  fine: S_fine alone | pseudo: S_fine + S_coarse^- | truth: S_fine + S_coarse^+ | direct (the default)
  path_rnn (the default): CNN-RNN | flat: a softmax over the leaves | coarse_fine: a softmax a level
  cnn7 | wrn | wider | cpu | cpu_long: end to end, with that network and its schedule | smoke: generated features,
    seconds

A tenth of the training images is kept for validation with whole labels, and the best weights on it are used. Every
variant trains for as many steps as if S_fine and S_coarse were all images, so fewer images are seen more often. If you
change `data.fine` or `data.coarse` on the command line, set `epochs` too.
"""

import itertools
from functools import partial

import ml_collections as mlc

from configs import common, features

PARTS = (10, 20, 50)  # percent
EPOCHS = {"path_rnn": 4.0, "flat": 10.0, "coarse_fine": 10.0}  # of all images


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = features.get_config()
  c.data.fine = c.data.coarse = 0.5
  c.epochs = EPOCHS[c.head.name]
  c.optim.lr = 3e-3  # of 1e-3, 3e-3 and 1e-2, on validation and S_fine alone
  common.apply(c, variant, KINDS)
  return of_all_images(c)


def of_all_images(c: mlc.ConfigDict) -> mlc.ConfigDict:
  """Makes all fields in epochs count epochs of all images."""
  used = c.data.fine + (0.0 if c.data.partial_labels == "drop" else c.data.coarse)
  for section, key in ((c, "epochs"), (c, "eval_every"), (c, "checkpoint_every"), (c.schedule, "warmup")):
    section[key] = section[key] / used
  c.schedule.boundaries = tuple(epoch / used for epoch in c.schedule.boundaries)
  return c


def parts(fine: int, coarse: int, c: mlc.ConfigDict) -> None:
  c.data.fine = fine / 100
  c.data.coarse = coarse / 100


def images(what: str, c: mlc.ConfigDict) -> None:
  c.data.partial_labels = what


def head(edit: common.Edit, c: mlc.ConfigDict) -> None:
  edit(c)
  c.epochs = EPOCHS[c.head.name]


def end_to_end(network: common.Edit, c: mlc.ConfigDict) -> None:
  c.tree.source = c.data.name = "cifar100"
  c.data.mean, c.data.std = common.cifar100().data.mean, common.cifar100().data.std
  c.optim.name = "sgd"
  c.schedule.warmup = 0.0
  network(c)


def smoke(c: mlc.ConfigDict) -> None:
  features.smoke(c)
  c.data.examples = 8_000  # a tenth of them contains each class
  c.batch_size = 64
  c.epochs = 0.2
  c.schedule.warmup = 0.0


PAIRS = {f"f{fine}c{coarse}": partial(parts, fine, coarse) for fine, coarse in itertools.product(PARTS, PARTS)}
LABELS = {
  "fine": partial(images, "drop"),
  "pseudo": partial(images, "pseudo"),
  "truth": partial(images, "truth"),
  "direct": partial(images, "direct"),
}
KINDS = (
  PAIRS,
  LABELS,
  {name: partial(head, edit) for name, edit in features.KINDS[0].items()},
  {name: partial(end_to_end, edit) for name, edit in common.CIFAR100_NETWORKS.items()} | {"smoke": smoke},
)
