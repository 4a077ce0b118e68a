"""`hierjax report`: a page of HTML with the accuracy, calibration and mistakes of a run, and its numbers as CSV."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image

from hierjax.data.source import Source
from hierjax.evaluation.calibration import BINS, Calibration
from hierjax.evaluation.evaluate import SplitSettings, evaluate_run
from hierjax.evaluation.predictions import Predictions, predictions_of_run
from hierjax.evaluation.scores import NodeScores, confident_mistakes, confusions, distances, mistakes_begin, wrong
from hierjax.evaluation.tables import accuracy_rows, percent
from hierjax.inference.images import check_single_path
from hierjax.inference.loaded_run import LoadedRun
from hierjax.report.plots.calibration import draw_calibration
from hierjax.report.plots.canvas import BLUE, GREEN, Page, seen_images
from hierjax.runs.choices import read_choices
from hierjax.runs.folder import RunFolder, write_table, write_whole
from hierjax.runs.run import Run, asked_split
from hierjax.tree.label_tree import LabelTree

_NODES, _PAIRS, _MISTAKES = 1000, 20, 24  # that are shown; the CSV files have all
_SMALL = 64  # pixels: up to here images are stored without loss, and drawn with visible pixels

NODES = ("node", "level", "images", "recall", "predicted", "precision")
CONFUSIONS = ("label", "predicted", "images", "share_of_label", "edges", "first_image")
CALIBRATION = ("level", "probability_up_to", "nodes", "mean_probability", "accuracy")
IMAGES = ("image", "label", "predicted", "probability", "right", "edges")


@dataclasses.dataclass(frozen=True)
class Findings:
  """The data of the page.

  Attributes:
    folder: the run's.
    run: the run.
    split: the name of the images' split.
    source: the images.
    metrics: the contents of eval/SPLIT.json.
    predictions: for all images.
    name: of the files: that of the split, or another where the images are not those of the run.
  """

  folder: RunFolder
  run: Run
  split: str
  source: Source
  metrics: dict[str, Any]
  predictions: Predictions
  name: str


def findings_of(loaded: LoadedRun, settings: SplitSettings = SplitSettings()) -> Findings:
  """Predicts all images of a split, and evaluates the run there unless its metrics are of these weights already.

  Args:
    loaded: the run, opened with the same `data_root`.
    settings: the split and its place.

  Raises:
    UserError: images have several label paths, or the data cannot be used.
  """
  run, folder = loaded.run, loaded.folder
  split, source = asked_split(run, settings.split)
  check_single_path(run, source, "a report shows one path an image")
  name = folder.evaluation_name(split, split, run.images_of(split))
  metrics = folder.evaluation(name)
  if metrics is None or (metrics.get("step"), metrics.get("views")) != (loaded.step, run.options.views):
    settings = dataclasses.replace(settings, split=split)
    metrics = evaluate_run(folder, loaded.mesh, settings, opened=run.opened)
  return Findings(folder, run, split, source, metrics, predictions_of_run(loaded, split, source), name)


def write_report(found: Findings) -> Path:
  """Writes report.html and, in eval/, four CSV files, SPLIT-nodes.csv and so on; returns the path of the page.

  Of images that are not those of the run, it writes report-images-XXXX.html and SPLIT-images-XXXX-nodes.csv.
  """
  folder = found.folder.path
  for name, header, rows in (
    ("nodes", NODES, _node_cells(found)),
    ("confusions", CONFUSIONS, _confusion_cells(found)),
    ("calibration", CALIBRATION, _calibration_cells(found)),
    ("images", IMAGES, _image_cells(found)),
  ):
    write_table(folder / "eval" / f"{found.name}-{name}.csv", header, rows)
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("hierjax.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
  )
  page = folder / f"report{found.name.removeprefix(found.split)}.html"
  write_whole(page, environment.get_template("report.html.j2").render(_content(found)))
  return page


def _content(found: Findings) -> dict[str, Any]:
  run, tree, predictions = found.run, found.run.tree, found.predictions
  config = run.config
  counted = int(predictions.counted.sum())
  begin = mistakes_begin(predictions)
  nodes, cut = _node_rows(found)
  return {
    "name": found.folder.path.name,
    "split": found.split,
    "step": found.metrics["step"],
    "views": run.options.views,
    "images": f"{found.metrics['num_examples']:,}",
    "about": [
      ("data set", config.data["name"]),
      ("label tree", f"{tree.num_nodes:,} nodes on {tree.depth} levels, {len(tree.leaves):,} leaves"),
      ("backbone, neck, head", ", ".join(str(part["name"]) for part in (config.backbone, config.neck, config.head))),
      ("temperature", f"{run.method.temperature:.3f}"),
    ],
    "accuracy": accuracy_rows({"value": found.metrics}),
    "counted": f"{counted:,}",
    "mistakes": f"{begin.sum():,}",
    "edges": f"{distances(predictions)[wrong(predictions)].mean():.2f}" if begin.any() else "",
    "begin": [
      (level, f"{count:,}", percent(count / counted))
      for level, count in zip(tree.named_levels, begin, strict=True)
      if counted
    ],
    "calibration": _calibration(Calibration.of(predictions), tree.named_levels),
    "selective": _selective(found),
    "curves": _png(_curves(found.folder)),
    "nodes": nodes,
    "nodes_cut": cut,
    "confusions": _confusion_rows(found),
    "mistakes_shown": _confident_mistakes(found),
    "pixelated": len(found.source.shape) == 3 and found.run.data.crop <= _SMALL,
  }


def _node_rows(found: Findings) -> tuple[list[dict[str, Any]], bool]:
  """Returns the nodes of which there are images or predictions, depth-first; where they are many, the worst."""
  tree, scores = found.run.tree, NodeScores.of(found.predictions, found.run.tree)
  shown = np.flatnonzero(scores.labelled + scores.predicted)
  errors = scores.labelled + scores.predicted - 2 * scores.right
  worst = set(shown[np.argsort(-errors[shown], kind="stable")][:_NODES].tolist())
  rows = [
    {
      "name": tree.names[node],
      "path": _arrows(tree, node),
      "indent": int(tree.level[node]),
      "labelled": int(scores.labelled[node]),
      "recall": scores.recall(node),
      "precision": scores.precision(node),
    }
    for node in _depth_first(tree)
    if node in worst
  ]
  return rows, len(shown) > len(rows)


def _depth_first(tree: LabelTree) -> Iterator[int]:
  waiting = [node for node in reversed(range(tree.num_nodes)) if tree.level[node] == 0]
  while waiting:
    node = waiting.pop()
    yield node
    waiting += reversed([int(child) for child in tree.children(node)])


def _arrows(tree: LabelTree, node: int) -> str:
  return " > ".join(tree.path_names(node)) if node >= 0 else "no path"


def _end(tree: LabelTree, node: int) -> str:
  return tree.path_text(node) if node >= 0 else ""


def _confusion_rows(found: Findings) -> list[dict[str, Any]]:
  """Returns the most frequent pairs, each with a picture of the first image."""
  pairs = confusions(found.predictions)[:_PAIRS]
  pictures = _pictures(found, [int(pair.images[0]) for pair in pairs])
  return [
    {
      "label": _arrows(found.run.tree, pair.label),
      "predicted": _arrows(found.run.tree, pair.predicted),
      "count": len(pair.images),
      "share": percent(pair.share),
      "edges": pair.edges,
      "picture": picture,
    }
    for pair, picture in zip(pairs, pictures, strict=True)
  ]


def _confident_mistakes(found: Findings) -> list[dict[str, Any]]:
  tree, predictions = found.run.tree, found.predictions
  images = confident_mistakes(predictions)[:_MISTAKES].tolist()
  return [
    {
      "image": found.source.describe(image),
      "label": _arrows(tree, int(predictions.labels[image].max())),
      "predicted": _arrows(tree, int(predictions.paths[image].max())),
      "probability": percent(_last_probability(predictions, image)),
      "picture": picture,
    }
    for image, picture in zip(images, _pictures(found, images), strict=True)
  ]


def _last_probability(predictions: Predictions, image: int) -> float | None:
  nodes = predictions.paths[image] >= 0
  return float(predictions.probability[image][nodes][-1]) if nodes.any() else None


def _calibration(found: Calibration, names: Sequence[str]) -> dict[str, Any]:
  """Returns the calibration: a row a level, one of all levels, and the reliability diagram."""
  levels = {name: slice(i, i + 1) for i, name in enumerate(names)} | {"all levels": slice(None)}
  rows = [(name, *found.row(which)) for name, which in levels.items()]
  shown = [(name, f"{nodes:,}", *map(percent, shares)) for name, nodes, *shares in rows if nodes]
  return {"rows": shown, "picture": _png(draw_calibration(found) if shown else None)}


def _selective(found: Findings) -> dict[str, Any] | None:
  """Returns the metrics that `evaluate --threshold` wrote for these weights, with their picture; None without them."""
  measured = found.folder.selective_evaluation(found.split, found.metrics.get("data"))
  if measured is None or [member["steps"] for member in measured["members"]] != [[found.metrics["step"]]]:
    return None
  picture, choices = found.folder.path / "pictures" / "selective.png", read_choices(found.folder)
  drawn = picture.exists() and any((c.kind, c.value) == ("threshold", measured["threshold"]) for c in choices)
  return {
    "threshold": f"{measured['threshold']:g}",
    "coverage": percent(measured["coverage"]),
    "accuracy": percent(measured["selective_accuracy"]),
    "levels": [
      (level, percent(share), percent(right))
      for level, share, right in zip(
        found.run.tree.named_levels, measured["level_coverage"], measured["level_accuracy"], strict=True
      )
    ],
    "picture": _png(picture.read_bytes() if drawn else None),
  }


def _pictures(found: Findings, images: Sequence[int]) -> list[str]:
  """Returns images as the run sees them, as data URIs; '' for each where the data set has none, or cannot be read."""
  if len(found.source.shape) != 3 or not len(images):
    return [""] * len(images)
  crop = found.run.data.crop
  found_images = seen_images(found.source, list(images), crop)
  kind, options = ("PNG", {}) if crop <= _SMALL else ("JPEG", {"quality": 85})
  uris = []
  for pixels in found_images:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    uris.append(_uri(data.getvalue(), kind.lower()))
  return uris


def _png(data: bytes | None) -> str:
  return "" if data is None else _uri(data, "png")


def _uri(data: bytes, kind: str) -> str:
  return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _curves(folder: RunFolder) -> bytes | None:
  """Draws the loss of training and validation, and the accuracy on validation, from metrics.jsonl."""
  points: dict[tuple[str, str], list[tuple[int, float]]] = {}
  for line in folder.metric_lines():
    row = json.loads(line)
    for name in ("loss", "path_accuracy"):
      if isinstance(row.get(name), float):
        points.setdefault((str(row.get("split")), name), []).append((row["step"], row[name]))
  if not points:
    return None
  page = Page(9.6, 2.9)
  for number, name in enumerate(("loss", "path_accuracy")):
    left = 0.55 + number * 4.4
    axes = page.plot(left, 0.3, 3.7, 2.1)
    for split, colour in (("train", BLUE), ("validation", GREEN)):
      if found := points.get((split, name)):
        axes.plot(*zip(*found, strict=True), color=colour, linewidth=1.2)
        axes.plot(*found[-1], color=colour, marker="o", markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(color="#e6e6e6", linewidth=0.6)
    page.text(left, 0.05, "Loss" if name == "loss" else "Path accuracy", width=3.7, size=10.0, bold=True)
    page.text(left, 2.65, "step", width=3.7, align="center")
  for top, colour, text in ((0.4, BLUE, "training"), (0.6, GREEN, "validation")):
    page.dot(8.8, top, colour, "s")
    page.text(8.92, top, text, width=0.7)
  return page.png()


def _node_cells(found: Findings) -> Iterator[tuple[object, ...]]:
  tree, scores = found.run.tree, NodeScores.of(found.predictions, found.run.tree)
  for node in _depth_first(tree):
    share = [_number(scores.recall(node)), _number(scores.precision(node))]
    yield (
      tree.path_text(node), int(tree.level[node]) + 1, int(scores.labelled[node]), share[0],
      int(scores.predicted[node]), share[1],
    )  # fmt: skip


def _confusion_cells(found: Findings) -> Iterator[tuple[object, ...]]:
  for pair in confusions(found.predictions):
    ends = [_end(found.run.tree, node) for node in (pair.label, pair.predicted)]
    yield *ends, len(pair.images), _number(pair.share), pair.edges, found.source.describe(int(pair.images[0]))


def _calibration_cells(found: Findings) -> Iterator[tuple[object, ...]]:
  counts = Calibration.of(found.predictions)
  for level, number in np.argwhere(counts.nodes).tolist():
    nodes = int(counts.nodes[level, number])
    shares = (counts.probability[level, number] / nodes, counts.right[level, number] / nodes)
    yield level + 1, _number((number + 1) / BINS), nodes, *map(_number, shares)


def _image_cells(found: Findings) -> Iterator[tuple[object, ...]]:
  tree, predictions, far = found.run.tree, found.predictions, distances(found.predictions)
  for image in np.flatnonzero(predictions.counted).tolist():
    path = [node for node in predictions.paths[image].tolist() if node >= 0]
    yield (
      found.source.describe(image), _end(tree, int(predictions.labels[image].max())), tree.nodes_text(path),
      _number(_last_probability(predictions, image)), int(predictions.right[image]), int(far[image]),
    )  # fmt: skip


def _number(value: float | None) -> str:
  return "" if value is None else f"{value:.6f}"
