"""The variants shared by the configs of Koo et al. (2020)."""

from functools import partial

import ml_collections as mlc


def together(c: mlc.ConfigDict) -> None:
  c.phases.alternate = 0.0


def alternating(c: mlc.ConfigDict) -> None:
  """Half of the run in turns of an epoch, the recurrence first; the paper gives no lengths (READINGS K14)."""
  c.phases.alternate = 0.5
  c.phases.period = 1.0


def conversion(c: mlc.ConfigDict, name: str) -> None:
  c.head.conversion = name


KINDS = ("pool", "pool_average", "pool_linear", "pool_dense", "linear", "conv", "dense")
CONVERSIONS = {name: partial(conversion, name=name) for name in KINDS}
