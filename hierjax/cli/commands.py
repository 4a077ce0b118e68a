"""What each command of `python -m hierjax` does; imports are within, so that the help comes at once."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from hierjax.errors import UserError

if TYPE_CHECKING:
  from hierjax.inference.predictor import Row


def evaluate(arguments: argparse.Namespace) -> int:
  """Measures a trained run, or an ensemble, and prints tables."""
  from hierjax.evaluation.evaluate import Question, evaluate
  from hierjax.runs import devices

  question = Question(
    workdirs=arguments.workdir,
    split=arguments.split,
    data_root=arguments.data_root,
    views=arguments.views,
    known_levels=arguments.known_levels,
    alpha=arguments.alpha,
    stop_below=arguments.stop_below,
    right=arguments.right,
    node=arguments.node,
    against=arguments.against,
    against_alpha=arguments.against_alpha,
    out=arguments.out,
  )
  devices.use_compilation_cache()
  evaluate(question, devices.data_mesh())
  return 0


def predict(arguments: argparse.Namespace) -> int:
  """Prints the label paths of image files; returns 1 where none could be read."""
  from tqdm import tqdm

  from hierjax.inference.predictor import find_images, predict, write_csv
  from hierjax.runs import devices

  _check_top(arguments.top)
  devices.use_compilation_cache()
  images = find_images(arguments.images)
  rows, answers = [], predict(arguments.workdir, images, arguments.top, arguments.alpha, arguments.stop_below)
  with tqdm(total=len(images), desc="predicting", unit=" images", delay=2, leave=False, disable=None) as bar:
    for row in answers:
      rows.append(row)
      bar.update(row.rank in (None, 1))
  if arguments.csv:
    write_csv(arguments.csv, rows)
  for row in rows:
    if row.error:
      print(row.error, file=sys.stderr)
    else:
      print(f"{row.image}: {_answer(row, 'not sure' if arguments.stop_below else 'no path passes')}")
  failed = sum(bool(row.error) for row in rows)
  if failed:
    print(f"{failed} of {len(images)} images could not be read", file=sys.stderr)
  return 1 if failed == len(images) else 0


def _check_top(top: int) -> None:
  if top < 1:
    raise UserError(f"--top {top}: at least 1 path an image")


def _answer(row: Row, none: str) -> str:
  return none if row.probability is None else f"{row.path}  {row.probability:.3f}"


def features(arguments: argparse.Namespace) -> int:
  """Writes what a run's backbone makes of its images."""
  import shlex
  from pathlib import Path

  from hierjax.inference.features import write_features
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  folder, out = RunFolder(arguments.workdir), Path(arguments.out)
  about = write_features(folder, out, devices.data_mesh(), arguments.data_root, arguments.splits)
  counts = ", ".join(f"{count:,} of {split}" for split, count in about["examples"].items())
  print(f"{counts}: {about['width']} features each, of step {about['step']} of {arguments.workdir}; next:")
  root, width = f"--config.data.root={shlex.quote(str(out))}", f"--config.backbone.width={about['width']}"
  print(f"  python train.py --config=configs/features.py {root} {width}")
  return 0


def export(arguments: argparse.Namespace) -> int:
  """Writes a run as files that JAX can ask without hierjax."""
  from pathlib import Path

  from hierjax.inference.export import export

  _check_top(arguments.top)
  about = export(
    arguments.workdir, Path(arguments.out), arguments.batch, arguments.top, arguments.alpha, arguments.stop_below
  )
  b, h, w, c = about["images"]["shape"]
  print(f"{arguments.out}: step {about['step']}, for u8[{b} {h} {w} {c}]; README.md says how to ask it")
  return 0


def neighbours(arguments: argparse.Namespace) -> int:
  """Draws regions of test images beside the nearest training regions."""
  from hierjax.evaluation.neighbours import describe, find_neighbours
  from hierjax.report.plots.neighbours import draw_neighbours
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  found = find_neighbours(
    folder,
    devices.data_mesh(),
    scale=arguments.scale,
    queries=arguments.queries,
    seed=arguments.seed,
    searched=arguments.searched,
    data_root=arguments.data_root,
  )
  print(f"{describe(found)}\n{draw_neighbours(folder, found)}")
  return 0


def compare(arguments: argparse.Namespace) -> int:
  """Counts and draws what one run has right and another wrong."""
  from hierjax.evaluation.compare import compare, describe, draw_comparison
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  folder, other = RunFolder(arguments.workdir), RunFolder(arguments.other)
  found = compare(folder, other, devices.data_mesh(), arguments.data_root)
  print(describe(found), flush=True)  # also where there is nothing to draw
  print(draw_comparison(folder, found))
  return 0


def states(arguments: argparse.Namespace) -> int:
  """Draws a map of an LSTM's states."""
  from hierjax.evaluation.states import describe, find_states
  from hierjax.report.plots.states import draw_states
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  found = find_states(
    folder,
    devices.data_mesh(),
    split=arguments.split,
    images=arguments.images,
    seed=arguments.seed,
    data_root=arguments.data_root,
  )
  print(f"{describe(found)}\n{draw_states(folder, found)}")
  return 0


def paths(arguments: argparse.Namespace) -> int:
  """Draws images with their predicted paths, and counts them."""
  from hierjax.evaluation.predictions import describe, find_paths
  from hierjax.report.plots.predictions import draw_paths
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  found = find_paths(
    folder,
    devices.data_mesh(),
    split=arguments.split,
    each=arguments.each,
    seed=arguments.seed,
    data_root=arguments.data_root,
  )
  print(f"{describe(found)}\n{draw_paths(folder, found)}")
  return 0


def report(arguments: argparse.Namespace) -> int:
  """Writes the page of what a run can do and where it errs."""
  from hierjax.report.page import find, write_report
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  folder = RunFolder(arguments.workdir)
  print(write_report(find(folder, devices.data_mesh(), arguments.split, arguments.data_root)))
  return 0


def label(arguments: argparse.Namespace) -> int:
  """Fills in training labels that end above a leaf."""
  import shlex
  from pathlib import Path

  from hierjax.evaluation.pseudo_labels import describe, write_pseudo_labels
  from hierjax.runs import devices
  from hierjax.runs.folder import RunFolder

  devices.use_compilation_cache()
  found = write_pseudo_labels(
    RunFolder(arguments.workdir),
    devices.data_mesh(),
    Path(arguments.out) if arguments.out else None,
    min_confidence=arguments.min_confidence,
    free=arguments.free,
    data_root=arguments.data_root,
  )
  file = shlex.quote(str(found.file))
  print(f"{describe(found)}\nnext: the same training command, with another --workdir and")
  print(f"  --config.data.partial_labels=pseudo --config.data.pseudo_labels={file}")
  return 0


def shapes(arguments: argparse.Namespace) -> int:
  """Writes images of the embedded set into folders."""
  from pathlib import Path

  from hierjax.data.sources.shapes import write_folders

  if arguments.images < 1:
    raise UserError(f"--images {arguments.images}: at least 1")
  write_folders(Path(arguments.folder), arguments.images)
  print(f"{arguments.images} images are in {arguments.folder}")
  return 0


def import_weights(arguments: argparse.Namespace) -> int:
  """Makes another library's weights those of a backbone."""
  from pathlib import Path

  from hierjax.nn.pretrained.files import FORMATS, to_bytes
  from hierjax.nn.pretrained.name_maps import NETWORKS
  from hierjax.nn.pretrained.restore import describe, restore
  from hierjax.nn.registry import BACKBONES
  from hierjax.runs.folder import write_whole

  if arguments.backbone not in NETWORKS:
    raise UserError(f"--backbone {arguments.backbone}: choose from {', '.join(NETWORKS)}")
  network, file = NETWORKS[arguments.backbone], Path(arguments.file)
  out = Path(arguments.out) if arguments.out else file.with_name(f"{file.stem}.hierjax.safetensors")
  if out.suffix not in FORMATS or out.resolve() == file.resolve():
    raise UserError(f"--out {out}: must be another file than {file}, and end with {' or '.join(FORMATS)}")
  weights = restore(file, network, BACKBONES[network.backbone](**network.settings))
  write_whole(out, to_bytes(weights, out))
  print(describe(weights, network, out))
  return 0
