"""The summary of a set of image files: splits, columns, tree, and faults, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from hierjax.data.config import DataConfig
from hierjax.data.images.image_files import ImageFacts, image_findings, inspect
from hierjax.data.open_source import own_names
from hierjax.data.source import FileSource, Source
from hierjax.data.sources.folders import FaultyLabels, folder_splits, label_table, labels_file
from hierjax.data.trees import TreeConfig, draft_of_files, open_tree
from hierjax.errors import UserError
from hierjax.tree.checks.findings import Finding, errors_of
from hierjax.tree.checks.laws import check
from hierjax.tree.draft import Structure
from hierjax.tree.image_counts import ImageCount, leaves_without_images
from hierjax.tree.label_tree import ROOT, LabelTree
from hierjax.tree.readers.folders import walk
from hierjax.tree.readers.label_files import check_several

_SHOWN = 10
_GRAVEST = (
  "refused",
  "split not used",
  "image in several splits",
  "unreadable image",
  "names that look alike",
  "slash in a name",
  "few images",
  "leaf without images",
)


@dataclasses.dataclass
class Summary:
  """What a set of image files was understood to be.

  Attributes:
    splits: the number of images of each split, by the set's own name of it.
    uses: the own name of the images to train, validate and test on; "" where there are none.
    columns: the use of each column of the file of labels, see `Columns.roles`.
    passed_over: the number of entries below the root that are no images of the set, see `Folder.passed_over`.
    tree: the label tree; None where it cannot be read.
    counts: `i64[n]`, the images whose label ends at each node, over all splits.
    findings: the faults, errors first.
    facts: of the images' files, where they were opened.
  """

  splits: dict[str, int] = dataclasses.field(default_factory=dict)
  uses: dict[str, str] = dataclasses.field(default_factory=dict)
  columns: dict[str, str] = dataclasses.field(default_factory=dict)
  passed_over: dict[str, int] = dataclasses.field(default_factory=dict)
  tree: LabelTree | None = None
  counts: Int[np.ndarray, "n"] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
  findings: list[Finding] = dataclasses.field(default_factory=list)
  facts: list[ImageFacts] = dataclasses.field(default_factory=list)

  def as_dict(self) -> dict[str, Any]:
    """Returns the summary as plain data, for JSON."""
    tree = self.tree
    return {
      "splits": self.splits,
      "uses": self.uses,
      "columns": self.columns,
      "passed_over": self.passed_over,
      "nodes": 0 if tree is None else tree.num_nodes,
      "leaves": 0 if tree is None else len(tree.leaves),
      "levels": 0 if tree is None else tree.depth,
      "level_names": [] if tree is None else list(tree.named_levels),
      "findings": [dataclasses.asdict(finding) for finding in self.findings],
    }

  def lines(self) -> list[str]:
    """Returns the summary as lines of text, without the findings."""
    found = []
    if self.splits:
      use_of = {own: use for use, own in self.uses.items() if own}
      named = [f"{name} {count:,}{_use(name, use_of)}" for name, count in self.splits.items()]
      found.append(f"splits: {', '.join(named)}")
    if self.columns:
      found.append(f"columns: {', '.join(f'{name} ({role})' for name, role in self.columns.items())}")
    found += [] if self.tree is None else self._tree_lines(self.tree)
    if self.passed_over:
      found.append(f"passed over: {', '.join(f'{count:,} {what}' for what, count in self.passed_over.items())}")
    if self.facts:
      sizes = [fact.size for fact in self.facts if fact.size is not None]
      found += [f"sizes: {_sizes(sizes)}"] if sizes else []
    return found

  def _tree_lines(self, tree: LabelTree) -> list[str]:
    sizes = np.diff(tree.level_offsets)
    levels = ", ".join(f"{tree.level_name(i)} {size:,}" for i, size in enumerate(sizes.tolist()))
    depths = Counter((tree.level[tree.leaves] + 1).tolist())
    leaves = ", ".join(f"{count:,} on {tree.level_name(level - 1)}" for level, count in sorted(depths.items()))
    found = [f"tree: {tree.num_nodes:,} nodes ({levels}); {len(tree.leaves):,} leaves ({leaves})"]
    below = images_below(tree, self.counts) if len(self.counts) else None

    def text(node: int) -> str:
      return tree.names[node] + ("" if below is None else f" {below[node]:,}")

    for top in list(tree.children(ROOT))[:_SHOWN]:
      children = tree.children(top)
      texts = [text(child) for child in list(children)[:_SHOWN]]
      texts += ["..."] if len(children) > _SHOWN else []
      found.append(f"  {text(top)}" + (f": {', '.join(texts)}" if texts else ""))
    more = len(tree.children(ROOT)) - _SHOWN
    return [*found, f"  ... and {more:,} more"] if more > 0 else found

  def gravest(self, most: int = 3) -> list[str]:
    """Returns the number of warnings as a line, and the gravest of them."""
    if not self.findings:
      return []
    rank = {kind: place for place, kind in enumerate(_GRAVEST)}
    graded = sorted(self.findings, key=lambda f: (f.severity != "error", rank.get(f.kind, len(rank))))
    count = len(self.findings)
    return [f"{count:,} warning{'' if count == 1 else 's'} (`hierjax data check` lists them)", *map(str, graded[:most])]


def _use(name: str, use_of: dict[str, str]) -> str:
  use = use_of.get(name, "not used")
  return "" if use == name else f" ({use})"


def _sizes(sizes: list[tuple[int, int]]) -> str:
  least, most = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
  (common, count), *_ = Counter(sizes).most_common(1)
  shown = [f"{width} x {height}" for width, height in (least, most, common)]
  return f"from {shown[0]} to {shown[1]} pixels, most often {shown[2]} ({count:,} of {len(sizes):,})"


def images_below(tree: LabelTree, counts: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
  """Returns the images whose label ends at each node or below it."""
  below = counts.copy()
  for node in range(tree.num_nodes - 1, -1, -1):
    if tree.parent[node] != ROOT:
      below[tree.parent[node]] += below[node]
  return below


def summarize(data: DataConfig, tree_config: TreeConfig, *, open_images: bool = False) -> Summary:
  """Returns the summary of the set `folder` that a config describes, with all that training would refuse.

  Args:
    data: the section `data`.
    tree_config: the section `tree`.
    open_images: whether all images are opened too, with a progress bar.
  """
  found = Summary()
  try:
    _read(found, data, tree_config, open_images)
  except FaultyLabels as error:
    kind = "image whose label is not in the tree"
    found.findings += [Finding("error", kind, fault.file, fault.line, "", fault.message) for fault in error.faults]
  except UserError as error:
    if not errors_of(found.findings):
      found.findings.append(Finding("error", "refused", data.labels or data.root, None, "", str(error)))
  found.findings.sort(key=lambda finding: finding.severity != "error")
  return found


def _read(found: Summary, data: DataConfig, tree_config: TreeConfig, open_images: bool) -> None:
  found.passed_over = dict(_passed_over(data))
  draft = draft_of_files(tree_config, data)
  shape = Structure(draft)
  found.findings += check(draft, shape)
  found.tree = tree = open_tree(tree_config, data)
  found.counts = np.zeros(tree.num_nodes, np.int64)
  if data.labels and not data.is_pack:
    _read_table(found, data, tree)
  splits = folder_splits(data, tree)
  found.splits = dict.fromkeys(splits, 0)
  sources: dict[str, FileSource] = {}
  for name, opened in splits.items():
    sources[name] = source = opened()
    found.splits[name] = len(source)
    ends = source.nodes[source.nodes >= 0]
    found.counts += np.bincount(ends, minlength=tree.num_nodes)
  found.uses = {use: own or "" for use, own in own_names(data, splits).items()}
  found.findings += _unused(found, data)
  count = ImageCount(found.counts, [])
  found.findings += leaves_without_images(tree, count, draft.file, [draft.lines[node] for node in shape.order])
  found.findings += _few(found, tree, sources, draft.file)
  if open_images:
    found.facts = inspect(sources, tree, data.threads)
    found.findings += image_findings(found.facts, data.on_bad_image)


def _read_table(found: Summary, data: DataConfig, tree: LabelTree) -> None:
  path = labels_file(data)
  table = label_table(path, data)
  found.columns = table.columns.roles
  found.findings += check_several(table.rows, tree, str(path))
  if table.left_out:
    found.passed_over["rows of ignored splits"] = table.left_out
  labels = {row.label for row in table.rows if row.label}
  slashed = [label for label in labels if len(label) > 1]
  if len(table.columns.levels) == 1 and slashed and len(slashed) * 2 < len(labels):
    row = next(row for row in table.rows if len(row.label) > 1)
    message = "has a slash, which parts the names of a path; few labels have one. Write \\/ for a slash within a name"
    found.findings.append(Finding("warning", "slash in a name", str(path), row.line, "/".join(row.label), message))


def _passed_over(data: DataConfig) -> Counter[str]:
  if data.is_pack:
    return Counter()
  counts: Counter[str] = Counter()
  root = Path(data.root).expanduser()
  images = 0
  for folder in walk(root, None, data.ignore) if data.root and root.is_dir() else ():
    counts.update(folder.passed_over)
    images += len(folder.images)
  if data.labels:
    with_rows = {row.image for row in label_table(labels_file(data), data).rows}
    counts["images that are not in the file of labels"] = max(0, images - len(with_rows))
    counts[Path(data.labels).suffix.lower()] -= root in labels_file(data).parents
  return +counts


def _unused(found: Summary, data: DataConfig) -> list[Finding]:
  unused = [name for name in found.splits if name not in found.uses.values()]
  where = data.labels or data.root
  message = "is not used: it is neither of the splits to train, validate and test on"
  return [Finding("warning", "split not used", where, None, name, message) for name in unused]


def _few(found: Summary, tree: LabelTree, sources: Mapping[str, Source], file: str) -> list[Finding]:
  """Returns a warning of the leaves that have a single image to train on."""
  train = sources.get(found.uses.get("train", ""))
  if train is None:
    return []
  counts = np.bincount(train.nodes[train.nodes >= 0], minlength=tree.num_nodes)
  few = [tree.path_text(leaf) for leaf in tree.leaves[counts[tree.leaves] == 1].tolist()]
  if not few:
    return []
  more = f" and {len(few) - _SHOWN:,} more" if len(few) > _SHOWN else ""
  message = f"has 1 image to train on, as have {len(few):,} classes in all: {', '.join(few[:_SHOWN])}{more}"
  return [Finding("warning", "few images", file, None, few[0], message)]
