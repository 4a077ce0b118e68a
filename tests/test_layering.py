"""Holds the imports against the ranks of docs/developing/architecture.md."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hierjax"


def ranks() -> dict[str, int]:
  text = (ROOT / "docs" / "developing" / "architecture.md").read_text(encoding="utf-8")
  block = re.search(r"```ranks\n(.*?)```", text, re.DOTALL)
  assert block, "docs/developing/architecture.md lists the ranks in a ```ranks block"
  found = {}
  for line in block[1].splitlines():
    rank, *rooms = line.split()
    found.update({room.rstrip("/").removesuffix(".py"): int(rank) for room in rooms})
  return found


def room(module: str) -> str:
  parts = module.split(".")
  return parts[1] if len(parts) > 1 else "__init__"


def imports(path: Path) -> list[str]:
  found = []
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: write absolute imports"
      if node.module == "hierjax":
        found += [f"hierjax.{alias.name}" for alias in node.names if alias.name != "__version__"]
      elif node.module:
        found.append(node.module)
    elif isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
  return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_lower_ranks(path):
  rank = ranks()
  own = path.relative_to(PACKAGE).with_suffix("").parts[0]
  for module in imports(path):
    if module.split(".")[0] == "hierjax":
      other = room(module)
      assert other == own or rank[other] < rank[own], f"{path.name} ({own}) may not import {module}"


def test_the_tree_is_numpy_only_and_data_knows_no_flax():
  for folder, forbidden in (("tree", {"jax", "flax", "optax", "grain"}), ("data", {"flax", "optax"})):
    for path in (PACKAGE / folder).rglob("*.py"):
      assert not {m.split(".")[0] for m in imports(path)} & forbidden, path


def test_files_stay_short():
  for path in FILES:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_no_hidden_defaults_or_unsafe_loading():
  unpickling = r"\b(?:import|from) pickle\b|\bpickle\.|allow_pickle=True"
  bad = re.compile(rf"{unpickling}|(?<![\w.])eval\(|importlib\.import_module|jax\.pmap|config\.get\(")
  for path in [*FILES, ROOT / "train.py", *(ROOT / "configs").glob("*.py")]:
    match = bad.search(path.read_text(encoding="utf-8"))
    assert match is None, f"{path}: {match and match[0]}"
