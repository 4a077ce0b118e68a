"""Heads on an EfficientNet-Lite0 that trains with them: whether a head of the tree is still ahead of a flat one.

  hierjax study finetuned --config.data.root=PHOTOS --minutes 60 --workdir=runs/finetuned

On two cores a run of 2,640 photographs takes 6 to 15 minutes, and the study 3 to 4 hours; it has not been run. `merged`
has a last stage and an output layer for each level above the shared stages (Dutt et al. 2017). An ensemble is of three
seeds. Nothing is tuned: the rates are those of `photos:finetune`, and for CNN-S2S of `dhnn_photographs:lite0`.
"""

from hierjax.study.plan import EvaluatedRow, Row, Study

MERGED = (
  "merged.shared=4",
  "head.name=coarse_fine",
  "head.strategy=parallel",
  "optim.lr_groups=(('^backbone/trunk_[012]/', None), ('^backbone/', 0.1), ('.*', 1.0))",  # those of `photos:finetune`
)
ROWS = (
  Row("flat", "photos:finetune,flat"),
  Row("CNN-RNN", "photos:finetune"),
  Row("CNN-RNN, siblings", "photos:finetune", ("head.softmax=siblings",)),
  Row("merged", "photos:finetune", MERGED),
  Row("CNN-S2S", "dhnn_photographs:lite0,general"),
  EvaluatedRow("flat, ensemble", of="flat", ensemble=3),
  EvaluatedRow("CNN-RNN, ensemble", of="CNN-RNN", ensemble=3),
)


def get_study() -> Study:
  return Study("Heads that are fine-tuned", ROWS, baseline="flat", seeds=(0, 1, 2))
