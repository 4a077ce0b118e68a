"""The card of a run says what its files say, and shows every name as it is."""

import json
import re

import pytest

from hierjax.errors import UserError
from hierjax.evaluation.model_card import model_card, write_model_card
from hierjax.runs.choices import keep_temperature
from hierjax.runs.folder import RunFolder
from hierjax.tree.builders import from_paths

EVIL = ["<script>", "a|b", "*bold*", "[x](http://y)", "`c`"]
EVALUATION = {
  "split": "test", "step": 7, "views": 1, "num_examples": 1234, "level_names": ["kind", "family|x"],
  "level_sizes": [2, 5], "path_accuracy": 0.75, "level_accuracy": [0.9, 0.75],
  "intervals": {"path_accuracy": [0.7, 0.8], "level_accuracy": [[0.85, 0.95], [0.7, 0.8]]},
  "lowest_recall": [{"class": "animal/<script>", "images": 12, "recall": 0.25, "precision": 0.5}],
  "confusions": [],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, small_config):
  tree = from_paths([*(("animal", name) for name in EVIL), ("thing", "cup")]).with_level_names(("kind", "family|x"))
  folder = RunFolder(tmp_path / "my_run")
  folder.begin(small_config(init=dict(weights="", run="/home/me/secret", skip=(), extend=False, sha256="")), tree, "ab")
  return folder


def cells(card, first):
  """Returns the cells of the row of a table that begins with a word."""
  row = next(line for line in card.splitlines() if line.startswith(f"| {first} |"))
  return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_it_says_what_the_files_say(folder):
  assert "was not measured" in model_card(folder)
  folder.write_evaluation("test", EVALUATION)
  keep_temperature(folder, 7, 1.25, {})
  card = write_model_card(folder).read_text()
  assert card == model_card(folder) and (folder.path / "MODEL_CARD.md").exists()
  assert "1,234 images of the split `test`, at step 7." in card
  assert cells(card, "path accuracy") == ["path accuracy", "", "75.00%", "70.00% to 80.00%"]
  assert cells(card, "kind accuracy")[2] == "90.00%" and cells(card, r"family\|x accuracy")[2] == "75.00%"
  assert cells(card, "backbone")[1] == "`small_resnet`" and cells(card, "neck")[1] == "`context`"
  assert cells(card, "probabilities")[1] == "at a temperature of 1.25, fitted on validation"
  assert (
    cells(card, "training images")[1] == "`ab`" and cells(card, "label tree")[1] == f"`{folder.tree().checksum[:16]}`"
  )
  assert cells(card, r"family\|x") == [r"family\|x", "6"]
  assert "animal &gt; &lt;script&gt; (25.00% of 12)" in card


def test_names_are_shown_as_they_are_and_no_folder_is(folder):
  folder.write_evaluation("test", EVALUATION)
  card = model_card(folder, "hf:me/mush_rooms")
  assert "<script>" not in card and "](http" not in card and "/home/me" not in card and str(folder.path) not in card
  assert "# me/mush\\_rooms\n" in card and "load('hf:me/mush_rooms')" in card
  for table in re.findall(r"(?:^\|.*\n)+", card, re.M):
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
    assert len(widths) == 1, table


def test_the_hub_reads_its_first_lines(folder):
  _, fields, _ = model_card(folder).split("---\n", 2)
  read = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in fields.splitlines())}
  assert read["library_name"] == "hierjax" and read["pipeline_tag"] == "image-classification"


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(UserError, match="not a run folder"):
    model_card(RunFolder(tmp_path))


@pytest.mark.parametrize(
  ("head", "several"),
  [
    (dict(name="multilabel"), True),
    (dict(name="dhnn_s2s", width=4, size=4, output="sigmoid"), True),
    (dict(name="dhnn_s2s", width=4, size=4, output="softmax"), False),
    (dict(name="flat"), False),
  ],
)
def test_it_says_whether_a_photograph_gets_one_path_or_several(tmp_path, small_config, head, several):
  folder = RunFolder(tmp_path / "run")
  folder.begin(small_config(head=head, init=dict(weights="", run="")), from_paths([("animal", "cat"), ("cup",)]), "ab")
  assert ("any number of label paths" in model_card(folder)) == several
