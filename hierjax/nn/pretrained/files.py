"""Files of weights: safetensors and npz, which hold arrays and no code."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from hierjax.errors import UserError
from hierjax.nn.pretrained.name_maps import COUNTER

Arrays = Mapping[str, np.ndarray]

FLOATS = ("float16", "bfloat16", "float32", "float64")
FORMATS = (".safetensors", ".npz")
LARGEST = 8 << 30  # bytes that an npz, which may be compressed, may unpack to

_CONVERT = (
  "PyTorch's own files can run code when they are read, so hierjax does not read them. One that you trust becomes a "
  'file for hierjax by: python -c "import sys, torch; from safetensors.torch import save_file; '
  'save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])" {path} {stem}.safetensors'
)


def read_weights(file: str | Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a file by their names, `f32[...]`, but for batch norm's counters.

  The file need not be trusted: it is checked, and an error is one sentence.

  Args:
    file: `.safetensors` or `.npz`, of float16, bfloat16, float32 or float64.

  Raises:
    UserError: it is no such file, or is damaged, or holds other numbers.
  """
  path = Path(file).expanduser()
  reader = _reader(path)
  if not path.is_file():
    raise UserError(f"{path}: there is no such file")
  try:
    arrays = reader(path)
  except UserError:
    raise
  except Exception as error:  # the readers raise a dozen kinds for damaged files
    reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    raise UserError(f"{path}: is damaged, or no {path.suffix} file ({reason})") from None
  return {name: _floats(path, name, array) for name, array in arrays.items()}


def to_bytes(arrays: Arrays, file: str | Path) -> bytes:
  """Returns the content of the file of that name; raises UserError unless it ends with .safetensors or .npz."""
  _reader(Path(file))
  arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  if Path(file).suffix == ".safetensors":
    return save(arrays)
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **arrays)
  return buffer.getvalue()


def shown(name: str) -> str:
  """Returns a name out of a file as it can be printed."""
  return name if name.isprintable() and len(name) <= 100 else f"{name[:100]!a}..."


def _reader(path: Path) -> Callable[[Path], Mapping[str, Any]]:
  readers = dict(zip(FORMATS, (_read_safetensors, _read_npz), strict=True))
  if path.suffix in (".pth", ".pt", ".bin", ".pkl", ".ckpt", ".tar"):
    raise UserError(f"{path}: {_CONVERT.format(path=path, stem=path.with_suffix(''))}")
  if path.suffix not in readers:
    raise UserError(f"{path}: a file of weights ends with {' or '.join(FORMATS)}")
  return readers[path.suffix]


def _read_safetensors(path: Path) -> Mapping[str, Any]:
  with safe_open(path, framework="np") as file:
    return {name: file.get_tensor(name) for name in file.keys() if not _is_counter(name)}  # noqa: SIM118 (no mapping)


def _read_npz(path: Path) -> Mapping[str, Any]:
  with zipfile.ZipFile(path) as archive:
    if sum(member.file_size for member in archive.infolist()) > LARGEST:
      raise ValueError(f"it unpacks to more than {LARGEST >> 30} GiB")
  with np.load(path, allow_pickle=False) as archive:
    return {name: archive[name] for name in archive.files if not _is_counter(name)}


def _is_counter(name: str) -> bool:
  return name.split(".")[-1] == COUNTER


def _floats(path: Path, name: str, array: Any) -> np.ndarray:
  if not isinstance(array, np.ndarray) or array.dtype.name not in FLOATS:
    kind = array.dtype.name if isinstance(array, np.ndarray) else "no array"
    raise UserError(f"{path}: {shown(name)} is {kind}; weights are {', '.join(FLOATS)}")
  with np.errstate(over="ignore"):
    array = array.astype(np.float32)
  if not np.isfinite(array).all():
    raise UserError(f"{path}: {shown(name)} holds numbers that are not finite")
  return array
