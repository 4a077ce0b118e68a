"""The identity backbone for precomputed features."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.nn.backbones.backbone import check_sizes
from hierjax.types import Features


@checked
class PrecomputedFeatures(nn.Module):
  """A backbone without weights, whose inputs are another network's features (Guo et al. 2018, 4.1.2 and 4.2).

  Attributes:
    width: of the feature vectors.
  """

  width: int

  def __post_init__(self) -> None:
    """Raises ValueError for a width below 1."""
    if self.width < 1:
      raise ValueError(f"width = {self.width!r}: must be 1 or more, the number of features of an image")
    check_sizes(width=self.width)
    super().__post_init__()

  def __call__(self, inputs: Float[Array, "b *d"], train: bool = False) -> Features:
    """Returns `inputs` as the pooled vector, without maps; raises UserError unless they are `f32[b width]`."""
    if inputs.shape[1:] != (self.width,):
      raise UserError(
        f"inputs of shape {list(inputs.shape)}: the backbone `features` reads vectors of {self.width} features"
      )
    return Features(stages=(), pooled=inputs)
