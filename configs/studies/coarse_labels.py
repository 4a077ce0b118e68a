"""Few whole labels and many coarse ones, on a frozen EfficientNet-Lite0 that has not seen the labels (Guo et al., 4.2).

  hierjax study coarse_labels --config.data.root=PHOTOS --workdir=runs/coarse_labels
  hierjax study coarse_labels --config.data.name=cifar100 --config.tree.source=cifar100 --config.data.size=128 \
    --workdir=runs/coarse_labels_cifar100

2, 5 or 10 images of each label keep it whole (S_fine), all others keep its top level (S_coarse). A row trains on S_fine
alone, on both with pseudo-labels, on both directly, or on both with the true labels, which is the upper bound.
`directly, balanced` draws each label, whole or coarse, equally often: without it 2 of 450 images are drawn for their
whole label. Each seed has another S_fine and other validation images, so the set needs a test split. All rows take as
many steps.
"""

from hierjax.study.plan import Row, Study

HEADS = {"flat": "photos:flat", "CNN-RNN": "photos"}
SIZES = (2, 5, 10)


def rows(head: str, config: str, size: int) -> list[Row]:
  name, parts = f"{head}, {size}", (f"data.fine_per_label={size}", "data.coarse=1.0")
  alone = f"{name}: S_fine alone"
  return [
    Row(alone, config, (*parts, "data.partial_labels=drop")),
    Row(f"{name}: pseudo-labels", config, parts, pseudo_labels_of=alone, against=alone),
    Row(f"{name}: directly", config, parts, against=alone),
    Row(f"{name}: directly, balanced", config, (*parts, "data.balanced=True"), against=alone),
    Row(f"{name}: true labels", config, (*parts, "data.partial_labels=truth"), against=alone),
  ]


def get_study() -> Study:
  return Study(
    "Few whole labels and many coarse ones",
    [row for head, config in HEADS.items() for size in SIZES for row in rows(head, config, size)],
    baseline=f"flat, {SIZES[0]}: S_fine alone",
    seeded=("data.split_seed",),
    settings=("least_steps=1000", "most_steps=1000", "patience=0", "frozen.views=0"),
    metrics=("path_accuracy", "leaf_top1", "mistake_severity_edges", "hierarchical_distance_5", "ece", "leaf_nll"),
    note="Validation has whole labels in all rows.",
  )
