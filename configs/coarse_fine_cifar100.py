r"""The CNN-based generators on CIFAR-100 (Guo et al. 2018, Fig. 2, strategies 1 to 3, and Table 2).

  python train.py --config=configs/coarse_fine_cifar100.py:parallel,cnn7 --workdir=runs/parallel     # GPU
  python train.py --config=configs/coarse_fine_cifar100.py:parallel,cpu --workdir=runs/parallel-cpu  # 2 CPU cores

`cpu` takes 3 minutes. Its path accuracy is 40.1% (coarse_to_fine), 42.6% (fine_to_coarse) and 44.6% (parallel); see
docs/results.md. `cnn7`, the network of the paper's table, has not been run. The paper has 78.1 and 64.16, 78.16 and
65.56, 77.56 and 64.87 coarse and fine.

Variants, at most one of each line:
  parallel (the default), strategy 3: two softmaxes on the features | coarse_to_fine, strategy 1: the fine layer reads
    the coarse layer's scores | fine_to_coarse, strategy 2: the reverse (READINGS G6)
  cnn7 (Table 2's) | wrn (the default) | wider | cpu | cpu_long | smoke
  plain: no augmentation (the paper's C100; with it, C100+)
"""

import ml_collections as mlc

from configs import common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.cifar100()
  c.head = dict(name="coarse_fine", strategy="parallel")
  return common.apply(c, variant, KINDS)


def parallel(c: mlc.ConfigDict) -> None:
  c.head.strategy = "parallel"


def coarse_to_fine(c: mlc.ConfigDict) -> None:
  c.head.strategy = "coarse_to_fine"


def fine_to_coarse(c: mlc.ConfigDict) -> None:
  c.head.strategy = "fine_to_coarse"


KINDS = (
  common.CIFAR100_NETWORKS,
  {"parallel": parallel, "coarse_to_fine": coarse_to_fine, "fine_to_coarse": fine_to_coarse},
  {"plain": common.plain},
)
