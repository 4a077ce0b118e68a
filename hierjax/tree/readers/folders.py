"""Folders of images, and the label tree that their names form."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from hierjax.tree.draft import MAX_DEPTH, Draft
from hierjax.tree.label_tree import ROOT, TreeError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SPLIT_NAMES = frozenset({"train", "validation", "val", "test"})
NO_LABEL = "lies in no folder of a label; images must lie in folders named as their labels"


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder below a root.

  Attributes:
    parts: the names of the folders from the root down to it; () for the root itself.
    path: where it is.
    images: the names of the images right in it, sorted.
  """

  parts: tuple[str, ...]
  path: str
  images: tuple[str, ...]


def is_image_name(name: str) -> bool:
  """Returns whether a file's suffix is that of an image."""
  return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


Report = Callable[[str, str, str, str], None]


def split_folders(root: str | Path, train: str = "train", named: Collection[str] = ()) -> dict[str, Path]:
  """Returns the folders of the splits right below `root`, by name; {} where the folders there are labels.

  They are splits where one is named `train` and every other visible folder has the name of a split too. So `train`
  among `car` and `plane` is a label.

  Args:
    root: where to look.
    train: the name of the folder of training images.
    named: further names of splits, in addition to `SPLIT_NAMES`.
  """
  try:
    folders, _ = _entries(str(root))
  except OSError:  # reported by `walk`
    return {}
  if train not in folders or not set(folders) <= SPLIT_NAMES | {train, *named}:
    return {}
  return {folder: Path(root) / folder for folder in folders}


def walk(root: str | Path, report: Report | None = None) -> Iterator[Folder]:
  """Yields the folders from `root` down, each before its own and sorted; hidden files and folders are passed over.

  Links are followed; each folder is entered once.

  Args:
    root: where to start.
    report: called with (kind, path, name, message) for links to a folder that was entered before, and for folders that
      cannot be read.

  Raises:
    TreeError: `root` is no folder.
  """
  if not Path(root).is_dir():
    raise TreeError(f"{root} is not a folder")
  seen: dict[tuple[int, int], tuple[str, ...]] = {}
  waiting: list[tuple[str, ...]] = [()]
  while waiting:
    parts = waiting.pop()
    path = os.path.join(root, *parts)
    name = parts[-1] if parts else str(root)
    try:
      status = os.stat(path)
      key = (status.st_dev, status.st_ino)
      if key in seen:
        if report:
          kind, message = _link_fault(parts, seen[key])
          report(kind, path, name, message)
        continue
      seen[key] = parts
      folders, images = _entries(path)
    except OSError as error:
      if report:
        report("unreadable", path, name, f"cannot be read ({error.strerror})")
      continue
    yield Folder(parts, path, tuple(images))
    if len(parts) <= MAX_DEPTH:  # one level too deep is enough to be refused for it
      waiting += [(*parts, folder) for folder in reversed(folders)]


def _link_fault(parts: tuple[str, ...], first: tuple[str, ...]) -> tuple[str, str]:
  """Returns the kind and the message of the fault of a folder that was entered before, at the path `first`."""
  first_text = "/".join(first) or "the root"
  if parts[: len(first)] == first:
    return "cycle", f"is a link back to a folder it is in, {first_text!r}"
  return "two parents", f"is the same folder as {first_text!r}; a node has one parent"


def _entries(path: str) -> tuple[list[str], list[str]]:
  """Returns the names of the folders and of the images in a folder, sorted."""
  folders, images = [], []
  with os.scandir(path) as entries:
    for entry in entries:
      if entry.name.startswith("."):
        continue
      if _is_folder(entry):
        folders.append(entry.name)
      elif is_image_name(entry.name):
        images.append(entry.name)
  return sorted(folders), sorted(images)


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def read_images_folder(root: str | Path) -> Draft:
  """Reads the tree of a folder of images: that of `train` where its folders are splits, see `split_folders`."""
  return read_folder(split_folders(root).get("train", root))


def read_folder(root: str | Path) -> Draft:
  """Reads the tree of the folders below `root`; `root` itself is its root, under any name."""
  draft = Draft(str(root), root_given=True)

  def report(kind: str, path: str, name: str, message: str) -> None:
    draft.report(kind, None, name, f"({path}) {message}")

  node_of: dict[tuple[str, ...], int] = {(): ROOT}
  stray = ""
  for folder in walk(root, report):
    if folder.parts:
      node_of[folder.parts] = draft.add(node_of[folder.parts[:-1]], folder.parts[-1])
    elif folder.images:
      stray = folder.images[0]
  if stray and not draft.names and not draft.findings:
    draft.report("empty", None, draft.root_name, f"has no nodes below it: {stray} {NO_LABEL}")
  return draft
