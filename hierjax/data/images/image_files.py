"""The files of a set's images: their sizes, the unreadable ones, and exact duplicates."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from hierjax.data.images.decode import parallel
from hierjax.data.images.read_image import image_size, read_image
from hierjax.data.source import FileSource, Source
from hierjax.errors import UserError, few
from hierjax.tree.checks.findings import Finding, Severity
from hierjax.tree.label_tree import LabelTree

_SMALL = 16


@dataclasses.dataclass(frozen=True)
class ImageFacts:
  """What opening an image's file has shown.

  Attributes:
    file: its path.
    split: the split that it is in.
    label: its first label path, as text.
    size: its width and height; None where it cannot be read.
    digest: of its bytes; "" where they cannot be read.
    fault: the reason for which it cannot be read; "" where it can.
  """

  file: str
  split: str
  label: str
  size: tuple[int, int] | None = None
  digest: str = ""
  fault: str = ""


def inspect(sources: Mapping[str, FileSource], tree: LabelTree, threads: int) -> list[ImageFacts]:
  """Opens all images of the splits, and returns the facts in order."""
  waiting = [
    (source, i, ImageFacts(source.name_of(i), split, _label(source, i, tree)))
    for split, source in sources.items()
    for i in range(len(source))
  ]
  with tqdm(parallel(_opened, iter(waiting), threads), total=len(waiting), desc="opening images", delay=2) as bar:
    return list(bar)


def _label(source: Source, index: int, tree: LabelTree) -> str:
  node = int(source.nodes[index, 0])
  return tree.path_text(node) if node >= 0 else ""


def _opened(place: tuple[FileSource, int, ImageFacts]) -> ImageFacts:
  source, index, facts = place
  try:
    data = source.file_bytes(index)
    read_image(data, _SMALL, name=facts.file)
    return dataclasses.replace(facts, size=image_size(data), digest=hashlib.sha256(data).hexdigest())
  except UserError as error:
    return dataclasses.replace(facts, fault=str(error).removeprefix(f"{facts.file}: "))
  except OSError as error:
    return dataclasses.replace(facts, fault=f"cannot be read ({error.strerror})")


def image_findings(facts: Sequence[ImageFacts], on_bad_image: str) -> list[Finding]:
  """Returns the unreadable images, errors where `on_bad_image` is `stop`, and warnings of images that are equal."""
  severity: Severity = "error" if on_bad_image == "stop" else "warning"
  found = [
    Finding(severity, "unreadable image", fact.file, None, fact.label, fact.fault) for fact in facts if fact.fault
  ]
  same: dict[str, list[ImageFacts]] = {}
  for fact in facts:
    if fact.digest:
      same.setdefault(fact.digest, []).append(fact)
  return found + [_duplicates(group) for group in same.values() if len(group) > 1]


def _duplicates(group: Sequence[ImageFacts]) -> Finding:
  first, *others = group
  splits = sorted({fact.split for fact in group})
  labels = sorted({fact.label for fact in group})
  kind = "image in several splits" if len(splits) > 1 else "duplicate image"
  files = few([fact.file for fact in others])
  across = f"; they are in the splits {' and '.join(splits)}" if len(splits) > 1 else ""
  unlike = f"; their labels differ: {', '.join(labels)}" if len(labels) > 1 else ""
  return Finding("warning", kind, first.file, None, first.label, f"has the same bytes as {files}{across}{unlike}")
