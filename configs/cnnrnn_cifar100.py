r"""CNN-RNN on CIFAR-100 (Guo et al. 2018, Table 4): 20 coarse labels, then 100 fine ones.

  python train.py --config=configs/cnnrnn_cifar100.py:wrn --workdir=runs/cnnrnn-wrn     # GPU
  python train.py --config=configs/cnnrnn_cifar100.py:cpu --workdir=runs/cnnrnn-cpu     # 2 CPU cores

`cpu` takes 3 minutes and has a path accuracy of 43.2% (docs/results.md); `cpu_long` takes 16 minutes. `cnn7`, `wrn` and
`wider` have not been run. With `wrn` the paper has 85.39 coarse and 76.23 fine.

Variants, at most one of each line:
  cnn7 | wrn (the default) | wider | cpu | cpu_long | smoke
  plain: no augmentation (the paper's C100; with it, C100+)

`wrn` has the paper's schedule: 70,000 steps of 200 images, with the rate 0.1 divided by 5 after 20,000, 40,000 and
60,000 (READINGS G14). The paper does not give the width of the LSTM and the label embedding; it is 512 here (READINGS
G8).
"""

import ml_collections as mlc

from configs import common


def get_config(variant: str = "") -> mlc.ConfigDict:
  c = common.cifar100()
  c.head = dict(name="path_rnn", width=512, softmax="nodes")
  return common.apply(c, variant, KINDS)


def cpu(c: mlc.ConfigDict) -> None:
  common.cifar100_cpu(c)
  c.head.width = 256


def cpu_long(c: mlc.ConfigDict) -> None:
  common.cifar100_cpu_long(c)
  c.head.width = 256


def smoke(c: mlc.ConfigDict) -> None:
  common.cifar100_smoke(c)
  c.head.width = 16


KINDS = (
  {**common.CIFAR100_NETWORKS, "cpu": cpu, "cpu_long": cpu_long, "smoke": smoke},
  {"plain": common.plain},
)
