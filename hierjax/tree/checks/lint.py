"""The linter of label trees and of the images under them."""

from __future__ import annotations

from pathlib import Path

from hierjax.tree.builders import build
from hierjax.tree.checks.findings import Finding, errors_of
from hierjax.tree.checks.laws import check
from hierjax.tree.draft import Structure
from hierjax.tree.image_counts import count_images, leaves_without_images
from hierjax.tree.open_tree import open_draft, own_labels
from hierjax.tree.readers.label_files import check_images, check_several
from hierjax.tree.readers.label_rows import LabelFormat, read_label_table


def lint(
  source: str | Path, format: str = "auto", images: str | Path | None = None, labels: str | Path | None = None
) -> list[Finding]:
  """Returns the faults of a tree, errors first: errors stop a run before it starts, warnings do not.

  Images are checked only if the tree itself has no errors.

  Args:
    source: the tree, as `open_tree` takes it.
    format: how to read it, as `open_tree` takes it.
    images: a folder of images, or None. A tree of folders is a folder of images too.
    labels: a CSV file with images and their labels, or None. The images are then files below `images`, in folders of
      any names; without `images` the files are not checked.

  Raises:
    TreeError: something cannot be read at all.
  """
  labels = labels or own_labels(source, format)
  draft = open_draft(source, format)
  shape = Structure(draft)
  findings = check(draft, shape)
  if errors_of(findings):
    return findings
  tree = build(draft)
  count = count_images(tree, source, images, labels)
  if count is not None:
    lines = [draft.lines[node] for node in shape.order]
    findings += count.findings + leaves_without_images(tree, count, draft.file, lines)
  if labels is not None:
    rows = read_label_table(labels, LabelFormat(root=images)).rows
    findings += check_several(rows, tree, str(labels))
    findings += [] if images is None else check_images(rows, images, str(labels))
  return sorted(findings, key=lambda finding: finding.severity != "error")
