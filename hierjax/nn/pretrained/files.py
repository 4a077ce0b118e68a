"""Files of weights: safetensors and npz, and PyTorch's own, which are read without running the code in them."""

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
from hierjax.nn.pretrained.pickles import Refused
from hierjax.nn.pretrained.torch_files import KEY, SUFFIXES, read_torch

Arrays = Mapping[str, np.ndarray]

FLOATS = ("float16", "bfloat16", "float32", "float64")
FORMATS = (".safetensors", ".npz")
READABLE = (*FORMATS, *SUFFIXES)
_POINTER = b"version https://git-lfs"
LARGEST = 8 << 30  # bytes that an npz, which may be compressed, may unpack to


def read_weights(file: str | Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a file by their names, `f32[...]`, but for batch norm's counters.

  The file need not be trusted: it is checked, and an error is one sentence.

  Args:
    file: `.safetensors`, `.npz`, or a file that PyTorch wrote, `.pth`, `.pt`, `.bin`, `.ckpt` or `.tar`; of float16,
      bfloat16, float32 or float64. `FILE#KEY` names the entry of a PyTorch file that holds the weights.

  Raises:
    UserError: it is no such file, or is damaged, or holds other numbers, or code.
  """
  path, key = split_key(file)
  reader = _reader(path)
  if not path.is_file():
    raise UserError(f"{path}: there is no such file")
  with path.open("rb") as opened:
    if opened.read(len(_POINTER)) == _POINTER:
      raise UserError(f"{path}: is a pointer of Git LFS and not the weights: run git lfs pull in its repository")
  try:
    arrays = reader(path, key)
  except UserError:
    raise
  except Refused as error:
    raise UserError(f"{path}: {error}") from None
  except Exception as error:  # the readers raise a dozen kinds for damaged files
    reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    raise UserError(f"{path}: is damaged, or no {path.suffix} file ({reason})") from None
  return {name: _floats(path, name, array) for name, array in arrays.items()}


def split_key(file: str | Path) -> tuple[Path, str]:
  """Returns a file, and the entry of it that `FILE#KEY` names; '' where there is none."""
  file = Path(file).expanduser()
  name, mark, key = str(file).rpartition(KEY)
  return (Path(name), key) if mark and Path(name).suffix in SUFFIXES and not file.exists() else (file, "")


def to_bytes(arrays: Arrays, file: str | Path) -> bytes:
  """Returns the content of the file of that name; raises UserError unless it ends with .safetensors or .npz."""
  if Path(file).suffix not in FORMATS:
    raise UserError(f"{file}: a file of weights that hierjax writes ends with {' or '.join(FORMATS)}")
  arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
  if Path(file).suffix == ".safetensors":
    return save(arrays)
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **arrays)
  return buffer.getvalue()


def shown(name: str) -> str:
  """Returns a name out of a file as it can be printed."""
  return name if name.isprintable() and len(name) <= 100 else f"{name[:100]!a}..."


def _reader(path: Path) -> Callable[[Path, str], Mapping[str, Any]]:
  readers = {".safetensors": _read_safetensors, ".npz": _read_npz} | dict.fromkeys(SUFFIXES, _read_torch)
  if path.suffix not in readers:
    raise UserError(f"{path}: a file of weights ends with {', '.join(READABLE[:-1])} or {READABLE[-1]}")
  return readers[path.suffix]


def _read_safetensors(path: Path, key: str) -> Mapping[str, Any]:
  with safe_open(path, framework="np") as file:
    return {name: file.get_tensor(name) for name in file.keys() if not _is_counter(name)}  # noqa: SIM118 (no mapping)


def _read_npz(path: Path, key: str) -> Mapping[str, Any]:
  with zipfile.ZipFile(path) as archive:
    if sum(member.file_size for member in archive.infolist()) > LARGEST:
      raise ValueError(f"it unpacks to more than {LARGEST >> 30} GiB")
  with np.load(path, allow_pickle=False) as archive:
    return {name: archive[name] for name in archive.files if not _is_counter(name)}


def _read_torch(path: Path, key: str) -> Mapping[str, Any]:
  return read_torch(path, key, keep=lambda name: not _is_counter(name))


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
