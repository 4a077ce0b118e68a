"""Heads on the features of a frozen EfficientNet-Lite0.

  hierjax study heads --config.data.root=PHOTOS --workdir=runs/heads

Each head has the same budget of tuning: three rates, chosen on validation with seed 0. CNN-S2S reads maxima of the maps
of all stages, as in the paper, or their means; the other heads read the mean of the last map. The flat head has label
smoothing and dropout, as `photos:flat` has; that with cross-entropy has neither, answers more images, and is what the
other rows are compared with. An ensemble is of the first three seeds.
"""

from configs.studies.residual_arcs import MEANS
from hierjax.study.plan import EvaluatedRow, Row, Study

RATES = {"optim.lr": ("3e-4", "1e-3", "3e-3")}
STAGES = "dhnn_photographs:frozen_lite0,general"

ROWS = (
  Row("flat", "photos:flat", tuned=RATES),
  Row("flat, cross-entropy", "photos:flat", ("head.criterion=cross_entropy", "head.dropout=0.0"), RATES),
  Row("flat, HXE", "photos:flat", ("head.criterion=hxe",), RATES),
  Row("flat, soft labels", "photos:flat", ("head.criterion=soft_labels",), RATES),
  Row("siblings", "photos", ("head.name=sibling_softmax",), RATES),
  Row("CNN-based, parallel", "photos", ("head.name=coarse_fine", "head.strategy=parallel"), RATES),
  Row("CNN-based, coarse to fine", "photos", ("head.name=coarse_fine", "head.strategy=coarse_to_fine"), RATES),
  Row("CNN-based, fine to coarse", "photos", ("head.name=coarse_fine", "head.strategy=fine_to_coarse"), RATES),
  Row("CNN-RNN", "photos", tuned=RATES),
  Row("CNN-RNN, siblings", "photos", ("head.softmax=siblings",), RATES),
  Row("CNN-S2S, maxima", STAGES, tuned=RATES),
  Row("CNN-S2S, means", STAGES, MEANS, RATES),
  EvaluatedRow("flat, ensemble of 3", of="flat", ensemble=3),
  EvaluatedRow("CNN-RNN, siblings, ensemble of 3", of="CNN-RNN, siblings", ensemble=3),
)


def get_study() -> Study:
  return Study(
    "Heads on frozen features",
    ROWS,
    baseline="flat, cross-entropy",
    note="Each row: three learning rates, the best on validation with the first seed.",
  )
