"""hierjax: classify images into a tree of labels."""

from hierjax.backbones.backbone import Backbone as Backbone
from hierjax.backbones.densenet import densenet as densenet
from hierjax.backbones.plain import alexnet as alexnet
from hierjax.backbones.plain import cnn7 as cnn7
from hierjax.backbones.plain import sppnet as sppnet
from hierjax.backbones.preact import preact_resnet as preact_resnet
from hierjax.backbones.preact import small_resnet as small_resnet
from hierjax.backbones.preact import wide_resnet as wide_resnet
from hierjax.backbones.preact import wider_resnet as wider_resnet
from hierjax.backbones.precomputed import PrecomputedFeatures as PrecomputedFeatures
from hierjax.functional.adaptation import adapt as adapt
from hierjax.functional.adaptation import adapted as adapted
from hierjax.functional.averaging import ensemble as ensemble
from hierjax.functional.metrics import Mean as Mean
from hierjax.functional.metrics import evaluate_batch as evaluate_batch
from hierjax.functional.tree_arrays import TreeArrays as TreeArrays
from hierjax.functional.tree_arrays import tree_arrays as tree_arrays
from hierjax.heads.coarse_fine import CoarseFineHead as CoarseFineHead
from hierjax.heads.flat import FlatHead as FlatHead
from hierjax.heads.path_rnn import PathRNNHead as PathRNNHead
from hierjax.layers.spatial import SpatialRNN as SpatialRNN
from hierjax.layers.spatial import spatial_recurrence as spatial_recurrence
from hierjax.models.classifier import Classifier as Classifier
from hierjax.models.classifier import ModelMethod as ModelMethod
from hierjax.models.factory import make_method as make_method
from hierjax.models.merged import MergedBackbone as MergedBackbone
from hierjax.models.merged import merge as merge
from hierjax.necks.context import ContextNeck as ContextNeck
from hierjax.tree.builders import from_paths as from_paths
from hierjax.tree.label_tree import PAD as PAD
from hierjax.tree.label_tree import ROOT as ROOT
from hierjax.tree.label_tree import STOP as STOP
from hierjax.tree.label_tree import UNKNOWN as UNKNOWN
from hierjax.tree.label_tree import LabelTree as LabelTree
from hierjax.tree.labels import class_nodes as class_nodes
from hierjax.tree.opening import open_tree as open_tree
from hierjax.types import Batch as Batch
from hierjax.types import DecodeOptions as DecodeOptions
from hierjax.types import Features as Features
from hierjax.types import Prediction as Prediction

__version__ = "0.1.0"
