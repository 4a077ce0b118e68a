"""The one style of all pictures: colours, font, sizes, axes, and the formats of files."""

from __future__ import annotations

import colorsys
import io
from typing import Any

import matplotlib
import matplotlib.colors
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hierjax.tree.label_tree import LabelTree

INK, GREY, LINE, LIGHT = "#1d2330", "#596070", "#e2dfd7", "#c9c6bf"
ACCENT, SECOND, GOOD, BAD = "#0b6e69", "#b25a1e", "#17724f", "#b23524"
SERIES = (ACCENT, SECOND, "#5b5ea6", "#7a7f1a", "#9b3f74")  # of lines side by side
RECALL = ("#a8432f", "#cf7e4d", "#dfb16b", "#9cc4a8", "#519f90", "#1c716b")  # from low to high, as on the report page
RECALL_STEPS = (0.25, 0.5, 0.7, 0.85, 0.95)
RECALL_NAMES = ("below 25%", "25–50%", "50–70%", "70–85%", "85–95%", "95–100%")

DPI = 150
FAMILY = "DejaVu Sans"  # comes with matplotlib: a picture does not depend on the fonts of a machine
TITLE, HEADING, BODY, SMALL = 13.0, 10.0, 9.0, 8.0  # points


def recall_colour(share: float | None) -> str:
  """Returns the colour of a recall; a grey one for None."""
  return LIGHT if share is None else RECALL[sum(share >= step for step in RECALL_STEPS)]


def tidy(axes: Axes) -> None:
  """Gives a panel with ticks thin axes to the left and below, and a quiet grid."""
  for side, edge in axes.spines.items():
    edge.set(color=GREY, linewidth=0.6, visible=side in ("left", "bottom"))
  axes.tick_params(color=GREY, labelcolor=GREY, width=0.6, length=3, labelsize=SMALL, labelfontfamily=FAMILY)
  axes.grid(color=LINE, linewidth=0.6)
  axes.set_axisbelow(True)


def levels_of_accent(count: int) -> list[str]:
  """Returns shades of the accent for levels, from light for the top one to full for the last."""
  shares = np.linspace(0.35, 1.0, count) if count > 1 else [1.0]
  red, green, blue = matplotlib.colors.to_rgb(ACCENT)
  mixed = lambda part, share: 1 - share * (1 - part)  # noqa: E731
  return [matplotlib.colors.to_hex((mixed(red, s), mixed(green, s), mixed(blue, s))) for s in map(float, shares)]


def node_colours(tree: LabelTree) -> Float[np.ndarray, "n 3"]:
  """Returns a colour for each node: near ones in the tree have near hues, and neighbours differ in lightness."""
  first, last = np.full(tree.num_nodes, np.inf), np.full(tree.num_nodes, -np.inf)
  order = {leaf: i for i, leaf in enumerate(_leaves(tree))}
  for leaf, place in order.items():
    for node in tree.path(leaf):
      first[node], last[node] = min(first[node], place), max(last[node], place)
  hue = (first + last + 1) / 2 / len(order)
  sibling = np.arange(tree.num_nodes) - tree.child_offsets[tree.parent + 1]
  return np.array(
    [
      colorsys.hls_to_rgb(h, (0.36, 0.54, 0.45)[s % 3], 0.62)
      for h, s in zip(hue.tolist(), sibling.tolist(), strict=True)
    ]
  )


def _leaves(tree: LabelTree) -> list[int]:
  """Returns the leaves in the order of the tree, siblings side by side."""
  found, waiting = [], list(reversed(tree.children(-1)))
  while waiting:
    node = waiting.pop()
    below = tree.children(node)
    found += [] if below else [node]
    waiting += reversed(below)
  return found


def file_of(figure: Figure, kind: str) -> bytes:
  """Returns a figure as the bytes of a file; equal figures give equal bytes."""
  data = io.BytesIO()
  about: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
  with matplotlib.rc_context({"svg.hashsalt": "hierjax", "svg.fonttype": "path", "pdf.fonttype": 42}):
    figure.savefig(data, format=kind, dpi=DPI, facecolor="white", metadata=about)
  return data.getvalue()
