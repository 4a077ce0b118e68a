"""Every row of docs/readings.md that something cites exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("hierjax", "configs", "tests", "benchmarks", "docs")
ROW = "[A-Z][0-9]+"
CITED = re.compile(rf"READINGS\s+({ROW}(?:(?:,| and|,? or|;| to|-)\s*{ROW})*)")


def cited(text):
  """Returns the rows that a text cites, those between the ends of a range too."""
  text = re.sub(r"\n\s*#?\s*", " ", text)  # a citation may go on in the next line of a comment
  rows = set()
  for citation in CITED.findall(text):
    rows.update(re.findall(ROW, citation))
    for kind, first, other, last in re.findall(r"([A-Z])([0-9]+)(?: to |-)([A-Z])([0-9]+)", citation):
      assert kind == other, citation
      rows.update(f"{kind}{number}" for number in range(int(first), int(last)))
  return rows


@pytest.mark.parametrize(
  ("text", "rows"),
  [
    ("(READINGS K11)", {"K11"}),
    ("(READINGS D3, D7).", {"D3", "D7"}),
    ("READINGS Z11 and Z12, and Table 3", {"Z11", "Z12"}),
    ("READINGS K7, K8, K10\n", {"K7", "K8", "K10"}),
    ("# as in READINGS\n  # A4", {"A4"}),
    ("(READINGS G3 to G6)", {"G3", "G4", "G5", "G6"}),
    ("(READINGS G3-G5)", {"G3", "G4", "G5"}),
    ("# READINGS: how", set()),
  ],
)
def test_what_a_citation_is(text, rows):
  assert cited(text) == rows


def test_every_row_that_is_cited_exists():
  table = (ROOT / "docs" / "readings.md").read_text(encoding="utf-8")
  rows = re.findall(rf"^\| ({ROW}) \|", table, re.MULTILINE)
  assert len(rows) == len(set(rows))
  files = [p for folder in FOLDERS for kind in ("*.py", "*.md") for p in (ROOT / folder).rglob(kind)]
  found = {p: cited(p.read_text(encoding="utf-8")) for p in files if p != Path(__file__)}
  missing = {str(p.relative_to(ROOT)): sorted(has - set(rows)) for p, has in found.items() if has - set(rows)}
  assert not missing and sum(map(len, found.values())) > 50
  kinds = {row[0] for row in rows}
  assert all(f"{kind} " in table.split("|")[0] for kind in kinds)  # the legend names each paper
