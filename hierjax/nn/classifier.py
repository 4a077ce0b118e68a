"""Backbone, neck and head as one module, and that module with its tree as a `Method`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from hierjax.functional.calibration import calibrated
from hierjax.functional.decoding import decode
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.backbones.backbone import Backbone, called, remat
from hierjax.nn.kept import KeptMap, KeptPooled
from hierjax.nn.merged import MergedBackbone
from hierjax.types import DecodeOptions, Distribution, Features, Inputs, Leaf, Prediction, Variables


class Classifier(nn.Module):
  """A backbone, a neck if there is one, and a head.

  Attributes:
    backbone: `backbone(inputs, train) -> Features`.
    head: `head(features, targets, train) -> outputs`, with `loss` and `distribution`; see `hierjax.types.Head`.
    neck: `neck(features, train) -> Features`, or None.
    head_rows: how the rows of the pooled vector that the head reads lie on the devices; None leaves it to the compiler.
    remat: those of `backbone`, `neck` and `head` that the backward pass computes anew, a `Backbone` stage by stage: the
      forward pass keeps what they are given, and not what is within them.
  """

  backbone: nn.Module
  head: nn.Module
  neck: nn.Module | None = None
  head_rows: NamedSharding | None = None
  remat: tuple[str, ...] = ()

  def __call__(
    self,
    inputs: Inputs,
    targets: Int[Array, "b *p l"] | tuple[Int[Array, "b *p l"], ...] | None = None,
    train: bool = False,
    frozen: tuple[str, ...] = (),
  ) -> Any:
    """Returns the head's outputs; a tuple of them for several labels an image.

    Args:
      inputs: images, precomputed features, or the `Features` of the backbone, which is then not run.
      targets: the label paths, for a head that is fed the labels before the one it predicts; a tuple of them where
        images are mixed.
      train: whether dropout drops and batch norm uses the batch's statistics.
      frozen: those of `backbone`, `neck` and `head` that run with `train=False` all the same.
    """
    features = self.features(inputs, train, frozen)
    training = train and "head" not in frozen
    if isinstance(targets, tuple):
      return tuple(self._run("head", features, own, train=training) for own in targets)
    return self._run("head", features, targets, train=training)

  def features(self, inputs: Inputs, train: bool = False, frozen: tuple[str, ...] = ()) -> Features:
    """Returns what the head reads."""
    features = self.backbone_features(inputs, train=train and "backbone" not in frozen)
    if self.neck is not None:
      features = self._run("neck", features, train=train and "neck" not in frozen)
    if self.head_rows is not None:
      pooled = jax.lax.with_sharding_constraint(features.pooled, self.head_rows)
      features = dataclasses.replace(features, pooled=pooled)
    return features

  def backbone_features(self, inputs: Inputs, train: bool = False) -> Features:
    """Returns the features of the backbone."""
    if isinstance(inputs, Features):
      return inputs if inputs.stages else self.kept.features(inputs.pooled)
    if isinstance(self.backbone, Backbone | MergedBackbone):  # which see to it stage by stage
      return called(self.backbone, inputs, train=train)
    return self._run("backbone", inputs, train=train)

  def _run(self, part: str, *inputs: Any, train: bool) -> Any:
    return (remat if part in self.remat else called)(getattr(self, part), *inputs, train=train)

  @property
  def kept(self) -> Any:
    """What is read of the features of a frozen backbone: a neck's map, a head's own `kept`, or the pooled features."""
    return KeptMap() if self.neck is not None else getattr(self.head, "kept", KeptPooled())

  def kept_array(self, inputs: Inputs) -> Float[Array, "b *d"]:
    """Returns what is read of the features of the backbone, as one array an image; see `hierjax.nn.kept`."""
    found: Array = self.kept.array(self.backbone_features(inputs))
    return found.astype(jnp.float32)

  def distribution(
    self, inputs: Inputs, known: Int[Array, "b l"] | None, tree: TreeArrays, options: DecodeOptions
  ) -> Distribution:
    """Returns the head's distribution; see `Method.distribution`."""
    return self.head.distribution(self.features(inputs), known, tree, options)

  def states(self, inputs: Inputs, paths: Int[Array, "b l"]) -> Float[Array, "b l state"]:
    """Returns the state of a recurrent head, the only kind that has any, after each step of the paths it is fed."""
    return self.head.states(self.features(inputs), paths)


@struct.dataclass
class ModelMethod:
  """A `Method`: a `Classifier` and the tree it predicts.

  It is a pytree whose leaves are the tree's arrays. Pass it to a jitted function to have them as arguments there; a
  function that closes over it has them compiled in as constants.

  Attributes:
    module: the network; static.
    tree: the tree's arrays.
    temperature: `f32[]`, at which its distributions are given; see `calibrated`. 1 before any is fitted.
  """

  module: Classifier = struct.field(pytree_node=False)
  tree: TreeArrays = struct.field()
  temperature: Leaf = np.float32(1)

  def loss(self, outputs: Any, paths: Int[Array, "b *p l"]) -> Float[Array, "b"]:
    """Returns the loss of each example; 0 where its label says nothing."""
    return self.module.head.loss(outputs, paths, self.tree)

  def describe(self, inputs: Inputs) -> list[str]:
    """Returns the head's lines about its choices for inputs of this shape; often none."""
    features = jax.eval_shape(lambda: self.module.init_with_output(jax.random.key(0), inputs, method="features")[0])
    lines: list[str] = self.module.head.describe(features)
    return lines

  def distribution(
    self,
    variables: Variables,
    inputs: Inputs,
    known: Int[Array, "b l"] | None = None,
    options: DecodeOptions = DecodeOptions(),
  ) -> Distribution:
    """Returns the probabilities of the tree, at the temperature.

    `known` holds upper labels that are given, UNKNOWN where they are not.
    """
    found: Any = self.module.apply(variables, inputs, known, self.tree, options, method="distribution")
    return calibrated(found, self.temperature, self.tree)

  def predict(
    self,
    variables: Variables,
    inputs: Inputs,
    known: Int[Array, "b l"] | None = None,
    options: DecodeOptions = DecodeOptions(),
  ) -> Prediction:
    """Returns the paths decoded from that distribution, with all its probabilities."""
    return decode(self.distribution(variables, inputs, known, options), self.tree, options)
