"""The coarse-specific networks on CIFAR-100, with the paper's schedules (Guo et al. 2018, Table 4).

  hierjax study guo_coarse --minutes 9 --workdir=runs/guo_coarse

The same command goes on until all runs are done. It needs a GPU and CIFAR-100 (`hierjax data prepare cifar100`); see
docs/how_to/studies.md for the minutes.

Labels have one level here, so these runs are a study of their own: a study compares runs with the same labels.
"""

from hierjax.study.plan import Row, Study

ROWS = (
  Row("CNN-7", "flat_cifar100:coarse,cnn7"),
  Row("WRN-28-10", "flat_cifar100:coarse,wrn"),
  Row("wider-ResNet", "flat_cifar100:coarse,wider"),
)


def get_study() -> Study:
  return Study("Guo et al. 2018, coarse labels of CIFAR-100", ROWS, baseline="CNN-7", seeds=(0, 1, 2))
