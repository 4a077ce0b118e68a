"""The tables of the names of parts, and the models that sections of a config describe."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from hierjax.config import REQUIRED, Field, checked, fields_of, is_plain, lookup, lookup_or_import, unpack
from hierjax.errors import UserError
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.backbones.backbone import Backbone
from hierjax.nn.backbones.convnext import CONVNEXTS
from hierjax.nn.backbones.densenet import densenet
from hierjax.nn.backbones.efficientnet_lite import (
  efficientnet_lite0,
  efficientnet_lite1,
  efficientnet_lite2,
  efficientnet_lite3,
  efficientnet_lite4,
)
from hierjax.nn.backbones.foreign import as_backbone
from hierjax.nn.backbones.plain import alexnet, cnn7, sppnet
from hierjax.nn.backbones.preact import preact_resnet, small_resnet, wide_resnet, wider_resnet
from hierjax.nn.backbones.precomputed import PrecomputedFeatures
from hierjax.nn.backbones.resnet import cbam_resnet50, resnet50, resnet152, se_resnet50, se_resnext50
from hierjax.nn.backbones.vgg import vgg16
from hierjax.nn.backbones.vit import VITS
from hierjax.nn.classifier import Classifier, ModelMethod
from hierjax.nn.heads.coarse_fine import CoarseFineHead
from hierjax.nn.heads.dhnn_rnn import DHNNHead
from hierjax.nn.heads.dhnn_s2s import DHNNSequenceHead
from hierjax.nn.heads.flat import FlatHead
from hierjax.nn.heads.flat_ends import FlatEndsHead
from hierjax.nn.heads.multilabel import MultiLabelHead
from hierjax.nn.heads.path_rnn import PathRNNHead
from hierjax.nn.heads.sibling_softmax import SiblingSoftmaxHead
from hierjax.nn.merged import MergedConfig, merge
from hierjax.nn.necks.context import ContextNeck

Section = Mapping[str, Any]
Table = Mapping[str, Callable[..., Any]]

PRETRAINED = "pretrained"


def pretrained() -> None:
  """Stands for the network of `config.init.weights`, which takes its place before a model is made."""
  raise UserError(f"config.backbone.name = {PRETRAINED}: this is the network of config.init.weights, and none is named")


BACKBONES: Table = {
  "alexnet": alexnet,
  "cbam_resnet50": cbam_resnet50,
  "cnn7": cnn7,
  "densenet": densenet,
  "efficientnet_lite0": efficientnet_lite0,
  "efficientnet_lite1": efficientnet_lite1,
  "efficientnet_lite2": efficientnet_lite2,
  "efficientnet_lite3": efficientnet_lite3,
  "efficientnet_lite4": efficientnet_lite4,
  "features": PrecomputedFeatures,
  "preact_resnet": preact_resnet,
  PRETRAINED: pretrained,
  "resnet152": resnet152,
  "resnet50": resnet50,
  "se_resnet50": se_resnet50,
  "se_resnext50": se_resnext50,
  "small_resnet": small_resnet,
  "sppnet": sppnet,
  "vgg16": vgg16,
  "wide_resnet": wide_resnet,
  "wider_resnet": wider_resnet,
  **CONVNEXTS,
  **VITS,
}
NECKS: Table = {"context": ContextNeck, "none": lambda: None}
HEADS: Table = {
  "coarse_fine": CoarseFineHead,
  "dhnn_rnn": DHNNHead,
  "dhnn_s2s": DHNNSequenceHead,
  "flat": FlatHead,
  "flat_ends": FlatEndsHead,
  "multilabel": MultiLabelHead,
  "path_rnn": PathRNNHead,
  "sibling_softmax": SiblingSoftmaxHead,
}
PARTS: Mapping[str, Table] = {"backbone": BACKBONES, "neck": NECKS, "head": HEADS}
_MOST = {"blocks": 512, "layers": 512, "convolutions": 512, "depth": 2000}
_LARGEST, _LONGEST = 2**20, 64
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# Arguments of parts that no section sets: the model's, and linen's own.
_GIVEN = ("arrays", "branch_levels", "dtype", "parent", "name")


@checked
@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The sections of a config that describe a model.

  A part's section is its name and its settings: `{"name": "path_rnn", "width": 512}`. A name is that of a table of this
  module, or `package.module:Thing` for a part of another package.

  Attributes:
    backbone: names a backbone.
    head: names a head.
    neck: names a neck.
    dtype: of the computation: float32 or bfloat16. Weights are float32.
    merged: the keys of `MergedConfig`.
    remat: those of `backbone`, `neck` and `head` that the backward pass computes anew; see `Classifier`.
  """

  backbone: Section
  head: Section
  neck: Section = dataclasses.field(default_factory=lambda: {"name": "none"})
  dtype: str = "float32"
  merged: Section = dataclasses.field(default_factory=dict)
  remat: tuple[str, ...] = ()


def make_method(config: ModelConfig, tree: TreeArrays) -> ModelMethod:
  """Returns the model that the sections of a config describe, for a tree.

  Raises:
    UserError: there is no such part, it has no such setting, or a value is not allowed; the message lists what is.
  """
  merging = unpack(MergedConfig, config.merged, "merged")
  levels = merging.branch_levels(tree.depth)
  if levels and config.neck != {"name": "none"}:
    raise UserError(
      f"config.merged.shared = {merging.shared}: a merged network has no neck; set config.neck.name = none, or "
      "config.merged.shared = -1"
    )
  given = {"dtype": lookup(DTYPES, config.dtype, "dtype"), "branch_levels": levels}
  anew = "backbone" in config.remat

  def build() -> Any:
    made = make_part("backbone", config.backbone, given)
    return made.clone(remat=True) if anew and isinstance(made, Backbone) else made

  head = make_part("head", config.head, given | {"arrays": tree})
  module = Classifier(
    backbone=merge(build, merging.shared, levels) if levels else build(),
    head=head,
    neck=make_part("neck", config.neck, given),
    remat=config.remat,
  )
  return ModelMethod(module, tree)


def part_fields(part: str, name: Any) -> dict[str, Field]:
  """Returns the settings of a part: its arguments whose default, if there is one, is plain data.

  Args:
    part: `backbone`, `neck` or `head`.
    name: as a section names it.

  Raises:
    UserError: there is no such part.
  """
  fields = fields_of(_builder(part, name), _GIVEN)
  return {key: field for key, field in fields.items() if field.default is REQUIRED or is_plain(field.default)}


def make_part(part: str, section: Section, given: Mapping[str, Any]) -> Any:
  """Returns the part that a section describes.

  Args:
    part: `backbone`, `neck` or `head`.
    section: its name and its settings.
    given: arguments that are passed on where the part has them.

  Raises:
    UserError: as `make_method`.
  """
  if not isinstance(section, Mapping) or "name" not in section:
    raise UserError(f"config.{part}.name is missing: choose from {', '.join(sorted(PARTS[part]))}")
  name = section["name"]
  build = _builder(part, name)
  taken = fields_of(build).keys()
  passed = {key: value for key, value in given.items() if key in taken} | dict.fromkeys(taken & {"parent", "name"})
  settings = {key: value for key, value in section.items() if key != "name"}
  for key, value in settings.items():
    _check_size(f"config.{part}.{key}", value, _MOST.get(key, _LARGEST))
  try:
    made = unpack(build, settings, part, **passed)
  except (UserError, ValueError) as error:  # of `unpack`, which names the key, or of the part, which does not
    raise UserError(str(error) if str(error).startswith("config.") else f"config.{part}: {error}") from None
  return as_backbone(made, name) if part == "backbone" and name not in BACKBONES else made


def _check_size(where: str, value: Any, most: int) -> None:
  """Raises UserError for numbers that no network has, which a config from others may name."""
  values = value if isinstance(value, list | tuple) else (value,)
  if len(values) > _LONGEST or any(isinstance(v, int | float) and v > most for v in values):
    raise UserError(f"{where} = {str(value)[:80]}: must be at most {most:,}, or a list of {_LONGEST} such numbers")


def _builder(part: str, name: Any) -> Callable[..., Any]:
  """Returns the function that makes a part from its settings."""
  where = f"config.{part}.name = {name!r}"
  found = lookup_or_import(PARTS[part], name, f"{part}.name")
  nnx = sys.modules.get("flax.nnx")  # its import takes a fifth of a second, and a subclass has imported it
  if nnx and isinstance(found, type) and issubclass(found, nnx.Module):
    raise UserError(
      f"{where}: this is an nnx module; name a function that returns a linen one, made by flax.nnx.bridge.ToLinen (see "
      "hierjax.ForeignBackbone)"
    )
  if part == "head":
    if not hasattr(found, "for_tree"):
      raise UserError(
        f"{where}: a head is a class with the classmethod for_tree(arrays, **fields); see hierjax.FlatHead"
      )
    found = found.for_tree
  if not callable(found):
    raise UserError(f"{where}: this is a {type(found).__name__}; name a class or a function")
  return found
