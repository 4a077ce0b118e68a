"""The linter: all that is wrong with a label tree and with the images under it."""

from __future__ import annotations

from pathlib import Path

from hierjax.tree.builders import build
from hierjax.tree.draft import Structure
from hierjax.tree.findings import Finding, errors_of
from hierjax.tree.images import count_images, leaves_without_images
from hierjax.tree.laws import check
from hierjax.tree.opening import open_draft


def lint(
  source: str | Path, format: str = "auto", images: str | Path | None = None, labels: str | Path | None = None
) -> list[Finding]:
  """Returns what is wrong with a tree, errors first: those stop a run before it starts, warnings do not.

  Images are looked at once the tree itself has no errors.

  Args:
    source: the tree, as `open_tree` takes it.
    format: how to read it, as `open_tree` takes it.
    images: a folder of images, or None. A tree of folders is a folder of images too.
    labels: a CSV file with images and their labels instead of such a folder, or None.

  Raises:
    TreeError: something cannot be read at all.
  """
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
  return sorted(findings, key=lambda finding: finding.severity != "error")
