"""What most heads answer alike, so that a head's own file has what is its own."""

from __future__ import annotations

from typing import ClassVar

from hierjax.types import DecodeOptions, Features


def check_dropout(rate: float) -> None:
  """Raises ValueError for a rate outside its range."""
  if not 0 <= rate < 1:
    raise ValueError(f"dropout = {rate}: a rate is at least 0 and less than 1")


def check_label_smoothing(share: float) -> None:
  """Raises ValueError for a share outside its range."""
  if not 0 <= share <= 1:
    raise ValueError(f"label_smoothing = {share}: must be from 0 to 1")


class HeadDefaults:
  """A base beside `nn.Module`: of a head that predicts one path, takes any options and chooses nothing by itself."""

  multilabel: ClassVar[bool] = False
  has_states: ClassVar[bool] = False

  def validate(self, options: DecodeOptions) -> None:
    """Accepts any options."""

  def describe(self, features: Features) -> list[str]:
    """Returns nothing: the head chooses nothing by itself."""
    return []
