"""Whether residual arcs gain on a frozen EfficientNet-Lite0 (Koo et al. 2020, Table 1): paths of two levels.

  hierjax study residual_arcs --config.data.root=PHOTOS --workdir=runs/residual_arcs
  hierjax study residual_arcs --config.data.name=cifar100 --config.tree.source=cifar100 --config.data.size=128 \
    --config.frozen.views=0 --config.most_steps=2500 --config.patience=0 --workdir=runs/residual_arcs_cifar100
"""

from hierjax.study.plan import Row, Study

CONFIG = "dhnn_photographs:frozen_lite0"
NORM, DEEP_LAST = "head.norm=layer", "head.order=shallow_first"

ROWS = (
  Row("flat", f"{CONFIG},cnn"),
  Row("RNN", CONFIG),
  Row("RNN-Resi", f"{CONFIG},residual"),
  Row("RNN, norm", CONFIG, (NORM,)),
  Row("RNN-Resi, norm", f"{CONFIG},residual", (NORM,)),
  Row("RNN, norm, deepest last", CONFIG, (NORM, DEEP_LAST)),
  Row("RNN-Resi, norm, deepest last", f"{CONFIG},residual", (NORM, DEEP_LAST)),
)


def get_study() -> Study:
  title = "Residual arcs on pretrained features"
  return Study(title, ROWS, baseline="flat", seeds=(0, 1, 2), settings=("tree.levels=2",))
