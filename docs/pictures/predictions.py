"""Draws photographs with the paths that a model answers, and the probability of each node: docs/pictures/lite0.jpg.

  python docs/pictures/predictions.py lite0 docs/pictures/lite0.jpg --skip 4 PHOTOS...

The photographs in docs/pictures/lite0.jpg are of the Grocery Store data set of Klasson et al., WACV 2019, MIT licence.
"""

import argparse
import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageOps

import hierjax

INK, MUTED, BAR, ENDED = "#1b1f24", "#6a737d", "#2f6f9f", "#e3e7eb"
COLUMNS, SIDE, SHOWN = 4, 360, 4


def square(path: str) -> np.ndarray:
  """Returns the middle of a photograph, `u8[s s 3]`."""
  image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
  return np.asarray(ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.LANCZOS))


def draw(axes: plt.Axes, answer: "hierjax.Row", skip: int) -> None:
  """Draws the last nodes of a path below each other, each with its probability as a bar; the answer is the last."""
  nodes = list(zip(answer.path.split("/"), answer.node_probabilities, strict=True))
  nodes = nodes[skip:] if len(nodes) > skip else nodes[-1:]
  hidden, nodes = len(nodes) - SHOWN, nodes[-SHOWN:]
  axes.set(xlim=(0, 1), ylim=(SHOWN - 0.35, -0.75))
  axes.axis("off")
  for row, (name, prob) in enumerate(nodes):
    last = row == len(nodes) - 1
    more = "… > " if row == 0 and hidden > 0 else ""
    label = textwrap.shorten(more + name, 26, placeholder="…")
    axes.text(0, row - 0.22, label, color=INK, weight="bold" if last else "normal", va="center", fontsize=11)
    axes.text(1, row - 0.22, f"{prob:.0%}", color=INK if last else MUTED, va="center", ha="right", fontsize=10)
    axes.barh(row + 0.18, 1, height=0.16, color=ENDED)
    axes.barh(row + 0.18, prob, height=0.16, color=BAR)


def main() -> None:
  """Draws the picture."""
  parser = argparse.ArgumentParser()
  parser.add_argument("model")
  parser.add_argument("out")
  parser.add_argument("--skip", type=int, default=0, help="leave out so many of the upper nodes")
  parser.add_argument("photographs", nargs="+")
  args = parser.parse_args()
  answers = hierjax.load(args.model)(args.photographs)
  rows = -(-len(answers) // COLUMNS)
  heights = [SIDE, 190] * rows
  figure, axes = plt.subplots(
    2 * rows, COLUMNS, figsize=(11, 11 / COLUMNS / SIDE * sum(heights)), height_ratios=heights, squeeze=False
  )
  for empty in axes.flat:
    empty.axis("off")
  for i, answer in enumerate(answers):
    row, column = divmod(i, COLUMNS)
    axes[2 * row][column].imshow(square(args.photographs[i]))
    draw(axes[2 * row + 1][column], answer, args.skip)
  figure.subplots_adjust(0.01, 0.0, 0.99, 0.995, wspace=0.08, hspace=0.03)
  figure.savefig(args.out, dpi=110, facecolor="white", pil_kwargs={"quality": 82} if args.out.endswith(".jpg") else {})


if __name__ == "__main__":
  main()
