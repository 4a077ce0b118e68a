"""Findings of the linter, and the error that lists them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from hierjax.tree.label_tree import TreeError

Severity = Literal["error", "warning"]
_MOST_SHOWN = 20


def printable(text: str) -> str:
  r"""Returns `text` with unprintable characters escaped, such as `\n`: names come from untrusted files."""
  return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclasses.dataclass(frozen=True)
class Finding:
  """One fault of a tree, or of the images under it.

  Attributes:
    severity: an `error` stops a run before it starts, a `warning` does not.
    kind: the kind of fault, such as `cycle`.
    file: the file or folder that it is in.
    line: the line of `file`, from 1; None where there are no lines.
    node: the node or label that it is about.
    message: the fault, and how to correct it.
  """

  severity: Severity
  kind: str
  file: str
  line: int | None
  node: str
  message: str

  def __str__(self) -> str:
    node = f"{self.node!r} " if self.node else ""
    place = self.file if self.line is None else f"{self.file}:{self.line}"
    return printable(f"{place}: {self.severity}: {self.kind}: {node}{self.message}")


class FaultyTree(TreeError):
  """A tree with errors; the message lists them.

  Attributes:
    findings: the errors, in the order they were found.
  """

  def __init__(self, findings: Sequence[Finding]):
    self.findings = tuple(findings)
    shown = [str(finding) for finding in self.findings[:_MOST_SHOWN]]
    more = len(self.findings) - len(shown)
    super().__init__("\n".join(shown + [f"... and {more} more errors"] * (more > 0)))


def errors_of(findings: Sequence[Finding]) -> list[Finding]:
  """Returns the findings that stop a run."""
  return [finding for finding in findings if finding.severity == "error"]
