"""Whether CNN-S2S is ahead of the flat network on a frozen EfficientNet-Lite0 (Koo et al. 2020, Table 2): any tree.

  hierjax study cnn_s2s --config.data.root=PHOTOS --workdir=runs/cnn_s2s
  hierjax study cnn_s2s --config.data.name=cifar100 --config.tree.source=cifar100_wordnet --config.data.size=128 \
    --config.frozen.views=0 --config.most_steps=2500 --config.patience=0 --workdir=runs/cnn_s2s_cifar100

The rows `means` read means of the maps in place of maxima, normalised, and the deepest stage at the last step. With
orthogonal kernels the matrices of inputs and state start as one orthogonal matrix, as in the authors' code.
"""

from configs.studies.residual_arcs import MEANS
from hierjax.study.plan import Row, Study

CONFIG = "dhnn_photographs:frozen_lite0,general"
DEEPEST = "head.maps=(5,)"
LABELS = (*MEANS, "head.feedback=labels")

ROWS = (
  Row("flat", f"{CONFIG},cnn"),
  Row("S2S, means", CONFIG, MEANS),
  Row("S2S, means, labels fed", CONFIG, LABELS),
  Row("S2S, means, labels fed, orthogonal kernels", CONFIG, (*LABELS, "head.orthogonal=kernel")),
  Row("S2S, means, deepest alone", CONFIG, (*MEANS, DEEPEST)),
  Row("S2S", CONFIG),
)


def get_study() -> Study:
  return Study("CNN-S2S on pretrained features", ROWS, baseline="flat", seeds=(0, 1, 2))
