"""PyTorch's files of weights, read without PyTorch: the zip, and the older format of pickles and storages in a row.

The pickle in them is read by `pickles.load`, which can run nothing; all sizes are compared with that of the file before
anything is read.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hierjax.errors import UserError
from hierjax.nn.pretrained import pickles
from hierjax.nn.pretrained.pickles import Refused, Storage, Tensor

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
KEY = "#"  # between a file and the entry of it that holds the weights

MOST_PICKLE = 64 << 20  # bytes
MOST_TIMES = 16  # how many times the bytes of the file all tensors may take together

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LEGACY = b"\x80\x02\x8a\n"  # the start of a pickle of _MAGIC
_TYPES: Mapping[str, Any] = {
  "torch.DoubleStorage": np.float64,
  "torch.FloatStorage": np.float32,
  "torch.HalfStorage": np.float16,
  "torch.BFloat16Storage": np.uint16,  # numpy has no such type: `_numbers` makes float32 of it
  "torch.LongStorage": np.int64,
  "torch.IntStorage": np.int32,
  "torch.ShortStorage": np.int16,
  "torch.CharStorage": np.int8,
  "torch.ByteStorage": np.uint8,
  "torch.BoolStorage": np.bool_,
}

ReadStorage = Callable[[Storage], np.ndarray]


def read_torch(path: Path, key: str = "", keep: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
  """Returns the tensors of a file of weights by their names, in the types that they have there.

  A file may hold them as they are, or in one entry, such as `state_dict` or `model`, beside others without tensors.

  Args:
    path: a file that `torch.save` wrote, of either format.
    key: the entry that holds the weights; '' for the only one that does.
    keep: whether to read a tensor, by its name.

  Raises:
    UserError: it has no tensors, or has them in several entries and `key` is ''.
    Refused: it holds something else than tensors and containers.
    ValueError: it is damaged, as are other errors of the readers.
  """
  with path.open("rb") as file:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    opener = {b"PK\x03\x04": _zip, _LEGACY: _legacy}.get(start)
    if opener is None:
      raise ValueError(f"it begins with {start!r}, as neither of PyTorch's formats does")
    with opener(file) as (found, read):
      tensors = {name: tensor for name, tensor in _weights(path, found, key).items() if keep(name)}
      _check_sizes(tensors, size)
      return _arrays(tensors, read)


def _weights(path: Path, found: Any, key: str) -> dict[str, Tensor]:
  """Returns the tensors of the entry that has some."""
  entries = {"": found} | (
    {name: entry for name, entry in found.items() if type(name) is str} if _is_dict(found) else {}
  )
  holds = {name: tensors for name, entry in entries.items() if (tensors := _tensors(entry))}
  if key or "" in holds:
    if key not in holds:
      raise UserError(f"{path}: it has no weights by the name {key!r}; there are {_listed(holds)}")
    return holds[key]
  if not holds:
    raise UserError(f"{path}: it has no tensors by names; save them with PyTorch: torch.save(model.state_dict(), FILE)")
  if len(holds) > 1:
    raise UserError(
      f"{path}: it has several sets of weights, {_listed(holds)}: name one, such as {path}{KEY}{next(iter(holds))}"
    )
  return next(iter(holds.values()))


def _is_dict(found: Any) -> bool:
  return type(found) is dict


def _tensors(entry: Any) -> dict[str, Tensor]:
  return {name: t for name, t in entry.items() if type(name) is str and type(t) is Tensor} if _is_dict(entry) else {}


def _listed(names: Mapping[str, Any]) -> str:
  return ", ".join(ascii(name)[1:101] if not name.isprintable() else name[:100] for name in list(names)[:20] if name)


def _check_sizes(tensors: Mapping[str, Tensor], size: int) -> None:
  total = sum(t.size * np.dtype(_TYPES[t.storage.kind]).itemsize for t in tensors.values())
  if total > MOST_TIMES * size:
    raise Refused(f"its tensors would take {total:,} bytes, and the file has {size:,}")


def _arrays(tensors: Mapping[str, Tensor], read: ReadStorage) -> dict[str, np.ndarray]:
  storages: dict[Storage, np.ndarray] = {}
  found = {}
  for name, tensor in tensors.items():
    storage = tensor.storage
    if storage not in storages:
      storages[storage] = read(storage)
    found[name] = _view(storages[storage], tensor)
  return found


def _view(numbers: np.ndarray, tensor: Tensor) -> np.ndarray:
  if not tensor.size:
    return np.zeros(tensor.shape, numbers.dtype)
  strides = [stride * numbers.itemsize for stride in tensor.strides]  # within the storage: `pickles` has checked it
  return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)


def _bytes_of(storage: Storage) -> int:
  return storage.numel * np.dtype(_TYPES[storage.kind]).itemsize


def _numbers(data: bytes, storage: Storage) -> np.ndarray:
  found = np.frombuffer(data, _TYPES[storage.kind])
  return (found.astype(np.uint32) << 16).view(np.float32) if storage.kind == "torch.BFloat16Storage" else found


# The zip.


@contextlib.contextmanager
def _zip(file: io.BufferedIOBase) -> Iterator[tuple[Any, ReadStorage]]:
  with zipfile.ZipFile(file) as archive:
    members = {member.filename: member for member in archive.infolist()}
    pickled = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickled) != 1:
      raise Refused("it is a zip without the one data.pkl that PyTorch writes")
    root = pickled[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
      raise Refused(
        "it is a TorchScript program; save the weights alone: torch.save(torch.jit.load(F).state_dict(), G)"
      )
    order = _member(archive, members, f"{root}byteorder", 16) if f"{root}byteorder" in members else b"little"
    if order.strip() != b"little":
      raise Refused("its numbers have the most significant byte first; save it on another machine")
    content = _member(archive, members, pickled[0], MOST_PICKLE)

    def read(storage: Storage) -> np.ndarray:
      wanted = _bytes_of(storage)
      data = _member(archive, members, f"{root}data/{storage.key}", wanted)
      if len(data) < wanted:
        raise ValueError("a storage has fewer bytes than its tensors need")
      return _numbers(data, storage)

    yield pickles.load(io.BytesIO(content))[0], read


def _member(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str, most: int) -> bytes:
  """Returns a file of the zip; PyTorch compresses none, so what is read is no larger than the whole file."""
  if name not in members:
    raise ValueError("a storage is missing")
  if members[name].compress_type != zipfile.ZIP_STORED:
    raise Refused("its zip is compressed, as PyTorch's never is")
  if members[name].file_size > most:
    raise Refused(f"a part of its zip has {members[name].file_size:,} bytes in place of {most:,}")
  return archive.read(members[name])


# The older format: pickles of a number, the protocol, the machine, the object and the keys; then the storages.


@contextlib.contextmanager
def _legacy(file: io.BufferedIOBase) -> Iterator[tuple[Any, ReadStorage]]:
  content = io.BytesIO(file.read(MOST_PICKLE))
  magic, protocol, machine = (pickles.load(content)[0] for _ in range(3))
  if magic != _MAGIC or protocol != _PROTOCOL or not _is_dict(machine):
    raise ValueError("it is in none of PyTorch's formats")
  if machine.get("little_endian") is not True:
    raise Refused("its numbers have the most significant byte first; save it on another machine")
  found, storages = pickles.load(content)
  places = _places(file, pickles.load(content)[0], storages, content.tell())

  def read(storage: Storage) -> np.ndarray:
    file.seek(places[storage.key])
    return _numbers(file.read(_bytes_of(storage)), storage)

  yield found, read


def _places(file: io.BufferedIOBase, keys: Any, storages: Mapping[str, Storage], place: int) -> dict[str, int]:
  """Returns where the numbers of each storage begin; each lies after the count of its numbers, in the order of keys."""
  if type(keys) is not list or not all(type(key) is str for key in keys) or set(keys) != set(storages):
    raise ValueError("its storages are not those of its tensors")
  size, places = file.seek(0, io.SEEK_END), {}
  for key in keys:
    file.seek(place)
    if int.from_bytes(file.read(8), "little") != storages[key].numel:
      raise ValueError("a storage has another size than its tensors say")
    places[key] = place + 8
    place += 8 + _bytes_of(storages[key])
    if place > size:
      raise ValueError("it ends before its last storage does")
  return places
