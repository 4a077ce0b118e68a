"""hierjax: classify images into a tree of labels.

Names are imported when they are first used: `import hierjax` is instant, and a missing extra matters only where it is
needed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from hierjax.evaluation.metrics.measure import metrics as metrics
  from hierjax.functional.adaptation import adapt as adapt
  from hierjax.functional.adaptation import adapted as adapted
  from hierjax.functional.calibration import calibrated as calibrated
  from hierjax.functional.combine import mean_of_members as mean_of_members
  from hierjax.functional.combine import mean_of_views as mean_of_views
  from hierjax.functional.decoding import decode as decode
  from hierjax.functional.losses import conditional_cross_entropy as conditional_cross_entropy
  from hierjax.functional.losses import end_cross_entropy as end_cross_entropy
  from hierjax.functional.losses import hierarchical_cross_entropy as hierarchical_cross_entropy
  from hierjax.functional.losses import path_cross_entropy as path_cross_entropy
  from hierjax.functional.losses import sibling_cross_entropy as sibling_cross_entropy
  from hierjax.functional.losses import smoothed_cross_entropy as smoothed_cross_entropy
  from hierjax.functional.losses import soft_label_cross_entropy as soft_label_cross_entropy
  from hierjax.functional.losses import soft_max_margin as soft_max_margin
  from hierjax.functional.losses import subtree_cross_entropy as subtree_cross_entropy
  from hierjax.functional.metrics import Mean as Mean
  from hierjax.functional.metrics import evaluate_batch as evaluate_batch
  from hierjax.functional.multilabel import F1 as F1
  from hierjax.functional.multilabel import multilabel_metrics as multilabel_metrics
  from hierjax.functional.restriction import restricted as restricted
  from hierjax.functional.selective import abstain as abstain
  from hierjax.functional.tree_arrays import TreeArrays as TreeArrays
  from hierjax.functional.tree_arrays import tree_arrays as tree_arrays
  from hierjax.inference.predictor import Predictor as Predictor
  from hierjax.inference.purpose import Purpose as Purpose
  from hierjax.nn.backbones.backbone import Backbone as Backbone
  from hierjax.nn.backbones.convnext import convnext as convnext
  from hierjax.nn.backbones.densenet import densenet as densenet
  from hierjax.nn.backbones.efficientnet_lite import efficientnet_lite0 as efficientnet_lite0
  from hierjax.nn.backbones.efficientnet_lite import efficientnet_lite1 as efficientnet_lite1
  from hierjax.nn.backbones.efficientnet_lite import efficientnet_lite2 as efficientnet_lite2
  from hierjax.nn.backbones.efficientnet_lite import efficientnet_lite3 as efficientnet_lite3
  from hierjax.nn.backbones.efficientnet_lite import efficientnet_lite4 as efficientnet_lite4
  from hierjax.nn.backbones.foreign import ForeignBackbone as ForeignBackbone
  from hierjax.nn.backbones.plain import alexnet as alexnet
  from hierjax.nn.backbones.plain import cnn7 as cnn7
  from hierjax.nn.backbones.plain import sppnet as sppnet
  from hierjax.nn.backbones.preact import preact_resnet as preact_resnet
  from hierjax.nn.backbones.preact import small_resnet as small_resnet
  from hierjax.nn.backbones.preact import wide_resnet as wide_resnet
  from hierjax.nn.backbones.preact import wider_resnet as wider_resnet
  from hierjax.nn.backbones.precomputed import PrecomputedFeatures as PrecomputedFeatures
  from hierjax.nn.backbones.resnet import cbam_resnet50 as cbam_resnet50
  from hierjax.nn.backbones.resnet import resnet50 as resnet50
  from hierjax.nn.backbones.resnet import resnet152 as resnet152
  from hierjax.nn.backbones.resnet import se_resnet50 as se_resnet50
  from hierjax.nn.backbones.resnet import se_resnext50 as se_resnext50
  from hierjax.nn.backbones.vgg import vgg16 as vgg16
  from hierjax.nn.backbones.vit import vit as vit
  from hierjax.nn.classifier import Classifier as Classifier
  from hierjax.nn.classifier import ModelMethod as ModelMethod
  from hierjax.nn.heads.coarse_fine import CoarseFineHead as CoarseFineHead
  from hierjax.nn.heads.dhnn_rnn import DHNNHead as DHNNHead
  from hierjax.nn.heads.dhnn_s2s import DHNNSequenceHead as DHNNSequenceHead
  from hierjax.nn.heads.flat import FlatHead as FlatHead
  from hierjax.nn.heads.flat_ends import FlatEndsHead as FlatEndsHead
  from hierjax.nn.heads.multilabel import MultiLabelHead as MultiLabelHead
  from hierjax.nn.heads.path_rnn import PathRNNHead as PathRNNHead
  from hierjax.nn.heads.sibling_softmax import SiblingSoftmaxHead as SiblingSoftmaxHead
  from hierjax.nn.layers.conversions import Conversion as Conversion
  from hierjax.nn.layers.recurrence.spatial import SpatialRNN as SpatialRNN
  from hierjax.nn.layers.recurrence.spatial import spatial_recurrence as spatial_recurrence
  from hierjax.nn.merged import MergedBackbone as MergedBackbone
  from hierjax.nn.merged import merge as merge
  from hierjax.nn.necks.context import ContextNeck as ContextNeck
  from hierjax.nn.registry import ModelConfig as ModelConfig
  from hierjax.nn.registry import make_method as make_method
  from hierjax.tree.builders import from_paths as from_paths
  from hierjax.tree.label_finder import class_nodes as class_nodes
  from hierjax.tree.label_tree import PAD as PAD
  from hierjax.tree.label_tree import ROOT as ROOT
  from hierjax.tree.label_tree import STOP as STOP
  from hierjax.tree.label_tree import UNKNOWN as UNKNOWN
  from hierjax.tree.label_tree import LabelTree as LabelTree
  from hierjax.tree.open_tree import open_tree as open_tree
  from hierjax.types import Batch as Batch
  from hierjax.types import DecodeOptions as DecodeOptions
  from hierjax.types import Distribution as Distribution
  from hierjax.types import Features as Features
  from hierjax.types import Prediction as Prediction

__version__ = "0.1.0"

_MODULES = {
  "metrics": "hierjax.evaluation.metrics.measure",
  "adapt": "hierjax.functional.adaptation",
  "adapted": "hierjax.functional.adaptation",
  "calibrated": "hierjax.functional.calibration",
  "mean_of_members": "hierjax.functional.combine",
  "mean_of_views": "hierjax.functional.combine",
  "decode": "hierjax.functional.decoding",
  "conditional_cross_entropy": "hierjax.functional.losses",
  "end_cross_entropy": "hierjax.functional.losses",
  "hierarchical_cross_entropy": "hierjax.functional.losses",
  "path_cross_entropy": "hierjax.functional.losses",
  "sibling_cross_entropy": "hierjax.functional.losses",
  "smoothed_cross_entropy": "hierjax.functional.losses",
  "soft_label_cross_entropy": "hierjax.functional.losses",
  "soft_max_margin": "hierjax.functional.losses",
  "subtree_cross_entropy": "hierjax.functional.losses",
  "Mean": "hierjax.functional.metrics",
  "evaluate_batch": "hierjax.functional.metrics",
  "F1": "hierjax.functional.multilabel",
  "multilabel_metrics": "hierjax.functional.multilabel",
  "restricted": "hierjax.functional.restriction",
  "abstain": "hierjax.functional.selective",
  "TreeArrays": "hierjax.functional.tree_arrays",
  "tree_arrays": "hierjax.functional.tree_arrays",
  "Predictor": "hierjax.inference.predictor",
  "Purpose": "hierjax.inference.purpose",
  "Backbone": "hierjax.nn.backbones.backbone",
  "convnext": "hierjax.nn.backbones.convnext",
  "densenet": "hierjax.nn.backbones.densenet",
  "ForeignBackbone": "hierjax.nn.backbones.foreign",
  "alexnet": "hierjax.nn.backbones.plain",
  "cnn7": "hierjax.nn.backbones.plain",
  "sppnet": "hierjax.nn.backbones.plain",
  "preact_resnet": "hierjax.nn.backbones.preact",
  "small_resnet": "hierjax.nn.backbones.preact",
  "wide_resnet": "hierjax.nn.backbones.preact",
  "wider_resnet": "hierjax.nn.backbones.preact",
  "PrecomputedFeatures": "hierjax.nn.backbones.precomputed",
  "cbam_resnet50": "hierjax.nn.backbones.resnet",
  "efficientnet_lite0": "hierjax.nn.backbones.efficientnet_lite",
  "efficientnet_lite1": "hierjax.nn.backbones.efficientnet_lite",
  "efficientnet_lite2": "hierjax.nn.backbones.efficientnet_lite",
  "efficientnet_lite3": "hierjax.nn.backbones.efficientnet_lite",
  "efficientnet_lite4": "hierjax.nn.backbones.efficientnet_lite",
  "resnet152": "hierjax.nn.backbones.resnet",
  "resnet50": "hierjax.nn.backbones.resnet",
  "se_resnet50": "hierjax.nn.backbones.resnet",
  "se_resnext50": "hierjax.nn.backbones.resnet",
  "vgg16": "hierjax.nn.backbones.vgg",
  "vit": "hierjax.nn.backbones.vit",
  "Classifier": "hierjax.nn.classifier",
  "ModelMethod": "hierjax.nn.classifier",
  "CoarseFineHead": "hierjax.nn.heads.coarse_fine",
  "DHNNHead": "hierjax.nn.heads.dhnn_rnn",
  "DHNNSequenceHead": "hierjax.nn.heads.dhnn_s2s",
  "FlatHead": "hierjax.nn.heads.flat",
  "FlatEndsHead": "hierjax.nn.heads.flat_ends",
  "MultiLabelHead": "hierjax.nn.heads.multilabel",
  "PathRNNHead": "hierjax.nn.heads.path_rnn",
  "SiblingSoftmaxHead": "hierjax.nn.heads.sibling_softmax",
  "Conversion": "hierjax.nn.layers.conversions",
  "SpatialRNN": "hierjax.nn.layers.recurrence.spatial",
  "spatial_recurrence": "hierjax.nn.layers.recurrence.spatial",
  "MergedBackbone": "hierjax.nn.merged",
  "merge": "hierjax.nn.merged",
  "ContextNeck": "hierjax.nn.necks.context",
  "ModelConfig": "hierjax.nn.registry",
  "make_method": "hierjax.nn.registry",
  "from_paths": "hierjax.tree.builders",
  "class_nodes": "hierjax.tree.label_finder",
  "LabelTree": "hierjax.tree.label_tree",
  "PAD": "hierjax.tree.label_tree",
  "ROOT": "hierjax.tree.label_tree",
  "STOP": "hierjax.tree.label_tree",
  "UNKNOWN": "hierjax.tree.label_tree",
  "open_tree": "hierjax.tree.open_tree",
  "Batch": "hierjax.types",
  "DecodeOptions": "hierjax.types",
  "Distribution": "hierjax.types",
  "Features": "hierjax.types",
  "Prediction": "hierjax.types",
}

__all__ = ("load", *_MODULES)


def load(workdir: str | Path) -> Predictor:
  """Returns a predictor with the run in a folder, or with pretrained weights; `Predictor` has options.

  Args:
    workdir: the folder; `hf:OWNER/NAME`, a run that `hierjax push` published; or `lite0`, `lite1`, `lite2` or
      `hf:timm/NAME`: a classifier of ImageNet's classes, whose paths end above nodes with a probability below 0.5.

  Raises:
    UserError: the folder holds no run that can be used, or there are no such weights.
  """
  from hierjax.inference.predictor import Predictor
  from hierjax.training.initial.named_runs import named_run

  found = named_run(workdir)
  return Predictor(found.path, threshold=found.threshold)


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f"module 'hierjax' has no attribute {name!r}")
  value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
  return value


def __dir__() -> list[str]:
  return [*globals(), *_MODULES]
