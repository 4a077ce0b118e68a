"""CNN-RNN on WRN-28-10 and CIFAR-100, with the paper's schedule (Guo et al. 2018, Table 4, wrn-28-10).

  hierjax study guo_wrn --minutes 9 --workdir=runs/guo_wrn

The same command goes on until all runs are done. It needs a GPU and CIFAR-100 (`hierjax data prepare cifar100`); see
docs/how_to/studies.md for the minutes, and guo_cnn7 for the accuracies by level.

The row `flat` is the fine-specific network; the coarse-specific one is in the study guo_coarse.
"""

from hierjax.study.plan import Row, Study

ROWS = (Row("flat", "flat_cifar100:wrn"), Row("CNN-RNN", "cnnrnn_cifar100:wrn"))


def get_study() -> Study:
  return Study("Guo et al. 2018, WRN-28-10 on CIFAR-100", ROWS, baseline="flat", seeds=(0, 1, 2))
