r"""DHNN of variable path length on CIFAR-100 (Koo et al. 2020, section 3.2): paths of 2 to 8 nodes, after WordNet.

  python train.py --config=configs/dhnn_cifar100_wordnet.py:wrn --workdir=runs/s2s-wrn     # GPU
  python train.py --config=configs/dhnn_cifar100_wordnet.py:cpu --workdir=runs/s2s-cpu     # 2 CPU cores

An encoder reads all stages, the deepest first, and a decoder predicts the path and STOP. The paper does not use
CIFAR-100; networks and schedules are those of configs/flat_cifar100.py. Over three seeds the path accuracy of `cpu` is
35.2% and that of `cpu,flat` 46.0% (8 minutes on a core each); that of `cpu,labels` is 39.2% with seed 0; see
docs/results.md. `wrn` has not been run.

Variants, at most one of each line:
  cnn7 | wrn (the default) | wider | cpu | cpu_long | smoke
  soft (the default): a step reads the softmax of the step before | labels: the label before (READINGS K7) | flat: a
    softmax over the leaves in place of the recurrences
  together (the default) | alternating: recurrence and backbone take turns of an epoch in the first half (READINGS K14)
  pool (the default) | pool_average | pool_linear | pool_dense | linear | conv | dense: the conversion; not with `flat`
  plain: no augmentation
"""

import ml_collections as mlc

from configs import common
from configs.dhnn import CONVERSIONS, alternating, together


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.cifar100()
  c.tree.source = "cifar100_wordnet"
  c.head = dict(name="dhnn_s2s", width=512, size=256, conversion="pool", feedback="soft")
  return common.apply(c, variant, KINDS)


def cpu(c: mlc.ConfigDict) -> None:
  common.cifar100_cpu(c)
  c.head.width = 128


def cpu_long(c: mlc.ConfigDict) -> None:
  cpu(c)
  c.epochs = 26.0


def smoke(c: mlc.ConfigDict) -> None:
  common.cifar100_smoke(c)
  c.head.width = 8
  c.head.size = 32


def soft(c: mlc.ConfigDict) -> None:
  c.head.feedback = "soft"


def labels(c: mlc.ConfigDict) -> None:
  c.head.feedback = "labels"


KINDS = (
  {**common.CIFAR100_NETWORKS, "cpu": cpu, "cpu_long": cpu_long, "smoke": smoke},
  {"soft": soft, "labels": labels, "flat": common.flat},
  {"together": together, "alternating": alternating},
  CONVERSIONS,
  {"plain": common.plain},
)
