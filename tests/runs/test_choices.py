"""Choices of a run folder: one record type, by kind and conditions, in a file that is refused where it is damaged."""

import dataclasses
import json
import shutil

import pytest

from hierjax.errors import UserError
from hierjax.runs.choices import KINDS, Choice, chosen_value, find_choice, keep_choice, read_choices, run_identity
from hierjax.runs.folder import RunFolder

CHOICE = Choice("alpha", 0.7, {"members": [{"run": ".", "step": 5}]}, {"split": "validation", "images": 16})


@pytest.fixture
def folder(tmp_path):
  return RunFolder(tmp_path / "runs" / "run")


def test_every_kind_is_read_back_as_it_was_kept(folder):
  assert read_choices(folder) == []
  every = [
    Choice(kind, [0.25, 0.5] if kind == "thresholds" else 0.25, {"step": 3, "views": 1}, {"images": 7})
    for kind in KINDS
  ]
  for choice in every:
    keep_choice(folder, choice)
  assert read_choices(folder) == every
  for choice in every:
    assert find_choice(folder, choice.kind, choice.made_for) == choice
    assert find_choice(folder, choice.kind, {"step": 4, "views": 1}) is None
  assert {key for row in json.loads((folder.path / "choices.json").read_text())["choices"] for key in row} == {
    field.name for field in dataclasses.fields(Choice)
  }


def test_a_choice_replaces_that_of_its_kind_and_conditions_alone(folder):
  other_kind = dataclasses.replace(CHOICE, kind="threshold")
  other_step = dataclasses.replace(CHOICE, made_for={"members": [{"run": ".", "step": 6}]})
  for choice in (CHOICE, other_kind, other_step):
    keep_choice(folder, choice)
  again = dataclasses.replace(CHOICE, value=0.1, about={"split": "validation", "images": 17})
  keep_choice(folder, again)
  found = read_choices(folder)
  assert len(found) == 3 and all(choice in found for choice in (other_kind, other_step, again))
  assert find_choice(folder, "alpha", CHOICE.made_for) == again


def test_a_choice_on_other_images_is_not_kept_whatever_is_there(folder):
  def choice(value, checksum, split="validation"):
    return dataclasses.replace(CHOICE, value=value, about={"split": split, "images": 16, "checksum": checksum})

  first = choice(0.1, "labels-names-contents")
  assert keep_choice(folder, first) == "" and keep_choice(folder, dataclasses.replace(first, value=0.2)) == ""
  refused = keep_choice(folder, choice(0.3, "labels-names-others"))  # the run's are not known: those of the choice are
  assert str(folder.path / "choices.json") in refused and "of other validation images" in refused
  assert [c.value for c in read_choices(folder)] == [0.2]

  (folder.path / "data.json").write_text(json.dumps({"judged_on": {"calibration": "labels-names-contents"}}))
  for value, contents in ((0.4, "others"), (0.5, "contents")):
    refused = keep_choice(
      folder, dataclasses.replace(choice(value, f"labels-names-{contents}", "calibration"), kind="certified")
    )
    assert bool(refused) == (contents == "others")
  assert [c.value for c in read_choices(folder)] == [0.2, 0.5]


def test_conditions_are_compared_as_the_file_holds_them(folder):
  keep_choice(folder, dataclasses.replace(CHOICE, made_for={"views": (1, 10), "alpha": 0.0}))
  assert find_choice(folder, "alpha", {"alpha": 0.0, "views": [1, 10]}) is not None


def test_the_value_of_a_flag_is_that_under_its_conditions(folder):
  with pytest.raises(UserError, match=r"--alpha chosen: \S*choices\.json has none; .*--alpha sweep"):
    chosen_value(folder, "alpha", CHOICE.made_for)
  keep_choice(folder, CHOICE)
  assert chosen_value(folder, "alpha", CHOICE.made_for) == 0.7
  with pytest.raises(UserError, match=r"--alpha chosen: \S*choices\.json has a choice for other runs, weights"):
    chosen_value(folder, "alpha", {"members": [{"run": ".", "step": 6}]})
  with pytest.raises(UserError, match=r"--threshold chosen: \S*choices\.json has none"):
    chosen_value(folder, "threshold", CHOICE.made_for)


@pytest.mark.parametrize(
  "change",
  [
    dict(kind="beta"),
    dict(kind=3),
    dict(value="high"),
    dict(value=None),
    dict(value=True),
    dict(value=[0.5]),
    dict(kind="thresholds"),
    dict(kind="thresholds", value=[]),
    dict(kind="thresholds", value=[0.5, "low"]),
    dict(made_for=[]),
    dict(about=None),
    dict(more=1),
  ],
  ids=str,
)
def test_a_damaged_record_is_refused_with_its_file_and_a_way_out(folder, change):
  write(folder, {"choices": [dataclasses.asdict(CHOICE) | change]})
  refused(folder)


@pytest.mark.parametrize(
  "content", [{}, {"choices": {}}, {"choices": [3]}, {"choices": [], "more": 1}, [], "{", {"alpha": 0.5}], ids=str
)
def test_a_damaged_file_is_refused_with_its_path(folder, content):
  write(folder, content)
  refused(folder)


def write(folder, content):
  folder.path.mkdir(parents=True)
  (folder.path / "choices.json").write_text(content if isinstance(content, str) else json.dumps(content))


def refused(folder):
  before = (folder.path / "choices.json").read_bytes()
  for use in (read_choices, lambda f: keep_choice(f, CHOICE), lambda f: find_choice(f, "alpha", CHOICE.made_for)):
    with pytest.raises(UserError) as error:
      use(folder)
    assert str(folder.path / "choices.json") in str(error.value) and "remove it" in str(error.value)
  assert (folder.path / "choices.json").read_bytes() == before


def test_runs_and_their_choice_may_be_moved_together(tmp_path):
  def members(root):
    return RunFolder(root / "both"), [(RunFolder(root / name), step) for name, step in (("b", 7), ("a", 5))]

  out, runs = members(tmp_path / "here")
  keep_choice(out, dataclasses.replace(CHOICE, made_for={"members": run_identity(out, runs)}))
  assert run_identity(out, runs) == [{"run": "../a", "step": 5}, {"run": "../b", "step": 7}]
  shutil.move(tmp_path / "here", tmp_path / "there")
  out, runs = members(tmp_path / "there")
  assert chosen_value(out, "alpha", {"members": run_identity(out, runs[::-1])}) == 0.7
  other_step = [(runs[0][0], 8), runs[1]]
  elsewhere = [(RunFolder(tmp_path / "here" / "b"), 7), runs[1]]
  for others in (other_step, elsewhere, runs[:1]):
    with pytest.raises(UserError, match="for other runs, weights"):
      chosen_value(out, "alpha", {"members": run_identity(out, others)})
