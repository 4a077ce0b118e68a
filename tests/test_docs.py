"""The site of the documentation is built without a warning, and its made pages have everything; notebooks run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hierjax
from hierjax.cli.main import COMMANDS
from hierjax.nn.registry import PARTS
from hierjax.training.sections import SECTIONS, section_fields, top_fields

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """The site, built with strict links."""
  pytest.importorskip("mkdocs", reason="the extra docs is not installed")
  folder = tmp_path_factory.mktemp("site")
  environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
  found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
  assert found.returncode == 0, found.stderr
  return folder


def test_every_page_is_in_the_site(site):
  pages = {page.relative_to(ROOT / "docs").with_suffix("") for page in (ROOT / "docs").rglob("*.md")}
  pages |= {notebook.relative_to(ROOT / "docs").with_suffix("") for notebook in NOTEBOOKS}
  assert len(pages) > 30
  for page in pages:
    folder = page.parent if page.name == "index" else page
    assert (site / folder / "index.html").exists(), page


def test_every_field_of_a_config_is_on_its_page_with_its_meaning(site):
  page = (site / "reference" / "config" / "index.html").read_text()
  keys = {key: field for key, field in top_fields().items() if key not in (*SECTIONS, *PARTS)}
  keys |= {f"{name}.{key}": field for name in SECTIONS for key, field in section_fields(name, {}).items()}
  keys |= {
    f"{part}.{key}": field
    for part, names in PARTS.items()
    for name in names
    for key, field in section_fields(part, {"name": name}).items()
    if key != "name"
  }
  assert len(keys) > 100
  for key, field in keys.items():
    rows = re.findall(rf"<tr>\s*<td><code>{re.escape(key)}</code></td>(.*?)</tr>", page, re.DOTALL)
    assert rows, f"{key} is not on the page"
    meanings = [re.sub(r"<[^>]+>", "", row.split("<td>")[-1]).strip() for row in rows]
    assert field.text and all(meanings), f"{key} has no meaning"


def test_every_command_and_every_name_is_on_its_page(site):
  commands = (site / "reference" / "commands" / "index.html").read_text()
  assert all(f">hierjax {name}<" in commands for name in COMMANDS)
  python = (site / "reference" / "python" / "index.html").read_text()
  for name in hierjax.__all__:
    assert re.search(rf'<h3 id="[\w.]+\.{name}" class="doc doc-heading">', python), name


def test_nothing_of_the_site_comes_from_elsewhere(site):
  for page in site.rglob("*.html"):
    loaded = re.findall(r'<(?:script|link|img)\b[^>]*?(?:src|href)="(https?://[^"]+)"', page.read_text())
    assert not [address for address in loaded if "hierjax.github.io" not in address], page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_saved_whole_and_names_no_machine(path):
  cells = json.loads(path.read_text())["cells"]
  code = [cell for cell in cells if cell["cell_type"] == "code"]
  assert len(code) >= 4 and sum(bool(cell["outputs"]) for cell in code) > len(code) // 2
  assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
  assert not re.search(r"/(home|work|Users|root)/", path.read_text()) and path.stat().st_size < 300_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
  nbclient, nbformat = (pytest.importorskip(name) for name in ("nbclient", "nbformat"))
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.setenv("XLA_FLAGS", "")
  notebook = nbformat.read(path, as_version=4)
  resources = {"metadata": {"path": str(tmp_path)}}
  nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
