"""The one place where names become parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from hierjax.config import choose, unpack
from hierjax.errors import UserError
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.backbones.densenet import densenet
from hierjax.nn.backbones.plain import alexnet, cnn7, sppnet
from hierjax.nn.backbones.preact import preact_resnet, small_resnet, wide_resnet, wider_resnet
from hierjax.nn.backbones.precomputed import PrecomputedFeatures
from hierjax.nn.backbones.resnet import cbam_resnet50, resnet50, resnet152, se_resnet50
from hierjax.nn.backbones.vgg import vgg16
from hierjax.nn.classifier import Classifier, ModelMethod
from hierjax.nn.heads.coarse_fine import CoarseFineHead
from hierjax.nn.heads.dhnn_rnn import DHNNHead
from hierjax.nn.heads.dhnn_s2s import DHNNSequenceHead
from hierjax.nn.heads.flat import FlatHead
from hierjax.nn.heads.multilabel import MultiLabelHead
from hierjax.nn.heads.path_rnn import PathRNNHead
from hierjax.nn.merged import MergedConfig, merge
from hierjax.nn.necks.context import ContextNeck

Section = Mapping[str, Any]
Table = Mapping[str, Callable[..., Any]]

BACKBONES: Table = {
  "alexnet": alexnet,
  "cbam_resnet50": cbam_resnet50,
  "cnn7": cnn7,
  "densenet": densenet,
  "features": PrecomputedFeatures,
  "preact_resnet": preact_resnet,
  "resnet152": resnet152,
  "resnet50": resnet50,
  "se_resnet50": se_resnet50,
  "small_resnet": small_resnet,
  "sppnet": sppnet,
  "vgg16": vgg16,
  "wide_resnet": wide_resnet,
  "wider_resnet": wider_resnet,
}
NECKS: Table = {"context": ContextNeck, "none": lambda: None}
HEADS: Table = {
  "coarse_fine": CoarseFineHead,
  "dhnn_rnn": DHNNHead,
  "dhnn_s2s": DHNNSequenceHead,
  "flat": FlatHead,
  "multilabel": MultiLabelHead,
  "path_rnn": PathRNNHead,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def make_method(
  backbone: Section,
  head: Section,
  tree: TreeArrays,
  neck: Section | None = None,
  dtype: str = "float32",
  merged: Section | None = None,
) -> ModelMethod:
  """Returns the model that the sections of a config describe.

  A section is a part's name and its settings: `{"name": "path_rnn", "width": 512}`. The tree's sizes and the dtype are
  not among the settings.

  Args:
    backbone: names one of BACKBONES.
    head: names one of HEADS.
    tree: the tree to predict.
    neck: names one of NECKS; None is as `none`.
    dtype: of the computation: float32 or bfloat16. Weights are float32.
    merged: the keys of `MergedConfig`; None for a backbone that is not merged.

  Raises:
    UserError: there is no such part, or it has no such setting, or not with such a value; the message says what there
      is.
  """
  merging = unpack(MergedConfig, merged or {}, "merged")
  if merging.shared >= 0 and neck is not None and neck.get("name") != "none":
    raise UserError(
      f"config.merged.shared = {merging.shared}: a merged network has no neck; set config.neck.name = none, or "
      "config.merged.shared = -1"
    )
  levels = merging.branch_levels(tree.depth)
  given = {
    "num_nodes": tree.num_nodes,
    "num_outputs": tree.num_outputs,
    "num_leaves": tree.num_leaves,
    "block_sizes": tree.block_sizes,
    "level_offsets": tree.level_offsets,
    "stop_at": tree.stop_at,
    "branch_levels": levels,
    "dtype": choose(DTYPES, dtype, "dtype"),
    "parent": None,  # linen's own fields, which no section sets
    "name": None,
  }
  build = partial(_part, BACKBONES, backbone, "backbone", given)
  made = _part(HEADS, head, "head", given)
  if levels:
    _check_branches_are_read(made, head["name"], merging.shared, levels)
  module = Classifier(
    backbone=merge(build, merging.shared, levels) if levels else build(),
    head=made,
    neck=None if neck is None else _part(NECKS, neck, "neck", given),
  )
  return ModelMethod(module, tree)


def _check_branches_are_read(head: nn.Module, name: str, shared: int, levels: tuple[int, ...]) -> None:
  """Raises UserError for a head that would leave branches of a merged network unread, and so untrained."""
  where = f"config.merged.shared = {shared}"
  if isinstance(head, (DHNNHead, DHNNSequenceHead)):
    raise UserError(
      f"{where}: config.head.name = {name} reads the maps of stages, and of no branch; choose coarse_fine, flat, "
      "path_rnn or multilabel, or set config.merged.shared = -1"
    )
  if isinstance(head, CoarseFineHead) and head.strategy != "parallel" and len(levels) > 1:
    raise UserError(
      f"{where}: with config.head.strategy = {head.strategy} one branch alone would be read; set config.head.strategy "
      "= parallel, where each level reads its own, or config.merged.shared = -1"
    )


def _part(table: Table, section: Section, where: str, given: Mapping[str, Any]) -> Any:
  if not isinstance(section, Mapping) or "name" not in section:
    raise UserError(f"config.{where}.name is missing: choose from {', '.join(sorted(table))}")
  build = choose(table, section["name"], f"{where}.name")
  parameters = inspect.signature(build).parameters
  settings = {key: value for key, value in section.items() if key != "name"}
  try:
    return unpack(build, settings, where, **{key: value for key, value in given.items() if key in parameters})
  except (UserError, ValueError) as error:  # of `unpack`, which names the key, or of the part, which does not
    raise UserError(str(error) if str(error).startswith("config.") else f"config.{where}: {error}") from None
