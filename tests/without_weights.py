"""Configs whose values come from pretrained weights, without the weights."""

from hierjax.nn.registry import PRETRAINED
from hierjax.training.sections import resolved


def without_weights(config):
  """Returns a config in which the values that the weights say stand as if they were there, for small images."""
  if config["backbone"]["name"] != PRETRAINED:
    return config
  known = dict(size=0, crop=128, resize=144, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
  changes = {"backbone": {"name": "efficientnet_lite0"}, "data": config["data"] | known}
  return resolved(config | changes | {"init": config["init"] | {"weights": ""}})
