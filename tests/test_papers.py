"""The pages of the four papers: the configs that their tables name exist, and our numbers are in docs/results.md."""

import re
from pathlib import Path

import pytest

from hierjax.config_files import load_config

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "papers").glob("*.md"))
SPEC = re.compile(r"^(\w*):([\w,]+)$")
PLACEHOLDERS = {"X:": "chrnn_imagenet:", ":X,": ":resnet50,"}
NUMBER = re.compile(r"\d+\.\d+ ± \d+\.\d+")


def specs(text):
  """Returns the configs that tables name in backquotes; `:WORD` and `,WORD` go on from the one before."""
  found = []
  for line in text.splitlines():
    if not line.startswith("|"):
      continue
    name = found[-1].partition(":")[0] if found else ""
    for token in re.findall(r"`([^` ]+)`", line):
      for placeholder, one in PLACEHOLDERS.items():
        token = token.replace(placeholder, one)
      if match := SPEC.match(token):
        name = match[1] or name
        found.append(f"{name}:{match[2]}")
      elif token.startswith(",") and found:
        found.append(f"{found[-1].partition(',')[0]}{token}")
  return found


def test_there_is_a_page_a_paper():
  assert [page.stem for page in PAGES] == ["dutt2017", "guo2018", "koo2020", "zuo2016"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_row_names_a_config(page):
  named = specs(page.read_text(encoding="utf-8"))
  assert len(named) >= 3
  for spec in dict.fromkeys(named):
    load_config(spec)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_its_parts_and_its_numbers_are_those_of_the_results(page):
  text, results = (path.read_text(encoding="utf-8") for path in (page, ROOT / "docs" / "results.md"))
  for part in ("## The method", "```mermaid", "## The rows of", "## Paper against ours", "## Deviations"):
    assert part in text
  assert all(number in results for number in NUMBER.findall(text))
