"""A pretrained classifier with its own last layer as a run like any other: a flat head over a tree of its classes."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hierjax import __version__
from hierjax.data.images.cache import cache_folder
from hierjax.errors import UserError, did_you_mean
from hierjax.nn.pretrained.name_maps import NETWORKS
from hierjax.nn.pretrained.named import IMAGENET, PretrainedWeights, find_weights, is_name
from hierjax.nn.pretrained.preprocessing import Preprocessing
from hierjax.nn.registry import PRETRAINED
from hierjax.runs.checkpoint import Checkpoints
from hierjax.runs.folder import FORMAT, RunFolder, check_new_folder, whole_folder
from hierjax.runs.run import Run
from hierjax.training.initial.from_weights import with_weights
from hierjax.training.sections import overridden
from hierjax.tree.label_finder import LabelFinder, split_path
from hierjax.tree.label_tree import LabelTree, TreeError
from hierjax.tree.open_tree import open_tree

SURE = 0.5  # the confidence threshold of a model that nobody has calibrated: a node is more probable than not

_USUAL = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")  # torchvision's
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class WrapSettings:
  """What a pretrained classifier answers with.

  Attributes:
    tree: the name of a tree of the catalogue, or a file; its leaves are the classes.
    classes: the names, ids or paths of the classes, in the order of the classifier; () for those of ImageNet.
    backbone: the network, for a file that does not say which it is of; ''.
    overrides: values of the config, as on a command line.
  """

  tree: str = IMAGENET
  classes: Sequence[str] = ()
  backbone: str = ""
  overrides: Sequence[str] = ()


def run_of(workdir: str | Path) -> Path:
  """Returns a run's folder: `workdir` itself, or where it names pretrained weights, that of their classifier.

  The latter is made in the cache folder when it is first wanted.

  Raises:
    UserError: there are no such weights, or they are no classifier of ImageNet's classes.
  """
  if not is_name(workdir):
    return Path(workdir)
  found = find_weights(str(workdir))
  if not found.classes:
    raise UserError(
      f"{workdir}: these weights have no classifier of ImageNet's 1,000 classes; `hierjax weights wrap` takes other "
      "classes, and config.init.weights starts a training from them"
    )
  key = hashlib.sha256("\n".join((found.name, found.sha256, __version__, FORMAT)).encode()).hexdigest()[:20]
  shown = re.sub(r"[^\w.-]+", "-", found.name.partition("@")[0])
  path = cache_folder() / "models" / f"{shown}-{key}"
  if not path.is_dir():
    _write(found, path, WrapSettings())
  return path


def wrap(name: str, workdir: str | Path, settings: WrapSettings) -> list[str]:
  """Makes the folder of a run of a pretrained classifier; returns lines about it.

  Args:
    name: of the weights, see `find_weights`.
    workdir: a new folder.
    settings: the tree and its classes.

  Raises:
    UserError: the folder is not new, there are no such weights, they have no classifier, or its classes are not the
      leaves of the tree.
  """
  folder = Path(workdir).expanduser().absolute()
  check_new_folder(folder)
  found = find_weights(name, _section(settings.backbone) or None)
  if not found.backbone:
    raise UserError(f"{name}: it does not say which network it is of: name that by --backbone")
  return _write(found, folder, settings)


def _write(found: PretrainedWeights, path: Path, settings: WrapSettings) -> list[str]:
  config, lines = _config(found, settings)
  tree = open_tree(settings.tree)
  run = Run.from_config(config, tree)
  weights = dataclasses.replace(found, backbone=config["backbone"]).arrays()
  order = _order(tree, settings, found, weights)
  variables = _variables(run, weights, order)
  with whole_folder(path) as unfinished:
    folder = RunFolder(unfinished)
    folder.begin(config, tree, "")  # it was trained on no images that a run could check
    checkpoints = Checkpoints(folder.checkpoints, select_best=False, create=True)
    model = {"params": variables.pop("params"), "collections": variables}
    checkpoints.save(0, model, {"step": np.int32(0)})
    checkpoints.close()
  return [*lines, f"{len(order):,} classes are the leaves of {settings.tree}, a tree of {tree.depth} levels"]


def _config(found: PretrainedWeights, settings: WrapSettings) -> tuple[dict[str, Any], list[str]]:
  lines = []
  known: Mapping[str, Any] = {"mean": (), "std": (), "interpolation": "", "resize": 0, "crop": 0}
  if found.preprocessing is None:
    known = {"mean": _USUAL.mean, "std": _USUAL.std, "interpolation": _USUAL.interpolation, "size": _USUAL.size}
    known |= {"resize": 0, "crop": 0}
    lines.append(
      f"{found.file} does not say how images are prepared, so as torchvision does: {_USUAL.text()} (others: "
      "--config.data.size, .mean, .std and .interpolation)"
    )
  config = {
    "tree": {"source": settings.tree},
    "data": {"name": "folder", "validation": 0.0, "mirror": False, "pad": 0, **known},
    "backbone": _section(settings.backbone) or {"name": PRETRAINED},
    "head": {"name": "flat"},
    "batch_size": 32,
    "epochs": 0.0,
    "init": {"weights": found.name},
  }
  config, more = with_weights(overridden(config, settings.overrides))
  return config, more + lines


def _section(backbone: str) -> dict[str, Any]:
  """Returns the section of a network by its name among `NETWORKS`, with all its layers; {} for ''."""
  if not backbone:
    return {}
  if backbone not in NETWORKS:
    raise UserError(f"--backbone {backbone}: choose from {', '.join(NETWORKS)}{did_you_mean(backbone, NETWORKS)}")
  return {"name": NETWORKS[backbone].backbone, **NETWORKS[backbone].settings}


def _variables(run: Run, weights: Mapping[str, np.ndarray], order: np.ndarray) -> dict[str, Any]:
  """Returns the variables of a run; `order` are the numbers of the classes, in the order of the leaves."""
  shapes = run.variable_shapes
  named = {
    **{name: array for name, array in weights.items() if name.startswith("backbone/")},
    "head/output/kernel": weights["classifier/kernel"][:, order],
    "head/output/bias": weights["classifier/bias"][order],
  }
  wanted = flatten_dict(shapes, keep_empty_nodes=True)
  return unflatten_dict({path: named.get("/".join(path[1:]), leaf) for path, leaf in wanted.items()})


def _order(
  tree: LabelTree, settings: WrapSettings, found: PretrainedWeights, weights: Mapping[str, np.ndarray]
) -> np.ndarray:
  """Returns the number of the class of each leaf, in the order of the leaves; see `wrap`."""
  if "classifier/bias" not in weights:
    raise UserError(f"{found.file}: it has no classifier, so it answers nothing; a training may start from it")
  count = weights["classifier/bias"].size
  names = list(settings.classes) or _imagenet(settings.tree, count)
  if len(names) != count:
    raise UserError(f"{found.file}: its classifier has {count:,} classes, and there are names of {len(names):,}")
  numbers = _leaf_classes(tree, names)
  return np.asarray([numbers[leaf] for leaf in tree.leaves.tolist()])


def _imagenet(tree: str, count: int) -> list[str]:
  """Returns the ids of ImageNet's classes in their usual order, which is that of the ids."""
  if count != 1000:
    raise UserError(
      f"the classifier has {count:,} classes, and ImageNet 1,000: name them in a file, one a line, by --classes FILE"
    )
  imagenet = open_tree(IMAGENET)
  assert imagenet.ids is not None
  return sorted(imagenet.ids[leaf] for leaf in imagenet.leaves)


def _leaf_classes(tree: LabelTree, names: Sequence[str]) -> dict[int, int]:
  """Returns the number of the class of each leaf; raises TreeError unless each leaf has one."""
  finder, found = LabelFinder(tree), dict[int, int]()
  leaves, faults = set(tree.leaves.tolist()), list[str]()
  nearby = sorted({tree.names[leaf] for leaf in leaves})
  for number, name in enumerate(names):
    try:
      node = finder.class_node(name) if finder.knows(name) else tree.find(split_path(name))
    except KeyError as error:
      near = did_you_mean(name, nearby) if len(faults) < _SHOWN else ""
      faults.append(f"class {number}: {error.args[0] if finder.knows(name) else f'{name!r} is not in the tree'}{near}")
      continue
    if node not in leaves:
      faults.append(f"class {number}: {name!r} is no leaf: {tree.path_text(node)} has nodes below it")
    elif node in found:
      faults.append(f"class {number}: {name!r} is the leaf of class {found[node]}, {names[found[node]]!r}, too")
    else:
      found[node] = number
  without = [tree.path_text(leaf) for leaf in tree.leaves.tolist() if leaf not in found]
  if without:
    faults.append(f"leaves without a class: {', '.join(without[:_SHOWN])}{_more(without)}")
  if faults:
    raise TreeError(
      f"the {len(names):,} classes are not the {len(leaves):,} leaves of the tree, each leaf one class:\n"
      + "\n".join(f"  {fault}" for fault in faults[:_SHOWN])
      + _more(faults)
    )
  return found


def _more(items: Sequence[str]) -> str:
  return f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
