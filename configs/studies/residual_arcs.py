"""Whether residual arcs gain, and whether CNN-S2S is ahead of the flat network, on a frozen EfficientNet-Lite0.

  hierjax study residual_arcs --config.data.root=PHOTOS --workdir=runs/residual_arcs
  hierjax study residual_arcs --config.data.name=cifar100 --config.tree.source=cifar100_wordnet --config.data.size=128 \
    --config.frozen.views=0 --config.most_steps=2500 --config.patience=0 --workdir=runs/residual_arcs_cifar100

The rows of fixed length are on the first two levels of the tree, and are compared with `flat, 2 levels` by the reader:
differences of the table are from `flat`, whose leaves are those of the whole tree.
"""

from hierjax.study.plan import Row, Study

FIXED, GENERAL = "dhnn_photographs:frozen_lite0", "dhnn_photographs:frozen_lite0,general"
TWO, NORM, DEEP_LAST = "tree.levels=2", "head.norm=layer", "head.order=shallow_first"

ROWS = (
  Row("flat", f"{GENERAL},cnn"),
  Row("S2S", GENERAL),
  Row("S2S, norm", GENERAL, (NORM,)),
  Row("S2S, norm, deepest last", GENERAL, (NORM, DEEP_LAST)),
  Row("flat, 2 levels", f"{FIXED},cnn", (TWO,)),
  Row("RNN, 2 levels", FIXED, (TWO,)),
  Row("RNN-Resi, 2 levels", f"{FIXED},residual", (TWO,)),
  Row("RNN, norm, 2 levels", FIXED, (TWO, NORM)),
  Row("RNN-Resi, norm, 2 levels", f"{FIXED},residual", (TWO, NORM)),
  Row("RNN-Resi, norm, deepest last, 2 levels", f"{FIXED},residual", (TWO, NORM, DEEP_LAST)),
)


def get_study() -> Study:
  return Study("Residual arcs and CNN-S2S on pretrained features", ROWS, baseline="flat", seeds=(0, 1, 2))
