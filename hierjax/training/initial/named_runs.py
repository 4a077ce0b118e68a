"""Runs by name: folders, published runs of the Hub, and pretrained classifiers as runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hierjax.errors import UserError
from hierjax.nn.pretrained import hub
from hierjax.nn.pretrained.named import is_name
from hierjax.runs.folder import is_run_config
from hierjax.runs.published import FILES, foreign_names
from hierjax.training.initial.wrapped import SURE, run_of


class NamedRun(NamedTuple):
  """A run that a name stands for.

  Attributes:
    path: its folder.
    threshold: the confidence threshold that its answers have by default, as text; '' for none. A pretrained
      classifier, which nobody has calibrated, has one.
  """

  path: Path
  threshold: str


def named_run(name: str | Path) -> NamedRun:
  """Returns the run of a name; it is downloaded or made in the cache folder when it is first wanted.

  Args:
    name: the folder of a run; `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, a run that `hierjax push` published, or
      timm's weights of ImageNet's classes; or `lite0`, `lite1` or `lite2`.

  Raises:
    UserError: there is no such run, nor such weights; or a published run names code of others.
  """
  if not is_name(name):
    return NamedRun(Path(name), "")
  if str(name).startswith(hub.PREFIX):
    _, config = hub.config_of(str(name))
    if is_run_config(config):
      if foreign := foreign_names(config):
        raise UserError(
          f"{name}: its config would import {foreign[0]}, code of others; hierjax does not do so by itself"
        )
      return NamedRun(hub.download(str(name), FILES), "")
  return NamedRun(run_of(name), str(SURE))
