"""The share of one-place mutations that the tests catch, on a seeded sample.

    python benchmarks/mutants.py --minutes 30 --seed 0

A mutation changes one place of one file: a comparison, an operator, a constant, a condition, `min` for `max`, or the
start of a function, which then returns nothing. It is made in a temporary copy of the checkout, and the tests of that
file run there: tests/FOLDER/test_NAME.py, and those in tests/FOLDER that import the file, or else all in tests/FOLDER.
A mutation is caught where a test fails, or where the tests do not end in time, and missed where they pass. A file is
left out where its tests fail without a mutation.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("tree", "functional", "data", "nn/heads", "runs", "training", "inference", "evaluation")
COPIED = ("hierjax", "tests", "configs", "benchmarks", "docs", "train.py", "README.md", "pyproject.toml")

_COMPARED = {
  ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
  ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COMPUTED = {
  ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
  ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_PAIRS = (("min", "max"), ("minimum", "maximum"), ("any", "all"), ("argmin", "argmax"))
_NAMED = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
_NO_CODE = ("annotation", "returns", "decorator_list", "format_spec")


class Place(NamedTuple):
  """The place of a node: `parent.field`, or `parent.field[index]`."""

  parent: ast.AST
  field: str
  index: int | None

  def put(self, node: ast.AST) -> None:
    """Puts a node there."""
    if self.index is None:
      setattr(self.parent, self.field, node)
    else:
      getattr(self.parent, self.field)[self.index] = node


def places(parent: ast.AST) -> Iterator[tuple[Place, ast.AST]]:
  """Yields every node below `parent` but for annotations and decorators, and its place."""
  for field, value in ast.iter_fields(parent):
    for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
      if isinstance(node, ast.AST) and field not in _NO_CODE:
        yield Place(parent, field, index), node
        yield from places(node)


def mutated(node: ast.AST) -> ast.AST | None:
  """Returns the replacement of `node` in a mutation; None for a node without one."""
  new = copy.deepcopy(node)
  match new:
    case ast.Compare(ops=[op, *others]) if type(op) in _COMPARED:
      new.ops = [_COMPARED[type(op)](), *others]
    case ast.BinOp(op=op) if type(op) in _COMPUTED:
      new.op = _COMPUTED[type(op)]()
    case ast.BoolOp(op=op):
      new.op = ast.Or() if isinstance(op, ast.And) else ast.And()
    case ast.UnaryOp(op=ast.Not()):
      return new.operand
    case ast.Constant(value=bool(value)):
      new.value = not value
    case ast.Constant(value=int(value) | float(value)):
      new.value = value + 1 if value % 2 == 0 else value - 1
    case ast.If() | ast.IfExp():
      new.test = ast.UnaryOp(ast.Not(), new.test)
    case ast.Name(id=name) if name in _NAMED:
      new.id = _NAMED[name]
    case ast.Attribute(attr=name) if name in _NAMED:
      new.attr = _NAMED[name]
    case ast.FunctionDef(body=[_, _, *_]):
      new.body.insert(0, ast.Return(ast.Constant(None)))
    case _:
      return None
  return new


def sample(root: Path, seed: int, folders: Sequence[str] = FOLDERS) -> Iterator[tuple[Path, int, str]]:
  """Yields all mutations in random order: a file, a line of it, and the file's text with the mutation."""
  files = sorted(file for folder in folders for file in (root / "hierjax" / folder).rglob("*.py"))
  modules = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
  found = [(file, place, node) for file in files for place, node in places(modules[file]) if mutated(node)]
  random.Random(seed).shuffle(found)
  for file, place, node in found:
    place.put(mutated(node))
    text = ast.unparse(ast.fix_missing_locations(modules[file]))
    place.put(node)
    yield file, getattr(node, "lineno", 0), text


def tests_of(file: Path, root: Path) -> list[str]:
  """Returns the tests of a file of the package, see above."""
  inside = file.relative_to(root / "hierjax").with_suffix("")
  folder = root / "tests" / inside.parent
  package = ".".join(("hierjax", *inside.parent.parts))
  imported = re.compile(rf"{re.escape(package)}\.{inside.name}\b|from {re.escape(package)} import .*\b{inside.name}\b")
  tests = sorted((root / "tests" / inside.parts[0]).rglob("test_*.py"))
  own = [t for t in tests if t == folder / f"test_{inside.name}.py" or imported.search(t.read_text(encoding="utf-8"))]
  return [str(test) for test in own or tests]


def passes(tests: list[str], root: Path, seconds: float) -> bool:
  """Returns whether tests pass, and end in time."""
  command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
  process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, process_group=0)
  try:
    return process.wait(seconds) == 0
  except subprocess.TimeoutExpired:
    return False
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()


def copied(source: Path, target: Path) -> Path:
  """Copies the files that the tests need, and returns the folder; compiled programs stay in the cache of `source`."""
  for path in (source / name for name in COPIED):
    if path.is_dir():
      shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
      shutil.copy(path, target)
  (source / ".cache").mkdir(exist_ok=True)
  (target / ".cache").symlink_to(source / ".cache")
  return target


def score(root: Path, mutations: Iterator[tuple[Path, int, str]], minutes: float, limit: float) -> list[bool]:
  """Returns for each mutation whether the tests catch it, and prints it; `limit` is in seconds, for one mutation.

  The files of `root` are changed and restored.
  """
  ends, found, sound = time.monotonic() + 60 * minutes, [], {}
  for file, line, text in mutations:
    tests = tests_of(file, root)
    if time.monotonic() > ends:
      break
    if file not in sound:
      sound[file] = bool(tests) and passes(tests, root, limit)
      if not sound[file]:
        print(f"left out: {file.relative_to(root)}, whose tests fail or take longer than {limit:g} s", flush=True)
    if sound[file] and time.monotonic() < ends:
      before = file.read_text(encoding="utf-8")
      file.write_text(text, encoding="utf-8")
      found.append(not passes(tests, root, limit))
      file.write_text(before, encoding="utf-8")
      print("caught" if found[-1] else "MISSED", f"{file.relative_to(root)}:{line} {_change(before, text)}", flush=True)
  return found


def _change(before: str, after: str) -> str:
  """Returns the first line that differs, of both texts."""
  lines = zip(ast.unparse(ast.parse(before)).splitlines(), after.splitlines(), strict=False)
  return next((f"{old.strip()} -> {new.strip()}" for old, new in lines if old != new), "")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--minutes", type=float, default=30.0, help="no mutation is begun after these")
  parser.add_argument("--seed", type=int, default=0, help="of the sample")
  parser.add_argument("--limit", type=float, default=300.0, help="seconds for the tests of one mutation")
  parser.add_argument("--folders", nargs="+", default=FOLDERS, help="the folders of hierjax/ that are sampled")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    root = copied(ROOT, Path(temporary).resolve())
    found = score(root, sample(root, args.seed, args.folders), args.minutes, args.limit)
  print(f"{sum(found)} of {len(found)} mutations are caught: {sum(found) / max(len(found), 1):.1%}")


if __name__ == "__main__":
  main()
