r"""DHNN of fixed path length on CIFAR-100 (Koo et al. 2020, section 3.1): 20 coarse labels, then 100 fine ones.

  python train.py --config=configs/dhnn_cifar100.py:wrn --workdir=runs/dhnn-wrn     # GPU
  python train.py --config=configs/dhnn_cifar100.py:cpu --workdir=runs/dhnn-cpu     # 2 CPU cores

A bidirectional LSTM of 3 layers predicts the coarse label from the deepest stage, and the fine label from the others
(READINGS K1). The paper does not use CIFAR-100; networks and schedules are those of configs/flat_cifar100.py, with
which docs/results.md compares it. The path accuracy of `cpu` is 45.1%, that of `cpu,plain_rnn` 27.8%. `wrn` has not
been run.

Variants, at most one of each line:
  cnn7 | wrn (the default) | wider | cpu | cpu_long | smoke
  residual (the default) | plain_rnn: without residual arcs
  together (the default) | alternating: recurrence and backbone take turns of an epoch in the first half (READINGS K14)
  pool (the default) | pool_average | pool_linear | pool_dense | linear | conv | dense: the conversion
  plain: no augmentation
"""

import ml_collections as mlc

from configs import common
from configs.dhnn import CONVERSIONS, alternating, together


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.cifar100()
  c.head = dict(name="dhnn_rnn", width=512, size=1024, layers=3, residual=True, conversion="pool")
  return common.apply(c, variant, KINDS)


def cpu(c: mlc.ConfigDict) -> None:
  common.cifar100_cpu(c)
  c.head.width = 128
  c.head.size = 256


def cpu_long(c: mlc.ConfigDict) -> None:
  cpu(c)
  c.epochs = 26.0


def smoke(c: mlc.ConfigDict) -> None:
  common.cifar100_smoke(c)
  c.head.layers = 1
  c.head.width = 8
  c.head.size = 32


def residual(c: mlc.ConfigDict) -> None:
  c.head.residual = True


def plain_rnn(c: mlc.ConfigDict) -> None:
  c.head.residual = False


KINDS = (
  {**common.CIFAR100_NETWORKS, "cpu": cpu, "cpu_long": cpu_long, "smoke": smoke},
  {"residual": residual, "plain_rnn": plain_rnn},
  {"together": together, "alternating": alternating},
  CONVERSIONS,
  {"plain": common.plain},
)
