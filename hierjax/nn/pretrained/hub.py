"""Weights of the Hugging Face Hub, or of its cache on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hierjax.errors import UserError
from hierjax.extras import require

PREFIX = "hf:"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"


class HubFiles(NamedTuple):
  """The files of a repository in the cache.

  Attributes:
    name: `hf:OWNER/NAME@REVISION`, the revision being that of the files.
    config: timm's description.
    weights: the weights.
  """

  name: str
  config: Path
  weights: Path


def find(name: str) -> HubFiles:
  """Returns the files of a repository, which are downloaded where the cache has not got them.

  `HF_HUB_OFFLINE`, `HF_HOME` and the other variables of huggingface_hub hold. A name with a revision that is in the
  cache needs no network.

  Args:
    name: `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`.

  Raises:
    UserError: huggingface_hub is not installed, or there is no such repository or file, or no network.
  """
  repository, _, revision = name.removeprefix(PREFIX).partition("@")
  if repository.count("/") != 1 or not all(repository.split("/")):
    raise UserError(
      f"{name}: a name of the Hub is {PREFIX}OWNER/NAME, such as {PREFIX}timm/convnext_tiny.in12k_ft_in1k"
    )
  require("hub")
  config = _file(repository, (CONFIG,), revision)
  found = config.parent.name  # snapshots/REVISION/config.json
  weights = _file(repository, WEIGHTS, found)
  return HubFiles(f"{PREFIX}{repository}@{found}", config, weights)


def _file(repository: str, names: Sequence[str], revision: str) -> Path:
  """Returns the first of some files that a repository has."""
  from huggingface_hub import errors, hf_hub_download

  for name in names:
    try:
      return Path(hf_hub_download(repository, name, revision=revision or None))
    except errors.LocalEntryNotFoundError:
      if name == names[-1]:
        raise _unreachable(repository, revision) from None
    except errors.EntryNotFoundError:
      continue
    except errors.GatedRepoError:
      raise UserError(
        f"{PREFIX}{repository}: its owners give it to those who ask: do so on huggingface.co/{repository}, then "
        "`hf auth login`"
      ) from None
    except errors.RepositoryNotFoundError:
      raise UserError(f"{PREFIX}{repository}: the Hub has no such repository, or it is private") from None
    except errors.RevisionNotFoundError:
      raise UserError(f"{PREFIX}{repository}@{revision}: the repository has no such revision") from None
    except errors.HFValidationError:
      raise UserError(f"{PREFIX}{repository}: this is no name of a repository of the Hub") from None
    except OSError:
      raise _unreachable(repository, revision) from None
  raise UserError(f"{PREFIX}{repository}: it has no {' or '.join(names)}: hierjax reads timm's networks")


def _unreachable(repository: str, revision: str) -> UserError:
  from huggingface_hub import constants

  why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
  at = f"@{revision}" if revision else ""
  return UserError(
    f"{PREFIX}{repository}{at}: {why}, and the cache {constants.HF_HUB_CACHE} has not got it: with a network, "
    f"`hf download {repository}` fills the cache; or name a file"
  )
