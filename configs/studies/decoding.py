"""What an answer minimises: the runs of two heads, each decoded in four ways.

  hierjax study decoding --config.data.root=PHOTOS --workdir=runs/decoding

The answer is the best path, or the one with the smallest expected cost; `docs/how_to/decoding.md` has the costs.
"""

from hierjax.study.plan import Row, Study

COSTS = {"fewest edges": "edges", "lowest common ancestor": "height", "largest hF1": "hf1"}
HEADS = {"flat": "photos:flat", "CNN-RNN": "photos"}


def rows(name: str, config: str) -> list[Row]:
  again = [Row(f"{name}, {words}", of=name, minimise=cost) for words, cost in COSTS.items()]
  return [Row(name, config), *again]


def get_study() -> Study:
  return Study("Decoding", [row for name, config in HEADS.items() for row in rows(name, config)], baseline="flat")
