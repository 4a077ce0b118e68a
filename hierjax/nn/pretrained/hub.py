"""Weights and runs of the Hugging Face Hub, or of its cache on this machine; and runs to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hierjax.config import read_json
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
  repository, revision = check_name(name)
  config = _file(repository, (CONFIG,), revision)
  found = config.parent.name  # snapshots/REVISION/config.json
  weights = _file(repository, WEIGHTS, found)
  return HubFiles(f"{PREFIX}{repository}@{found}", config, weights)


def check_name(name: str) -> tuple[str, str]:
  """Returns the repository OWNER/NAME and the revision, '' for the newest, of a name.

  Raises:
    UserError: it is no name of the Hub, or huggingface_hub is not installed.
  """
  repository, _, revision = name.removeprefix(PREFIX).partition("@")
  if repository.count("/") != 1 or not all(repository.split("/")):
    raise UserError(
      f"{name}: a name of the Hub is {PREFIX}OWNER/NAME, such as {PREFIX}timm/convnext_tiny.in12k_ft_in1k"
    )
  require("hub")
  return repository, revision


def config_of(name: str) -> tuple[Path, dict[str, Any]]:
  """Returns the file config.json of a repository and what it holds: timm's description, or the config of a run.

  Raises:
    UserError: as `find` does.
  """
  repository, revision = check_name(name)
  file = _file(repository, (CONFIG,), revision)
  return file, read_json(file, "the description of a network")


def download(name: str, patterns: Sequence[str]) -> Path:
  """Returns the folder in the cache with the files of a repository that have these names.

  Raises:
    UserError: as `find` does.
  """
  repository, revision = check_name(name)
  with _said(repository, revision):
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))


def upload(folder: Path, name: str, private: bool) -> str:
  """Uploads the files of a folder as one commit, makes the repository where there is none, and returns its address.

  Checkpoints that an earlier upload left are removed.

  Raises:
    UserError: nobody is logged in, the repository is of others, or the Hub cannot be reached.
  """
  repository, revision = check_name(name)
  with _said(repository, revision):
    from huggingface_hub import HfApi

    api = HfApi(library_name="hierjax")
    api.create_repo(repository, private=private, exist_ok=True)
    found = api.upload_folder(
      repo_id=repository,
      folder_path=folder,
      revision=revision or None,
      commit_message="A run of hierjax",
      delete_patterns=["checkpoints/**"],
    )
  return str(getattr(found, "commit_url", found))


@contextlib.contextmanager
def _said(repository: str, revision: str) -> Iterator[None]:
  """Turns errors of huggingface_hub into sentences."""
  from huggingface_hub import errors

  try:
    yield
  except errors.LocalEntryNotFoundError:
    raise _unreachable(repository, revision) from None
  except errors.LocalTokenNotFoundError:
    raise UserError(f"{PREFIX}{repository}: nobody is logged in: `hf auth login`, or set HF_TOKEN") from None
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
  except errors.HfHubHTTPError as error:
    status = error.response.status_code if error.response is not None else "?"
    raise UserError(
      f"{PREFIX}{repository}: the Hub answers with status {status}; `hf auth login` as somebody who may write there"
    ) from None
  except OSError:
    raise _unreachable(repository, revision) from None


def _file(repository: str, names: Sequence[str], revision: str) -> Path:
  """Returns the first of some files that a repository has."""
  from huggingface_hub import errors, hf_hub_download

  for name in names:
    with _said(repository, revision):
      try:
        return Path(hf_hub_download(repository, name, revision=revision or None))
      except errors.LocalEntryNotFoundError:
        if name == names[-1]:
          raise
      except errors.EntryNotFoundError:
        continue
  raise UserError(f"{PREFIX}{repository}: it has no {' or '.join(names)}: hierjax reads timm's networks")


def _unreachable(repository: str, revision: str) -> UserError:
  from huggingface_hub import constants

  why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
  at = f"@{revision}" if revision else ""
  return UserError(
    f"{PREFIX}{repository}{at}: {why}, and the cache {constants.HF_HUB_CACHE} has not got it: with a network, "
    f"`hf download {repository}` fills the cache; or name a file"
  )
