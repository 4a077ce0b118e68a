r"""Merged networks on CIFAR-100 (Dutt et al. 2017, Fig. 2): a softmax over 20 coarse labels and one over 100 fine ones.

  python train.py --config=configs/merged_cifar100.py:resnet164,merge2 --workdir=runs/merge2     # GPU
  python train.py --config=configs/merged_cifar100.py:cpu,merge2 --workdir=runs/merge2-cpu       # 2 CPU cores
  hierjax evaluate runs/merge2-cpu --alpha sweep

The last command is classifier adaptation (their Algorithm 1). Their `separate` networks are two runs, one of the coarse
and one of the fine labels, which `hierjax evaluate runs/coarse+runs/fine` takes as one member:

  python train.py --config=configs/merged_cifar100.py:cpu,separate,coarse --workdir=runs/coarse
  python train.py --config=configs/merged_cifar100.py:cpu,separate,fine --workdir=runs/fine

Over three seeds the path accuracy of `cpu,merge2` is 39.5%, with 3 epochs (docs/results.md).

Variants, at most one of each line:
  resnet164 (the default) | densenet100 | cpu | smoke
  separate | merge0: a network for each level, trained together | merge1 | merge2 (the default) | merge3: all levels
    share the first 1, 2 or 3 of the 3 stages (READINGS D4)
  coarse | fine (the default): with `separate`, the level that is trained

ResNet-164 and DenseNet-100-BC have the schedules of their own papers (He et al. 2016b, Huang et al. 2016), as Dutt et
al. state; they have not been run. `cpu` keeps a tenth of the training images for validation, where alpha is chosen.
"""

import ml_collections as mlc

from configs import common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.cifar100()
  c.head = dict(name="coarse_fine", strategy="parallel")
  c.optim.clip_groups = ("(branches|levels)_0/", "(branches|levels)_1/")  # a group a level, where clip_norm is set
  resnet164(c)
  merge2(c)
  return common.apply(c, variant, KINDS)


def resnet164(c: mlc.ConfigDict) -> None:
  """64,000 steps of 128, the rate 0.1 divided by 10 after 32,000 and 48,000.

  The first 400 steps warm up, in a line from 0; those of He et al. have 0.01 throughout (READINGS D10).
  """
  c.backbone = dict(name="preact_resnet", depth=164)
  c.batch_size = 128
  c.epochs = 163.84
  c.optim.lr_batch = 128
  c.optim.nesterov = False
  c.optim.decay = ((".*", 1e-4),)
  c.schedule.boundaries = (81.92, 122.88)
  c.schedule.factor = 0.1
  c.schedule.warmup = 1.024


def densenet100(c: mlc.ConfigDict) -> None:
  """300 epochs of batches of 64, the rate 0.1 divided by 10 after a half and three quarters."""
  c.backbone = dict(name="densenet", depth=100, growth=12)
  c.batch_size = 64
  c.epochs = 300.0
  c.optim.lr_batch = 64
  c.optim.nesterov = True
  c.optim.decay = ((".*", 1e-4),)
  c.schedule.boundaries = (150.0, 225.0)
  c.schedule.factor = 0.1
  c.schedule.warmup = 0.0


def cpu(c: mlc.ConfigDict) -> None:
  common.cifar100_cpu(c)
  c.epochs = 3.0
  c.data.validation = 0.1


def smoke(c: mlc.ConfigDict) -> None:
  common.cifar100_smoke(c)
  c.backbone = dict(name="small_resnet", widths=(8, 8, 16), blocks=1)


def separate(c: mlc.ConfigDict) -> None:
  c.merged.shared = 0
  fine(c)


def merge0(c: mlc.ConfigDict) -> None:
  c.merged.shared = 0


def merge1(c: mlc.ConfigDict) -> None:
  c.merged.shared = 1


def merge2(c: mlc.ConfigDict) -> None:
  c.merged.shared = 2


def merge3(c: mlc.ConfigDict) -> None:
  c.merged.shared = 3


def coarse(c: mlc.ConfigDict) -> None:
  c.tree.levels = 1
  c.merged.levels = (1,)


def fine(c: mlc.ConfigDict) -> None:
  c.tree.levels = 0
  c.merged.levels = (2,)


KINDS = (
  {"resnet164": resnet164, "densenet100": densenet100, "cpu": cpu, "smoke": smoke},
  {"separate": separate, "merge0": merge0, "merge1": merge1, "merge2": merge2, "merge3": merge3},
  {"coarse": coarse, "fine": fine},
)
