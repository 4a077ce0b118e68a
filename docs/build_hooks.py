"""What `mkdocs build` makes from the code: the fields of every config, the commands, the Python API, the notebooks.

Links that leave docs/ lead to the repository. Pages of docs/papers get a part of the navigation where there are any.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import hierjax
from hierjax.cli.common import Parser
from hierjax.cli.main import COMMANDS
from hierjax.config import REQUIRED, Field
from hierjax.nn.registry import PARTS
from hierjax.training.sections import SECTIONS, section_fields, top_fields

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAPERS = DOCS / "papers"
REPOSITORY = "https://github.com/hierjax/hierjax/blob/main/"
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))

_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
  """Adds the pages of the papers to the navigation."""
  pages = sorted(PAPERS.glob("*.md"), key=lambda page: (page.stem != "index", page.stem))
  if pages and config.nav is not None:
    papers: Any = {"Papers": [f"papers/{page.name}" for page in pages]}
    config.nav.insert(next(i for i, part in enumerate(config.nav) if "Results" in part), papers)
  return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages that are made."""
  for name, content in generated().items():
    files.append(File.generated(config, name, content=content))
  for notebook in NOTEBOOKS:
    if (found := files.get_file_from_path(f"tutorials/{notebook.name}")) is not None:
      files.remove(found)
  return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
  """Leads links that leave the site to the repository, and those to notebooks to their pages."""
  here = (DOCS / page.file.src_uri).parent

  def lead(match: re.Match[str]) -> str:
    target = Path(os.path.normpath(here / match[2]))
    if target.suffix == ".ipynb" and target in NOTEBOOKS:
      return f"{match[1]}{match[2].removesuffix('.ipynb')}.md{match[3]}"
    file = files.get_file_from_path(os.path.relpath(target, DOCS))
    known = file is not None and file.inclusion.is_included()
    if known or not target.exists() or not target.is_relative_to(ROOT):
      return match[0]
    return f"{match[1]}{REPOSITORY}{target.relative_to(ROOT).as_posix()}{match[3]}"

  return "".join(part if code else _LINK.sub(lead, part) for code, part in _parts(markdown))


def _parts(markdown: str) -> Iterator[tuple[bool, str]]:
  """Yields the fenced blocks of a page, and what is between them, each with whether it is one."""
  for number, part in enumerate(re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)):
    yield bool(number % 2), part


def generated() -> dict[str, str]:
  """Returns the pages that are made, by their names."""
  pages = {
    "reference/config.md": config_page(),
    "reference/commands.md": commands_page(),
    "reference/python.md": python_page(),
  }
  return pages | {f"tutorials/{notebook.stem}.md": notebook_page(notebook) for notebook in NOTEBOOKS}


def config_page() -> str:
  """Returns every field of a config with its kind, its default and its meaning."""
  top = {key: field for key, field in top_fields().items() if key not in (*SECTIONS, *PARTS)}
  lines = [
    "# Fields of a config",
    "",
    "Every field that `--config.KEY=VALUE` sets, as `hierjax config show CONFIG` prints them; made from the code. The "
    "defaults are those of hierjax; a config of `configs/` sets its own.",
    *_fields("The top level", "", top),
  ]
  for name in SECTIONS:
    lines += _fields(f"The section {name}", f"{name}.", section_fields(name, {}))
  for part, names in PARTS.items():
    choices = ", ".join(f"`{name}`" for name in names)
    about = f"`{part}.name` is one of {choices}, or `package.module:Thing`. The other fields are those of the part:"
    lines += ["", f"## The section {part}", "", about]
    for name in names:
      fields = {key: field for key, field in section_fields(part, {"name": name}).items() if key != "name"}
      lines += _fields(f"{part}.name = {name}", f"{part}.", fields, level=3) if fields else []
  return "\n".join(lines) + "\n"


def _fields(title: str, prefix: str, fields: Mapping[str, Field], level: int = 2) -> list[str]:
  rows = [
    f"| `{prefix}{key}` | {_kind(field)} | {_default(field)} | {_cell(field.text)} |" for key, field in fields.items()
  ]
  return ["", f"{'#' * level} {title}", "", "| field | kind | default | meaning |", "|---|---|---|---|", *rows]


def _kind(field: Field) -> str:
  kind = field.kind
  text = kind.__name__ if isinstance(kind, type) else str(kind)
  return f"`{re.sub(r'(typing|collections.abc).', '', text)}`".replace("|", "\\|")


def _default(field: Field) -> str:
  return "" if field.default is REQUIRED else f"`{field.default!r}`".replace("|", "\\|")


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("<", "&lt;")


def commands_page() -> str:
  """Returns the help of every command."""
  lines = ["# Commands", "", "What `hierjax COMMAND --help` prints; made from the code."]
  os.environ["COLUMNS"] = "100"
  for name, command in COMMANDS.items():
    lines += ["", f"## hierjax {name}", "", "```text", Parser(name, command).format_help().rstrip(), "```"]
  return "\n".join(lines) + "\n"


def python_page() -> str:
  """Returns the page from which mkdocstrings makes the API: the names of `import hierjax as hj`."""
  modules = {name: hierjax._MODULES[name] for name in hierjax.__all__ if name in hierjax._MODULES}
  about = "The names of `import hierjax as hj`, from their docstrings; [the library](api.md) has them in a table."
  lines = ["# Python API", "", about, "", "::: hierjax.load", ""]
  for module in dict.fromkeys(modules.values()):
    lines += [f"## {module}", ""]
    for name, own in modules.items():
      if own == module:
        lines += [f"::: {module}.{name}", ""]
  return "\n".join(lines) + "\n"


def notebook_page(path: Path) -> str:
  """Returns a notebook as Markdown, with the outputs that it was saved with."""
  cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
  link = f"[This notebook]({REPOSITORY}{path.relative_to(ROOT).as_posix()}) is executed by the slow tests."
  parts = [part for cell in cells for part in _cell_parts(cell)]
  return "\n\n".join([parts[0], link, *parts[1:]]) + "\n"


def _cell_parts(cell: Mapping[str, Any]) -> Iterator[str]:
  source = "".join(cell["source"]).strip("\n")
  if cell["cell_type"] == "markdown":
    yield source
    return
  yield f"```python\n{source}\n```"
  for output in cell["outputs"]:
    data = output.get("data", {})
    if "image/png" in data:
      picture = "".join(data["image/png"]).strip()
      yield f'<img alt="what the cell above draws" src="data:image/png;base64,{picture}">'
    elif "text/html" in data:
      yield "".join(data["text/html"])
    elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
      yield f"<pre>{html.escape(text)}</pre>"
