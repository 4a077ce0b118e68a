"""The records in which the tables of other libraries' names are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Layer(NamedTuple):
  """A layer, or several of one kind.

  Attributes:
    original: a regex of the layer's whole name.
    ours: its name here, with the regex's groups in it; within the backbone, but for `classifier`.
    kind: a key of LEAVES.
  """

  original: str
  ours: str
  kind: str


class Network(NamedTuple):
  """A network whose weights can be imported.

  Attributes:
    backbone: the name that a config has for it.
    settings: those of its section.
    layers: all its layers; a name is one of the first that fits.
    others: a regex of the names of parts that are left out, such as CLIP's text tower; '' for none.
  """

  backbone: str
  settings: Mapping[str, Any]
  layers: tuple[Layer, ...]
  others: str = ""
