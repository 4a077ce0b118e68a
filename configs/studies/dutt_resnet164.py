"""Merged ResNet-164 on CIFAR-100, with the network's own schedule (Dutt et al. 2017, Figure 3): five runs each.

  hierjax study dutt_resnet164 --minutes 9 --workdir=runs/dutt_resnet164

The same command goes on until all runs are done. It needs a GPU and CIFAR-100 (`hierjax data prepare cifar100`); see
docs/how_to/studies.md for the minutes. The table is that of alpha = 0; classifier adaptation and ensembles of the
figure are computed from the runs, such as

  hierjax evaluate runs/dutt_resnet164/merge-2/seed0 runs/dutt_resnet164/merge-2/seed1 --alpha 1

The row `separate` is the fine network, whose coarse probabilities are sums of the fine ones. The coarse network has
labels of one level, so that it is no row; merge-0 trains the same two networks (READINGS D4).
"""

from hierjax.study.plan import Row, Study

CONFIG = "merged_cifar100:resnet164"

ROWS = (
  Row("separate", f"{CONFIG},separate,fine"),
  Row("merge-0", f"{CONFIG},merge0"),
  Row("merge-1", f"{CONFIG},merge1"),
  Row("merge-2", f"{CONFIG},merge2"),
  Row("merge-3", f"{CONFIG},merge3"),
)


def get_study() -> Study:
  return Study("Dutt et al. 2017, ResNet-164 on CIFAR-100", ROWS, baseline="separate", seeds=(0, 1, 2, 3, 4))
