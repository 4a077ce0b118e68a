"""Whether residual arcs gain on a frozen EfficientNet-Lite0 (Koo et al. 2020, Table 1): paths of two levels.

  hierjax study residual_arcs --config.data.root=PHOTOS --workdir=runs/residual_arcs
  hierjax study residual_arcs --config.data.name=cifar100 --config.tree.source=cifar100 --config.data.size=128 \
    --config.frozen.views=0 --config.most_steps=2500 --config.patience=0 --workdir=runs/residual_arcs_cifar100

The rows `means` read means of the maps in place of maxima, normalised, and the deepest stage at the last step.
"""

from hierjax.study.plan import Row, Study

CONFIG = "dhnn_photographs:frozen_lite0"
MEANS = ("head.conversion=pool_average", "head.size=1280", "head.norm=layer", "head.order=shallow_first")

ROWS = (
  Row("flat", f"{CONFIG},cnn"),
  Row("RNN, means", CONFIG, MEANS),
  Row("RNN-Resi, means", f"{CONFIG},residual", MEANS),
  Row("RNN", CONFIG),
  Row("RNN-Resi", f"{CONFIG},residual"),
)


def get_study() -> Study:
  title = "Residual arcs on pretrained features"
  return Study(title, ROWS, baseline="flat", seeds=(0, 1, 2), settings=("tree.levels=2",))
