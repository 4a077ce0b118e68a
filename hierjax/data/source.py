"""Sources of labelled images: the protocol, the source in memory, and the view of a part of another source."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8

from hierjax.data.images.read_image import BadImageError
from hierjax.errors import UserError
from hierjax.tree.label_tree import PAD, ROOT, LabelTree

Images = UInt8[np.ndarray, "m h w c"] | Float[np.ndarray, "m d"] | Float[np.ndarray, "m v *d"]

_SAMPLED, _SAMPLE, _MOST = 1000, 3 * 4096, 2**62  # images, bytes of each, and all bytes

# The splits of a set; each is opened when its function is called.
Splits = Mapping[str, Callable[[], "Source"]]


@runtime_checkable
class Source(Protocol):
  """Images by number, and the tree nodes that their labels end at; `read` is called from several threads at once."""

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of one image, (h, w, c), or of one vector of precomputed features, (d,)."""

  @property
  def nodes(self) -> Int[np.ndarray, "n p"]:
    """The node that each label path of each image ends at; PAD where an image has fewer than p paths."""

  def __len__(self) -> int: ...

  def read(self, indices: Integer[np.ndarray, "m"]) -> Images:
    """Returns images, all of `shape`; raises BadImageError for one that cannot be read."""

  def name_of(self, index: int) -> str:
    """Returns the name of an image in messages, such as its file."""

  def extents(self, indices: Integer[np.ndarray, "m"]) -> Int[np.ndarray, "m 2"]:
    """Returns the height and width of images that `read` stretches to its squares; elsewhere those of `shape`."""

  def content(self, index: int, most: int) -> bytes:
    """Returns the number of the bytes that an image is stored in, where that is known without reading it, and bytes.

    Args:
      index: of the image.
      most: how many bytes, from the start, the middle and the end; where they are in memory, there may be more.
    """


class FileSource(Source, Protocol):
  """A source whose images are files, or were."""

  def file_bytes(self, index: int) -> bytes:
    """Returns the bytes of a file; raises OSError or UserError where it cannot be read."""


FileSplits = Mapping[str, Callable[[], FileSource]]


class StoredSource(Source, Protocol):
  """A source whose images are decoded each time they are read."""

  @property
  def name(self) -> str:
    """The name of the set in messages."""

  @property
  def settings(self) -> str:
    """The settings of decoding; images decoded with several settings are kept side by side."""

  @property
  def fingerprint(self) -> str:
    """All that the pixels depend on: equal fingerprints, equal images."""


@dataclasses.dataclass(frozen=True)
class ArraySource:
  """Images in memory.

  Attributes:
    images: `u8[n h w c]`, or precomputed features `f32[n d]`.
    nodes: `i32[n p]`, as in `Source`.
    name: of the set in messages.
    image_name: returns the name of an image in messages; by default its number in the set.
    bad: the faults of the images that could not be read, by number.
    stored: the `content` of the source that they were decoded from; by default it is that of the rows.
    stretched: `i32[n 2]`, height and width of the images that were stretched to squares; None where they were not.
  """

  images: np.ndarray
  nodes: np.ndarray
  name: str = "arrays"
  image_name: Callable[[int], str] | None = None
  bad: Mapping[int, str] = dataclasses.field(default_factory=dict)
  stored: Callable[[int, int], bytes] | None = None
  stretched: np.ndarray | None = None

  def __post_init__(self) -> None:
    """Raises UserError for arrays that do not go together."""
    is_images = self.images.ndim == 4 and self.images.dtype == np.uint8
    is_features = self.images.ndim == 2 and self.images.dtype == np.float32
    if not (is_images or is_features):
      found = f"{self.images.dtype}{list(self.images.shape)}"
      raise UserError(f"{self.name}: images are {found}; allowed are uint8[n h w c], or float32[n d] for features")
    if self.nodes.shape[:-1] != self.images.shape[:1]:
      raise UserError(f"{self.name}: {len(self.images)} images and labels of shape {self.nodes.shape}; want [n p]")

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of one image or vector."""
    return self.images.shape[1:]

  def __len__(self) -> int:
    return len(self.images)

  def read(self, indices: Integer[np.ndarray, "m"]) -> Images:
    """Returns images; raises BadImageError for one that could not be read."""
    for index in indices if self.bad else ():
      if int(index) in self.bad:
        raise BadImageError(self.bad[int(index)])
    return np.asarray(self.images[indices])

  def name_of(self, index: int) -> str:
    """Returns the name of an image in messages."""
    return self.image_name(index) if self.image_name else f"{self.name} example {index}"

  def extents(self, indices: Integer[np.ndarray, "m"]) -> Int[np.ndarray, "m 2"]:
    """Returns heights and widths; see `Source`."""
    return squares(len(indices), self.shape) if self.stretched is None else self.stretched[indices]

  def content(self, index: int, most: int) -> bytes:
    """Returns the bytes of an image as it is stored; see `Source`."""
    return self.stored(index, most) if self.stored else self.images[index].tobytes() if most else b""


@dataclasses.dataclass(frozen=True)
class View:
  """A part of the images of another source, with labels of its own.

  Attributes:
    source: the other source.
    indices: `i64[n]`, which of its images these are.
    nodes: `i32[n p]`, as in `Source`.
  """

  source: Source
  indices: np.ndarray
  nodes: np.ndarray

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of one image."""
    return self.source.shape

  def __len__(self) -> int:
    return len(self.indices)

  def read(self, indices: Integer[np.ndarray, "m"]) -> Images:
    """Returns images; raises BadImageError as the other source does."""
    return self.source.read(self.indices[indices])

  def name_of(self, index: int) -> str:
    """Returns the name of an image in messages."""
    return self.source.name_of(int(self.indices[index]))

  def extents(self, indices: Integer[np.ndarray, "m"]) -> Int[np.ndarray, "m 2"]:
    """Returns heights and widths; see `Source`."""
    return self.source.extents(self.indices[indices])

  def content(self, index: int, most: int) -> bytes:
    """Returns the bytes of an image as it is stored; see `Source`."""
    return self.source.content(int(self.indices[index]), most)


def squares(count: int, shape: tuple[int, ...]) -> Int[np.ndarray, "m 2"]:
  """Returns the `extents` of images that are not stretched."""
  return np.tile(np.array(shape[:2], np.int32), (count, 1))


def data_checksum(source: Source, all_bytes: bool = False) -> str:
  """Returns the checksums of a set's labels, of the names of its files without their folders, and of their contents.

  It does not depend on the folder of the set.

  Args:
    source: the images.
    all_bytes: of all images, for the contents; otherwise of their sizes, and of 12 KiB each of a thousand of them.
  """
  names = "\n".join(os.path.basename(source.name_of(i)) for i in range(len(source)))
  named = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
  return f"{labels_checksum(source)}-{named}-{_contents_checksum(source, all_bytes)}"


def _contents_checksum(source: Source, all_bytes: bool) -> str:
  found = hashlib.sha256()
  every = 1 if all_bytes else max(1, len(source) // _SAMPLED)
  for index in range(len(source)):
    most = 0 if index % every else _MOST if all_bytes else _SAMPLE
    found.update(source.content(index, most))
  return found.hexdigest()


def what_changed(before: str, now: str) -> str:
  """Returns what differs between two checksums of `data_checksum`: labels, names or contents; '' where nothing does."""
  parts = zip(("labels", "names", "contents"), before.split("-"), now.split("-"), strict=False)
  names = [name for name, one, other in parts if one != other]
  return " and ".join(names) or ("contents" if before != now else "")


def content_of_bytes(data: bytes, most: int) -> bytes:
  """Returns what `file_content` does of a file with these bytes."""
  size, part = len(data), most // 3
  starts = (0,) if size <= most else (0, (size - part) // 2, size - part)
  return f"{size} ".encode() + b"".join(data[start : start + (size if size <= most else part)] for start in starts)


def file_content(file: str, most: int) -> bytes:
  """Returns the size of a file and up to `most` of its bytes, from the start, the middle and the end."""
  try:
    size = os.path.getsize(file)
    if not most:
      return f"{size} ".encode()
    with open(file, "rb") as opened:
      if size <= most:
        return f"{size} ".encode() + opened.read()
      pieces = []
      for start in (0, (size - most // 3) // 2, size - most // 3):
        opened.seek(start)
        pieces.append(opened.read(most // 3))
  except OSError:
    return b"missing "
  return f"{size} ".encode() + b"".join(pieces)


def labels_checksum(source: Source) -> str:
  """Returns a checksum of the number of images and their labels."""
  return hashlib.sha256(np.ascontiguousarray(source.nodes, dtype="<i4").tobytes()).hexdigest()


def nodes_column(nodes: Integer[np.ndarray, "..."]) -> Int[np.ndarray, "n p"]:
  """Returns end nodes, `i[n]` or `i[n p]`, in the form of `Source.nodes`."""
  return np.asarray(nodes if nodes.ndim == 2 else nodes[:, None], np.int32)


def has_label(nodes: Int[np.ndarray, "n p"]) -> Bool[np.ndarray, "n"]:
  """Returns whether an image has a label path with a node; ROOT (nothing is known) and PAD are none."""
  return np.asarray((nodes >= 0).any(axis=1))


def checked_nodes(nodes: np.ndarray, num_nodes: int, where: str) -> Int[np.ndarray, "n p"]:
  """Returns end nodes that come from a file, in the form of `Source.nodes`.

  Raises:
    UserError: they are no integers [n] or [n p] of a tree with `num_nodes` nodes; `where` is their name in the message.
  """
  if not np.issubdtype(nodes.dtype, np.integer) or nodes.ndim not in (1, 2):
    raise UserError(f"{where} is {nodes.dtype}{list(nodes.shape)}; want integers [n] or [n p]")
  # In the file's own dtype: as int32, 2**32 would be node 0.
  wrong = np.argwhere((nodes >= num_nodes) | ((nodes < ROOT) & (nodes != PAD)))
  if len(wrong):
    place = tuple(wrong[0].tolist())
    raise UserError(f"{where} holds {nodes[place]} in row {place[0]}; the tree has nodes 0 to {num_nodes - 1}")
  return nodes_column(nodes)


def deepest_nodes(nodes: Int[np.ndarray, "n p"], tree: LabelTree) -> Int[np.ndarray, "n q"]:
  """Returns each image's end nodes, in their order, without those that lie above another of it, and PAD after them."""
  above, kept = nodes, nodes.copy()
  for _ in range(tree.depth - 1):
    above = np.where(above >= 0, tree.parent[np.maximum(above, 0)], PAD)
    for path in above.T:
      kept[nodes == path[:, None]] = PAD
  kept = np.take_along_axis(kept, np.argsort(kept < 0, axis=1, kind="stable"), axis=1)
  most = int(np.count_nonzero(kept >= 0, axis=1).max(initial=1))
  return kept[:, :most]


def pad_nodes(paths: list[list[int]]) -> Int[np.ndarray, "n p"]:
  """Returns the end nodes of each image's paths, filled up with PAD."""
  most = max(1, max(map(len, paths), default=1))
  return np.array([row + [PAD] * (most - len(row)) for row in paths], np.int32).reshape(len(paths), most)
