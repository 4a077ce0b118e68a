r"""One softmax on CIFAR-100: the fine-specific and coarse-specific networks of Guo et al. 2018, Table 4.

  python train.py --config=configs/flat_cifar100.py:wrn --workdir=runs/fine-wrn     # GPU
  python train.py --config=configs/flat_cifar100.py:cpu --workdir=runs/fine-cpu     # 2 CPU cores

`cpu` takes 3 minutes. Its fine accuracy is 45.9%, and the coarse accuracy of `cpu,coarse` is 56.9% (docs/results.md).
`cnn7`, `wrn` and `wider` have not been run. With `wrn` the paper has 82.59 coarse and 74.55 fine.

Variants, at most one of each line:
  cnn7 | wrn (the default) | wider | cpu | cpu_long | smoke
  fine (the default): the 100 fine labels, which imply the coarse ones | coarse: the 20 coarse labels alone
  plain: no augmentation (the paper's C100; with it, C100+)
"""

import ml_collections as mlc

from configs import common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.cifar100()
  c.head = dict(name="flat")
  return common.apply(c, variant, KINDS)


def fine(c: mlc.ConfigDict) -> None:
  c.tree.levels = 0


def coarse(c: mlc.ConfigDict) -> None:
  c.tree.levels = 1


KINDS = (
  common.CIFAR100_NETWORKS,
  {"fine": fine, "coarse": coarse},
  {"plain": common.plain},
)
