"""Maker of the files of `hierjax/tree/data`, from the data sets' published class lists and hierarchies.

  python -m hierjax.tree.make_catalog FACTS WORDNET

FACTS is a folder with

- `cifar100.csv`: the data set's fine and coarse names, columns `fine` and `coarse`, and the grouping of
  cvjena/semantic-embeddings, a path from the root in column `wordnet_path_cvjena`;
- `imagenet1k_wordnet_edges.txt`: `parent child` WordNet ids (ILSVRC/wordnet.parent-child.mintree.txt of the same
  repository), and `imagenet1k_class_index.json`, index -> (id, name);
- `openimages_600.json`, the hierarchy of the boxable classes of Open Images V4, and `openimages_600_names.csv`, columns
  `id` and `name`.

WORDNET is the folder of WordNet 3.0's `data.noun`; Debian's package wordnet-base puts it at /usr/share/wordnet.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "data"
_EDGE_HEADER = ("parent", "child", "name")


def main() -> None:
  """Writes all files."""
  parser = argparse.ArgumentParser(description="Makes the catalogue's files.")
  parser.add_argument("facts", type=Path)
  parser.add_argument("wordnet", type=Path)
  args = parser.parse_args()
  _write("cifar100.csv", ("coarse", "fine"), _cifar100(args.facts))
  _write("cifar100_wordnet.csv", ("parent", "child"), _cifar100_wordnet(args.facts))
  _write("imagenet1k.csv", _EDGE_HEADER, _imagenet1k(args.facts, args.wordnet))
  _write("openimages600.csv", _EDGE_HEADER, _openimages600(args.facts))


def _write(name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
  with open(_DATA / name, "w", encoding="utf-8", newline="") as file:
    csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _cifar100(facts: Path) -> list[tuple[str, str]]:
  rows = sorted(_csv_records(facts / "cifar100.csv"), key=lambda row: (int(row["coarse_id"]), int(row["fine_id"])))
  return [(row["coarse"], row["fine"]) for row in rows]


def _cifar100_wordnet(facts: Path) -> list[tuple[str, str]]:
  edges: dict[tuple[str, str], None] = {}
  for row in _csv_records(facts / "cifar100.csv"):
    path = row["wordnet_path_cvjena"].split("/")
    edges.update(dict.fromkeys(itertools.pairwise(path)))
  return list(edges)


def _imagenet1k(facts: Path, wordnet: Path) -> Iterator[tuple[str, str, str]]:
  """The leaves are called as in the class index, the inner nodes by the first word of their WordNet entry.

  Siblings that share a name all get their id behind it.
  """
  edges = [line.split() for line in (facts / "imagenet1k_wordnet_edges.txt").read_text().splitlines()]
  class_index = json.loads((facts / "imagenet1k_class_index.json").read_text())
  name_of = _first_words(wordnet / "data.noun") | dict(class_index.values())
  names_below: dict[str, Counter[str]] = defaultdict(Counter)
  for parent, child in edges:
    names_below[parent][name_of[child]] += 1
  root = next(iter({parent for parent, _ in edges} - {child for _, child in edges}))
  yield "", root, name_of[root]
  for parent, child in edges:
    name = name_of[child]
    yield parent, child, name if names_below[parent][name] == 1 else f"{name} ({child})"


def _first_words(path: Path) -> dict[str, str]:
  """Returns the first word of each noun entry; the licence at the top of the file is indented."""
  entries = (line.split(" ", 5) for line in path.read_text(encoding="ascii").splitlines() if not line.startswith("  "))
  return {f"n{entry[0]}": entry[4].replace("_", " ") for entry in entries}


def _openimages600(facts: Path) -> Iterator[tuple[str, str, str]]:
  """A class hangs from the first parent that the file gives it; lists of parts are left out."""
  name_of = {row["id"]: row["name"] for row in _csv_records(facts / "openimages_600_names.csv")}
  seen: set[str] = set()

  def walk(node: dict[str, Any], parent: str) -> Iterator[tuple[str, str, str]]:
    label = node["LabelName"]
    if label not in seen:
      seen.add(label)
      yield parent, label, name_of[label]
    for child in node.get("Subcategory", ()):
      yield from walk(child, label)

  return walk(json.loads((facts / "openimages_600.json").read_text()), "")


def _csv_records(path: Path) -> list[dict[str, str]]:
  with open(path, encoding="utf-8-sig", newline="") as file:
    return list(csv.DictReader(file))


if __name__ == "__main__":
  main()
