"""The share of one-place mutations that the tests catch, on a seeded sample.

    python benchmarks/mutants.py --minutes 30 --seed 0 --table mutants.csv

A mutation changes one place of one file: a comparison, an operator, a constant, a condition, `min` for `max`, or the
start of a function, which then returns nothing. It is made in a temporary copy of the checkout, and the tests of that
file run there, up to the first that fails: tests/FOLDER/test_NAME.py, others of that name, the tests that import the
file, and those that import what imports it, the nearest first, eight files of tests in all. The checks of annotations
at run time, which users do not have, are off.

A mutation is caught where a test fails that passes without it, or where the tests do not end in time and do without it.
It survives where all pass, and is left out where they fail, or are too slow, without it. The order of the sample is a
function of the seed and of each mutation, so that a change elsewhere in the code leaves it as it is.

With `--table`, each verdict is a row of that file. A second run keeps the mutations that were caught, repeats those
that survived, and goes on. A row whose verdict a person changes to `equivalent`, with the reason, is no longer run.
"""

from __future__ import annotations

import argparse
import ast
import copy
import csv
import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_TESTS = 8
OPTIONS = (
  "--import-mode=importlib --strict-markers -m 'not slow'"  # pyproject.toml's, without the checks of annotations
)
FOLDERS = ("tree", "functional", "data", "nn/heads", "runs", "training", "inference", "evaluation")
PRELOADED = ("jax", "flax.linen", "optax", "orbax.checkpoint", "ml_collections", "grain", "PIL.Image")
COPIED = (
  "hierjax", "tests", "configs", "benchmarks", "docs", "scripts", "train.py", "pyproject.toml", "mkdocs.yml",
  "requirements.txt", "README.md", "CONTRIBUTING.md", "CITATION.cff",
)  # fmt: skip

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
  new: Any = copy.copy(node)
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
      new.body = [ast.Return(ast.Constant(None)), *new.body]
    case _:
      return None
  return new


class Mutation(NamedTuple):
  """One mutation: its name, the file below hierjax/, the line there, what changes in it, and the file's new text."""

  name: str
  file: str
  line: int
  change: str
  text: str


def sample(root: Path, seed: int, folders: Sequence[str] = FOLDERS) -> Iterator[Mutation]:
  """Yields all mutations, in an order that depends on the seed and on each mutation's own file and code."""
  files = sorted(file for folder in folders for file in (root / "hierjax" / folder).rglob("*.py"))
  modules = {
    file.relative_to(root / "hierjax").as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files
  }
  found, alike = [], Counter[str]()
  for name, module in modules.items():
    for place, node in places(module):
      if new := mutated(node):
        code = getattr(node, "name", None) or f"{ast.unparse(node)} {ast.unparse(new)}"
        key = f"{seed} {name} {code}"
        alike[key] += 1
        found.append((hashlib.sha256(f"{key} {alike[key]}".encode()).hexdigest()[:12], name, place, node))
  before = {name: ast.unparse(module).splitlines() for name, module in modules.items()}
  for key, name, place, node in sorted(found, key=lambda entry: entry[0]):
    place.put(mutated(node))
    text = ast.unparse(ast.fix_missing_locations(modules[name]))
    place.put(node)
    pairs = zip(before[name], text.splitlines(), strict=False)
    change = next((f"{old.strip()} -> {new.strip()}" for old, new in pairs if old != new), "")
    yield Mutation(key, name, getattr(node, "lineno", 0), change, text)


def tests_of(file: str, root: Path) -> list[str]:
  """Returns the tests of a file of the package, those of its own name first; see above."""
  inside = Path(file).with_suffix("")
  first = root / "tests" / inside.parent / f"test_{inside.name}.py"
  sources = sorted((root / "hierjax").rglob("*.py"))
  tests = sorted((root / "tests").rglob("test_*.py"), key=lambda test: (_apart(test.parent, first.parent), test))
  found, modules, seen = (
    [first] * first.is_file() + [test for test in tests if test.name == first.name],
    [inside],
    {inside},
  )
  while modules and len(found) < MOST_TESTS:
    found = list(dict.fromkeys([*found, *_importing(modules, tests)]))
    users = (path.relative_to(root / "hierjax").with_suffix("") for path in _importing(modules, sources))
    modules = [user for user in users if user not in seen]
    seen.update(modules)
  return [str(test) for test in found[:MOST_TESTS]]


def _importing(modules: Iterable[Path], files: Iterable[Path]) -> list[Path]:
  """Returns the files that import one of the modules, each a path below hierjax/ without `.py`."""
  imports = "|".join(_import_of(".".join(("hierjax", *module.parent.parts)), module.name) for module in modules)
  return [file for file in files if imports and re.search(imports, file.read_text(encoding="utf-8"), re.MULTILINE)]


def _import_of(package: str, name: str) -> str:
  """Returns a pattern of the statements that import a module of a package, or the package."""
  if name == "__init__":
    return rf"import {package}( as|$)|from {package} import"
  return rf"{package}\.{name}\b|from {package} import .*\b{name}\b"


def _apart(a: Path, b: Path) -> int:
  """Returns how many steps there are from one folder to another."""
  return len(set(a.parents).union({a}) ^ set(b.parents).union({b}))


def run_tests(tests: Sequence[str], root: Path, seconds: float) -> str:
  """Returns how tests end: "passed", "slow" for not in time, "failed", or the name of the first that fails."""
  server = multiprocessing.get_context("forkserver")
  server.set_forkserver_preload(list(PRELOADED))
  reader, writer = server.Pipe(duplex=False)
  process = server.Process(target=_pytest, args=(tests, str(root), writer))
  process.start()
  writer.close()
  process.join(seconds)
  try:
    return "slow" if process.is_alive() else reader.recv()
  except EOFError:  # the process died
    return "failed"
  finally:
    if process.is_alive():
      os.killpg(process.pid or 0, signal.SIGKILL)
      process.join()


def _pytest(tests: Sequence[str], root: str, writer: Connection) -> None:
  """Runs tests in this process, which is a group of its own, without a word."""
  os.setpgid(0, 0)
  os.chdir(root)
  os.environ |= {"PYTHONPATH": root, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the former for commands that tests start
  silence = os.open(os.devnull, os.O_WRONLY)
  os.dup2(silence, 1)
  os.dup2(silence, 2)
  first = _First()
  options = ["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={root}", "-o", f"addopts={OPTIONS}"]
  code = pytest.main([*options, *tests], plugins=[first])
  writer.send("passed" if code == 0 else first.failed or "failed")
  writer.close()
  os._exit(0)


class _First:
  """A plugin of pytest that keeps the name of the first test that fails."""

  failed = ""

  def pytest_runtest_logreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.failed and not self.failed:
      self.failed = report.nodeid

  pytest_collectreport = pytest_runtest_logreport


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


class Trial:
  """Mutations of a copy of the checkout, whose files are changed and restored."""

  def __init__(self, root: Path, limit: float):
    """Takes the copy, and the seconds that the tests of one mutation may take."""
    self.root, self.limit = root, limit
    self.sound: dict[tuple[str, ...], bool] = {}

  def verdict(self, mutation: Mutation) -> tuple[str, str]:
    """Returns "caught", "survived" or "left out", and how the tests ended."""
    file = self.root / "hierjax" / mutation.file
    tests, before = tests_of(mutation.file, self.root), file.read_text(encoding="utf-8")
    self._write(file, mutation.text)
    try:
      ended = run_tests(tests, self.root, self.limit) if tests else "passed"
    finally:
      self._write(file, before)
    if ended == "passed":
      return "survived", ""
    failed = tuple(tests) if ended in ("slow", "failed") else (ended,)
    if failed not in self.sound:
      self.sound[failed] = run_tests(failed, self.root, self.limit) == "passed"
    return "caught" if self.sound[failed] else "left out", ended

  def _write(self, file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    for compiled in file.parent.glob(
      f"__pycache__/{file.stem}.*.pyc"
    ):  # Python compares the second and the length alone
      compiled.unlink()


class Table:
  """The verdicts of mutations by their names, as rows of a file of comma-separated values, or in memory alone."""

  FIELDS = ("mutation", "verdict", "file", "line", "change", "why")

  def __init__(self, path: Path | None):
    """Reads the rows of the file, where there is one."""
    self.path, self.rows = path, dict[str, dict[str, str]]()
    if path and path.exists():
      with path.open(encoding="utf-8", newline="") as file:
        self.rows = {row["mutation"]: row for row in csv.DictReader(file)}

  def verdict(self, mutation: Mutation) -> str:
    """Returns the verdict of a mutation; "" where there is none."""
    return self.rows.get(mutation.name, {}).get("verdict", "")

  def put(self, mutation: Mutation, verdict: str, why: str) -> None:
    """Keeps a verdict, and writes the file."""
    values = (mutation.name, verdict, mutation.file, str(mutation.line), mutation.change, why)
    self.rows[mutation.name] = dict(zip(self.FIELDS, values, strict=True))
    if self.path:
      with self.path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, self.FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())


def score(trial: Trial, mutations: Iterator[Mutation], minutes: float, table: Table) -> Counter[str]:
  """Returns how many mutations have each verdict, up to the first that has none when the minutes are over."""
  ends, verdicts = time.monotonic() + 60 * minutes, Counter[str]()
  for mutation in mutations:
    verdict = table.verdict(mutation)
    if verdict in ("", "survived", "left out") and time.monotonic() < ends:
      verdict, why = trial.verdict(mutation)
      table.put(mutation, verdict, why)
      print(f"{verdict}: {mutation.file}:{mutation.line} {mutation.change}", flush=True)
    if not verdict:
      break
    verdicts[verdict] += 1
  return verdicts


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--minutes", type=float, default=30.0, help="no mutation is begun after these")
  parser.add_argument("--seed", type=int, default=0, help="of the sample")
  parser.add_argument("--limit", type=float, default=300.0, help="seconds for the tests of one mutation")
  parser.add_argument("--table", type=Path, help="a file to keep verdicts in, and to go on from")
  parser.add_argument("--folders", nargs="+", default=FOLDERS, help="the folders of hierjax/ that are sampled")
  args = parser.parse_args()
  os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # which JAX reads once
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla"))
  with tempfile.TemporaryDirectory() as temporary:
    root = copied(ROOT, Path(temporary).resolve())
    verdicts = score(Trial(root, args.limit), sample(root, args.seed, args.folders), args.minutes, Table(args.table))
  print(", ".join(f"{verdict}: {count}" for verdict, count in sorted(verdicts.items())))
  counted = verdicts["caught"] + verdicts["survived"]
  print(f"{verdicts['caught']} of {counted} mutations are caught: {verdicts['caught'] / max(counted, 1):.1%}")


if __name__ == "__main__":
  main()
