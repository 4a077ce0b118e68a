"""The laws of a label tree: functions that find the nodes which break them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from hierjax.errors import few
from hierjax.tree.checks.findings import Finding
from hierjax.tree.draft import MAX_DEPTH, Draft, Structure
from hierjax.tree.label_tree import ROOT


def check(draft: Draft, shape: Structure) -> list[Finding]:
  """Returns the findings of reading `draft` and the faults of the whole tree: errors first, then warnings."""
  found = list(draft.findings)
  for law in (_empty, _bad_names, _cycles, _twins, _near_twins, _too_deep, _single_child_chains):
    found += law(draft, shape)
  return sorted(found, key=lambda finding: finding.severity != "error")


def _empty(draft: Draft, shape: Structure) -> Iterator[Finding]:
  # Where rows were refused, their findings are the reason.
  if not draft.names and not draft.findings:
    yield Finding("error", "empty", draft.file, None, draft.root_name, "has no nodes below it")


def _bad_names(draft: Draft, shape: Structure) -> Iterator[Finding]:
  for node, name in enumerate(draft.names):
    if not name.strip():
      above = draft.name_of(draft.parents[node])
      yield Finding("error", "blank in mid-path", draft.file, draft.lines[node], above, "has a child without a name")
    elif not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
      yield Finding("error", "encoding", draft.file, draft.lines[node], name, "is not valid Unicode text")


def _cycles(draft: Draft, shape: Structure) -> Iterator[Finding]:
  """Follows the parents of each node that the root does not reach: each is on a cycle or below one."""
  if len(shape.order) + (shape.root != ROOT) == len(draft.names):
    return
  seen_from = dict.fromkeys([ROOT, shape.root, *shape.order], -1)
  for start in range(len(draft.names)):
    climbed: list[int] = []
    node = start
    while node not in seen_from:
      seen_from[node] = start
      climbed.append(node)
      node = draft.parents[node]
    if seen_from[node] == start:
      yield _cycle(draft, climbed[climbed.index(node) :][::-1])


def _cycle(draft: Draft, nodes: list[int]) -> Finding:
  last = nodes.index(max(nodes, key=lambda node: draft.lines[node] or 0))  # its edge closed the cycle
  around = nodes[last:] + nodes[: last + 1]
  message = f"is its own ancestor: {_walk(draft, around)}; one of these edges must go"
  return Finding("error", "cycle", draft.file, draft.lines[nodes[last]], draft.text_of(nodes[last]), message)


def _twins(draft: Draft, shape: Structure) -> Iterator[Finding]:
  for parent, children in shape.children.items():
    if len(children) == len({draft.names[child] for child in children}):
      continue
    first: dict[str, int] = {}
    for child in children:
      before = first.setdefault(draft.names[child], child)
      if before != child:
        where = "" if draft.lines[before] is None else f", first on line {draft.lines[before]}"
        message = f"stands twice below {draft.name_of(parent)!r}{where}"
        line = draft.lines[child]
        yield Finding("error", "duplicate name among siblings", draft.file, line, draft.text_of(child), message)


def _near_twins(draft: Draft, shape: Structure) -> Iterator[Finding]:
  for parent, children in shape.children.items():
    first: dict[str, int] = {}
    for child in children if len(children) > 1 else ():
      before = first.setdefault(_bare(draft.names[child]), child)
      if draft.names[before] != draft.names[child]:
        line = draft.lines[before]
        where = "" if line is None else f" on line {line}"
        other = f"{draft.text_of(before)!r}{where}"
        message = f"differs from {other}, below {draft.name_of(parent)!r} too, in capitals, blanks or accents only"
        yield Finding("warning", "names that look alike", draft.file, draft.lines[child], draft.text_of(child), message)


def _bare(name: str) -> str:
  """Returns a name without capitals, blanks and accents, in which misspelt names often differ."""
  if not name.isascii():
    name = "".join(c for c in unicodedata.normalize("NFD", name) if not "\u0300" <= c <= "\u036f")
  return "".join(name.casefold().split())


def _too_deep(draft: Draft, shape: Structure) -> Iterator[Finding]:
  if shape.depth > MAX_DEPTH:
    node = shape.order[-1]
    message = f"is on level {shape.depth}; a tree has at most {MAX_DEPTH} levels"
    yield Finding("error", "too deep", draft.file, draft.lines[node], draft.text_of(node), message)


def _single_child_chains(draft: Draft, shape: Structure) -> Iterator[Finding]:
  inside: set[int] = set()
  chains = []
  for top in (shape.root, *shape.order):
    if top in inside or len(shape.below(top)) != 1:
      continue
    chain = [top]
    while len(shape.below(chain[-1])) == 1:
      chain += shape.below(chain[-1])
    inside.update(chain)
    chains.append(chain)
  if not chains:
    return
  top = chains[0][0]
  others = few([repr(draft.text_of(chain[0])) for chain in chains[1:]])
  more = f"; so {'has' if len(chains) == 2 else 'have'} {len(chains) - 1:,} more: {others}" if len(chains) > 1 else ""
  message = f"has a single child: {_walk(draft, chains[0])}; there is nothing to choose there{more}"
  yield Finding("warning", "single-child chain", draft.file, draft.line_of(top), draft.text_of(top), message)


def _walk(draft: Draft, nodes: list[int], most: int = 12) -> str:
  texts = [draft.text_of(node) for node in nodes]
  return " > ".join(texts if len(texts) <= most else [*texts[: most - 1], "...", texts[-1]])
