"""CNN-RNN on the wider-ResNet and CIFAR-100, with the paper's schedule (Guo et al. 2018, Table 4, wider-Resnet).

  hierjax study guo_wider --minutes 9 --workdir=runs/guo_wider

The same command goes on until all runs are done. It needs a GPU and CIFAR-100 (`hierjax data prepare cifar100`); see
docs/how_to/studies.md for the minutes, and guo_cnn7 for the accuracies by level.

The row `flat` is the fine-specific network; the coarse-specific one is in the study guo_coarse.
"""

from hierjax.study.plan import Row, Study

ROWS = (Row("flat", "flat_cifar100:wider"), Row("CNN-RNN", "cnnrnn_cifar100:wider"))


def get_study() -> Study:
  return Study("Guo et al. 2018, wider-ResNet on CIFAR-100", ROWS, baseline="flat", seeds=(0, 1, 2))
