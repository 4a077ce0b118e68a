"""The generators on CNN-7 and CIFAR-100, with the paper's schedule (Guo et al. 2018, Table 2; Table 4, CNN-7).

  hierjax study guo_cnn7 --minutes 9 --workdir=runs/guo_cnn7

The same command goes on until all runs are done. It needs a GPU and CIFAR-100 (`hierjax data prepare cifar100`); see
docs/how_to/studies.md for the minutes. The column C100 of Table 2, without augmentation:

  hierjax study guo_cnn7 --config.data.pad=0 --config.data.mirror=False --minutes 9 --workdir=runs/guo_cnn7_plain

The paper's accuracies by level are `raw_level_accuracy` in eval/test.json of each run. The row `flat` is the
fine-specific network; the coarse-specific one is in the study guo_coarse.
"""

from hierjax.study.plan import Row, Study

ROWS = (
  Row("flat", "flat_cifar100:cnn7"),
  Row("CNN-based, coarse to fine", "coarse_fine_cifar100:coarse_to_fine,cnn7"),
  Row("CNN-based, fine to coarse", "coarse_fine_cifar100:fine_to_coarse,cnn7"),
  Row("CNN-based, parallel", "coarse_fine_cifar100:parallel,cnn7"),
  Row("CNN-RNN", "cnnrnn_cifar100:cnn7"),
)


def get_study() -> Study:
  return Study("Guo et al. 2018, CNN-7 on CIFAR-100", ROWS, baseline="flat", seeds=(0, 1, 2))
