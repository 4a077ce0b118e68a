"""What an answer minimises, classifier adaptation and calibration: the runs of three heads, each evaluated again.

  hierjax study decoding --config.data.root=PHOTOS --workdir=runs/decoding

The answer is the best path, or the one with the smallest expected cost; `docs/how_to/decoding.md` has the costs. The
temperature of a run changes its probabilities; without it the temperature is 1. Adaptation is of the CNN-based head,
whose levels need not agree: alpha = 1 makes them, and `chosen` is the best of 21 values on validation.
"""

from hierjax.study.plan import EvaluatedRow, Row, Study

COSTS = {"fewest edges": "edges", "lowest common ancestor": "height", "largest hF1": "hf1"}
PARALLEL = "CNN-based, parallel"


def rows(name: str, config: str, *settings: str) -> list[Row | EvaluatedRow]:
  ways = [
    *(EvaluatedRow(f"{name}, {words}", name, minimise=cost, against=name) for words, cost in COSTS.items()),
    EvaluatedRow(f"{name}, not calibrated", name, calibrated=False, against=name),
    EvaluatedRow(f"{name}, not calibrated, fewest edges", name, minimise="edges", calibrated=False, against=name),
  ]
  return [Row(name, config, settings), *ways]


def get_study() -> Study:
  adapted = {"alpha 1": 1.0, "alpha chosen": "chosen"}
  return Study(
    "Decoding",
    [
      *rows("flat", "photos:flat"),
      *rows("CNN-RNN", "photos"),
      *rows(PARALLEL, "photos", "head.name=coarse_fine", "head.strategy=parallel"),
      *(EvaluatedRow(f"{PARALLEL}, {words}", PARALLEL, alpha=a, against=PARALLEL) for words, a in adapted.items()),
    ],
    baseline="flat",
  )
