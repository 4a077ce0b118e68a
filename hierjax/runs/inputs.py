"""Whether a backbone reads what a data set has."""

from __future__ import annotations

from hierjax.errors import UserError


def check_reads(data_name: str, backbone_name: str, reads: tuple[int, ...], given: tuple[int, ...]) -> None:
  """Raises UserError where a backbone is given features and reads images, or the reverse, or features of another width.

  Args:
    data_name: `config.data.name`, for messages.
    backbone_name: `config.backbone.name`.
    reads: the shape of one example as the backbone reads it.
    given: its shape as the data set stores it.
  """
  data, backbone = f"config.data.name = {data_name!r}", f"config.backbone.name = {backbone_name!r}"
  if len(reads) == 3 and len(given) == 1:
    raise UserError(
      f"{data} has vectors of {given[0]} features, and {backbone} reads images: train on features with a config whose "
      "backbone is `features`, as configs/features.py"
    )
  if len(reads) == 1 and len(given) == 3:
    raise UserError(
      f"{backbone} reads precomputed features, and {data} has images: `hierjax data features` makes features of "
      "images, to be read by config.data.name = features"
    )
  if len(reads) == 1 and reads != given:
    raise UserError(f"config.backbone.width = {reads[0]}: {data} has vectors of {given[0]} features")
