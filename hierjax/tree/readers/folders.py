"""Folders of images, and the label tree that their names form."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from hierjax.tree.draft import MAX_DEPTH, Draft
from hierjax.tree.label_tree import ROOT, TreeError
from hierjax.tree.readers.split_words import matching, split_of_word, word_list

IMAGE_SUFFIXES = frozenset(
  word_list(".avif .bmp .gif .heic .heif .jfif .jpe .jpeg .jpg .pgm .png .ppm .tif .tiff .webp")
)
# Folders that file systems, cameras' programs and archives leave behind; their images are copies or thumbnails.
PASSED_FOLDERS = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
NO_LABEL = "lies in no folder of a label; images must lie in folders named as their labels"


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder below a root.

  Attributes:
    parts: the names of the folders from the root down to it; () for the root itself.
    path: where it is.
    images: the names of the images right in it, sorted.
    passed_over: the number of other entries right in it, by suffix: `.txt`; `hidden`; or `NAME/` for a folder.
  """

  parts: tuple[str, ...]
  path: str
  images: tuple[str, ...]
  passed_over: Counter[str] = dataclasses.field(default_factory=Counter)


def is_image_name(name: str) -> bool:
  """Returns whether a file's suffix is that of an image."""
  return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


Report = Callable[[str, str, str, str], None]
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class SplitRules:
  """The reading of the folders right below a root, as the section `data` of a config sets it.

  Attributes:
    train: the name of the folder of training images.
    named: further names of splits.
    ignored: the names of folders that are passed over.
    labels: whether every folder is a label, whatever it is called.
  """

  train: str = "train"
  named: tuple[str, ...] = ()
  ignored: tuple[str, ...] = ()
  labels: bool = False


_ANY = SplitRules()


def split_folders(root: str | Path, rules: SplitRules = _ANY) -> dict[str, Path]:
  """Returns the folders of the splits right below `root`, by name; {} where the folders there are labels.

  They are splits where one is called `train` and every other visible folder is called as a split too, see
  `split_words`. A sole folder with the name of a split and images right in it is a label, as `train` among `car` and
  `plane`.

  Raises:
    TreeError: some folders are called as splits and others are not, or none of them is that of the training images.
  """
  try:
    entries = _entries(str(root))
  except OSError:  # reported by `walk`
    return {}
  folders = [folder for folder in entries.folders if folder not in rules.ignored]
  named = {name for name in (rules.train, *rules.named) if name}
  splits = [folder for folder in folders if folder in named or split_of_word(folder)]
  if rules.labels or not splits:
    return {}
  others = [folder for folder in folders if folder not in splits]
  if others and len(splits) == 1 and not _has_folders(Path(root) / splits[0]):
    return {}
  if others:
    raise TreeError(_mixed(root, splits, others))
  if len(matching(rules.train, splits)) != 1:
    raise TreeError(
      f"{root}: the folders {_listed(splits)} are called as splits, and it is not clear which one is to be trained on; "
      "set config.data.train_split to its name, or, if they are labels, config.data.folders = labels"
    )
  return {folder: Path(root) / folder for folder in splits}


def _mixed(root: str | Path, splits: list[str], others: list[str]) -> str:
  return (
    f"{root}: the folders {_listed(splits)} are called as splits, and {_listed(others)} beside them "
    f"{'are' if len(others) > 1 else 'is'} not. To pass the latter over, set config.data.ignore = "
    f"({','.join(others[:_SHOWN])},); if they are splits too, name them in config.data.validation_split and "
    "config.data.test_split; if all of them are labels, set config.data.folders = labels"
  )


def _listed(names: list[str]) -> str:
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(map(repr, names[:_SHOWN])) + more


def _has_folders(path: Path) -> bool:
  try:
    return bool(_entries(str(path)).folders)
  except OSError:
    return False


def walk(root: str | Path, report: Report | None = None, ignored: Collection[str] = ()) -> Iterator[Folder]:
  """Yields the folders from `root` down, each before its own and sorted; `PASSED_FOLDERS` and what is hidden are not.

  Links are followed; each folder is entered once.

  Args:
    root: where to start.
    report: called with (kind, path, name, message) for links to a folder that was entered before, and for folders that
      cannot be read.
    ignored: the names of folders right below `root` that are passed over too.

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
      entries = _entries(path)
    except OSError as error:
      if report:
        report("unreadable", path, name, f"cannot be read ({error.strerror})")
      continue
    left_out = [] if parts else [folder for folder in entries.folders if folder in ignored]
    entries.passed_over.update(f"{folder}/" for folder in left_out)
    yield Folder(parts, path, tuple(entries.images), entries.passed_over)
    if len(parts) <= MAX_DEPTH:  # one level too deep is enough to be refused for it
      waiting += [(*parts, folder) for folder in reversed(entries.folders) if folder not in left_out]


def _link_fault(parts: tuple[str, ...], first: tuple[str, ...]) -> tuple[str, str]:
  """Returns the kind and the message of the fault of a folder that was entered before, at the path `first`."""
  first_text = "/".join(first) or "the root"
  if parts[: len(first)] == first:
    return "cycle", f"is a link back to a folder it is in, {first_text!r}"
  return "two parents", f"is the same folder as {first_text!r}; a node has one parent"


@dataclasses.dataclass
class _Entries:
  """The entries of a folder: its folders and its images, sorted, and the number of others, see `Folder`."""

  folders: list[str]
  images: list[str]
  passed_over: Counter[str]


def _entries(path: str) -> _Entries:
  found = _Entries([], [], Counter())
  with os.scandir(path) as entries:
    for entry in entries:
      if entry.name.startswith("."):
        found.passed_over["hidden"] += 1
      elif _is_folder(entry):
        if entry.name.casefold() in PASSED_FOLDERS:
          found.passed_over[f"{entry.name}/"] += 1
        else:
          found.folders.append(entry.name)
      elif is_image_name(entry.name):
        found.images.append(entry.name)
      else:
        found.passed_over[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1
  found.folders.sort()
  found.images.sort()
  return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def read_images_folder(root: str | Path, rules: SplitRules = _ANY) -> Draft:
  """Reads the tree of a folder of images: that of `train` where its folders are splits, see `split_folders`."""
  splits = split_folders(root, rules)
  return read_folder(splits[matching(rules.train, splits)[0]]) if splits else read_folder(root, rules.ignored)


def read_folder(root: str | Path, ignored: Collection[str] = ()) -> Draft:
  """Reads the tree of the folders below `root`; `root` itself is its root, under any name."""
  draft = Draft(str(root), root_given=True)

  def report(kind: str, path: str, name: str, message: str) -> None:
    draft.report(kind, None, name, f"({path}) {message}")

  node_of: dict[tuple[str, ...], int] = {(): ROOT}
  stray = ""
  for folder in walk(root, report, ignored):
    if folder.parts:
      node_of[folder.parts] = draft.add(node_of[folder.parts[:-1]], folder.parts[-1])
    elif folder.images:
      stray = folder.images[0]
  if stray and not draft.names and not draft.findings:
    draft.report("empty", None, draft.root_name, f"has no nodes below it: {stray} {NO_LABEL}")
  return draft
