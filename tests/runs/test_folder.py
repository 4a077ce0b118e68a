import csv
import json
import math
import os
import shutil

import pytest

from hierjax.errors import UserError
from hierjax.runs.folder import FORMAT, RunFolder, whole_folder, write_table, write_whole

CONFIG = {
  "seed": 0,
  "tree": {"source": "x"},
  "data": {"name": "x"},
  "backbone": {},
  "head": {"width": 4},
  "optim": {"lr_groups": (("a", None),)},
}


@pytest.fixture
def folder(tmp_path, toy_tree):
  run = RunFolder(tmp_path / "run")
  run.begin(CONFIG, toy_tree, "labels")
  (run.checkpoints / "7" / "model").mkdir(parents=True)
  return run


def test_the_folder_gives_back_what_it_was_given(folder, toy_tree):
  assert folder.config() == json.loads(json.dumps(CONFIG))
  assert folder.tree() == toy_tree
  folder.begin(CONFIG, toy_tree, "labels")  # the same run goes on


def test_another_config_is_refused_and_its_keys_are_listed(folder, toy_tree):
  other = CONFIG | {"seed": 1, "head": {"width": 8}, "new": 2}
  with pytest.raises(UserError) as error:
    folder.begin(other, toy_tree, "labels")
  text = str(error.value)
  assert "config.head.width: 4 in the folder, 8 now" in text
  assert "config.seed: 0 in the folder, 1 now" in text
  assert "config.new: '(absent)' in the folder" in text
  assert "lr_groups" not in text
  assert folder.config()["seed"] == 0


@pytest.mark.parametrize("value", [math.nan, [0.5, math.inf]])
def test_a_metric_that_is_not_finite_is_not_written(folder, value):
  with pytest.raises(UserError, match=r"loss of test .*\bstep 7\b"):
    folder.write_evaluation("test", {"step": 7, "leaf_top1": None, "loss": value})
  assert folder.evaluation("test") is None


def test_another_tree_is_refused(folder, toy_tree):
  with pytest.raises(UserError, match="another label tree"):
    folder.begin(CONFIG, toy_tree.truncated(2), "labels")


def test_a_folder_of_other_things_is_left_alone(tmp_path, toy_tree):
  (tmp_path / "thesis.txt").write_text("important")
  with pytest.raises(UserError, match="choose an empty folder"):
    RunFolder(tmp_path).begin(CONFIG, toy_tree, "labels")
  assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda p: (p / "config.json").unlink(), "is not a run folder: it has no config.json"),
    (lambda p: (p / "config.json").write_text("{"), "config.json is damaged"),
    (lambda p: (p / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is damaged"),
    (lambda p: (p / "config.json").write_text("[]"), "is not the config of a hierjax run"),
    (lambda p: (p / "tree.json").unlink(), "it has no tree.json"),
    (lambda p: (p / "tree.json").write_text((p / "tree.json").read_text().replace("basenji", "beagle")), "checksum"),
  ],
)
def test_damage_gets_a_clear_sentence(folder, damage, message):
  damage(folder.path)
  with pytest.raises(ValueError, match=message):
    folder.config()
    folder.tree()


def test_a_missing_folder_gets_a_clear_sentence(tmp_path):
  with pytest.raises(UserError, match="there is no such folder"):
    RunFolder(tmp_path / "nowhere").config()


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (None, "is not a complete run folder: it has no data.json"),
    ("{", "data.json is damaged"),
    ("[" * 100_000, "data.json is damaged"),
    ("[]", "data.json is not"),
    ("{}", "format 'none'"),
    (json.dumps({"format": FORMAT}), "data.json .*'sha256'"),
  ],
)
def test_a_damaged_checksum_of_the_images_gets_a_clear_sentence(folder, toy_tree, text, message):
  path = folder.path / "data.json"
  path.unlink() if text is None else path.write_text(text)
  with pytest.raises(UserError, match=message):
    folder.begin(CONFIG, toy_tree, "labels")


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("step", "3"),
    ("views", True),
    ("level_names", [1, 2]),
    ("level_sizes", "24"),
    ("path_accuracy", "0.5"),
    ("path_accuracy", {}),
    ("level_accuracy", [0.5, "0.5"]),
    ("level_accuracy", [0.5]),
    ("path_accuracy", [0.5, 0.5]),
    ("level_accuracy", 0.5),
    ("known_levels", 3),
    ("further_metrics", ["absent"]),
    ("further_metrics", 3),
    ("own", [0.5, "0.5"]),
    ("intervals", {"path_accuracy": 0.5}),
    ("intervals", {"path_accuracy": [0.4]}),
    ("intervals", {"level_accuracy": [0.4, 0.6]}),
    ("intervals", {"level_accuracy": [None]}),
    ("lowest_recall", [{"class": 1, "images": 2, "recall": 0.5, "precision": None}]),
    ("confusions", [{"label": "a", "predicted": "b", "images": 2, "share": "0.5"}]),
    ("confusions", [{"label": "a", "predicted": "b", "images": 2}]),
    ("examples", ["a"]),
    ("examples", [{"image": "x", "label": "a", "predicted": ["b"]}]),
    ("data", {"checksum": 1}),
    ("data", []),
  ],
)
def test_an_evaluation_of_wrong_types_is_made_anew(folder, key, value):
  measured = {"split": "test", "step": 3, "views": 1, "num_examples": 5, "path_accuracy": 0.5, "loss": None}
  measured |= {"level_names": ["level 1", "level 2"], "level_sizes": [2, 4], "level_accuracy": [0.5, None]}
  measured |= {"data": {"checksum": "a-b-c", "root": ""}, "examples": [{"image": "x", "label": "a/b", "predicted": ""}]}
  measured |= {"intervals": {"path_accuracy": [0.4, 1], "loss": None, "level_accuracy": [[0.4, 0.6], None]}}
  measured |= {"lowest_recall": [{"class": "a", "images": 2, "recall": 0.5, "precision": None}]}
  measured |= {"confusions": [{"label": "a", "predicted": "b", "images": 2, "share": 0.5}], "thresholds": [0.5]}
  measured |= {"further_metrics": ["own"], "own": [0.5, None]}
  path = folder.write_evaluation("test", measured)
  assert folder.evaluation("test") == measured
  path.write_text(json.dumps(measured | {key: value}))
  assert folder.evaluation("test") is None


@pytest.mark.parametrize("text", ["{}", "[]", '{"step": 3', '{"step": 3, "views": 1}', "[" * 100_000])
def test_a_damaged_evaluation_is_none_so_that_it_is_made_anew(folder, text):
  measured = {"split": "test", "step": 3, "views": 1, "num_examples": 5}
  measured |= {"level_names": ["level 1", "level 2"], "level_sizes": [2, 4]}
  path = folder.write_evaluation("test", measured)
  assert folder.evaluation("test") == measured and folder.evaluation("train") is None
  path.write_text(text)
  assert folder.evaluation("test") is None


def test_no_cell_of_a_table_is_a_formula_and_numbers_are_as_they_were(tmp_path):
  cells = ["=1+1", "+a", "-b/c.png", "@x", "\tz", "-0.5", "+3e-2", -0.5, "a=b", "", None]
  write_table(tmp_path / "t.csv", ["name"] * len(cells), [cells])
  with open(tmp_path / "t.csv", newline="") as file:
    found = list(csv.reader(file))[1]
  assert found == ["'=1+1", "'+a", "'-b/c.png", "'@x", "'\tz", "-0.5", "+3e-2", "-0.5", "a=b", "", ""]


@pytest.mark.parametrize("text", ["a\r=1+1", "\r=1", "\n", 'x"\r\n"=1', "a\r"])
def test_no_end_of_a_line_within_a_cell_begins_another_row(tmp_path, text):
  write_table(tmp_path / "t.csv", ["name", "other"], [[text, "x"], ["y", "z"]])
  with open(tmp_path / "t.csv", newline="") as file:
    first, found, last = csv.reader(file)
  assert found in ([text, "x"], [f"'{text}", "x"]) and last == ["y", "z"] and first == ["name", "other"]


def test_lines_of_metrics_that_are_none_are_passed_over(folder):
  folder.metrics.write_bytes(b'{"step": 1}\n{"step": "2"}\n[]\n{"step": \xff}\n' + b"[" * 100_000 + b'\n{"step": 3}\n')
  assert list(folder.metric_lines()) == ['{"step": 1}', '{"step": 3}']


def test_metrics_are_cut_back_to_the_restored_step(folder):
  lines = [json.dumps({"step": s, "loss": 0.5}) for s in (10, 20, 30)]
  folder.metrics.write_text("\n".join([*lines, '{"step": 40, "lo']))
  folder.cut_metrics(20)
  assert folder.metrics.read_text() == "\n".join(lines[:2]) + "\n"


def test_other_training_images_are_refused(folder, toy_tree):
  with pytest.raises(UserError, match="another set of training images"):
    folder.begin(CONFIG, toy_tree, "other labels")


def test_another_config_is_refused_without_a_checkpoint_too(folder, toy_tree):
  shutil.rmtree(folder.checkpoints / "7")
  with pytest.raises(UserError, match=r"config\.seed: 0 in the folder, 1 now"):
    folder.begin(CONFIG | {"seed": 1}, toy_tree, "labels")
  assert folder.config()["seed"] == 0


def test_a_begin_that_a_crash_cut_short_is_completed(folder, toy_tree):
  shutil.rmtree(folder.checkpoints / "7")
  (folder.path / "tree.json").unlink()
  (folder.path / "data.json").unlink()
  folder.begin(CONFIG, toy_tree, "labels")
  assert folder.tree() == toy_tree


def test_a_tree_of_the_user_is_not_overwritten(tmp_path, toy_tree):
  (tmp_path / "tree.json").write_text("mine")
  with pytest.raises(UserError, match="choose an empty folder"):
    RunFolder(tmp_path).begin(CONFIG, toy_tree, "labels")
  assert (tmp_path / "tree.json").read_text() == "mine"


def test_only_one_process_trains_in_a_folder(folder):
  folder.lock()
  with pytest.raises(UserError, match="another process is training"):
    RunFolder(folder.path).lock()
  folder.close()
  other = RunFolder(folder.path)
  other.lock()
  other.close()


def test_text_and_bytes_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / "new" / "file"
  for content, expected in (("größer\n", "größer\n".encode()), (b"\xff\x00\r\n", b"\xff\x00\r\n")):
    write_whole(path, content)
    assert path.read_bytes() == expected and len(list(path.parent.iterdir())) == 1

  def full(descriptor):
    raise OSError("no space left")

  monkeypatch.setattr("os.fsync", full)
  with pytest.raises(OSError, match="no space left"):
    write_whole(path, b"new")
  assert path.read_bytes() == expected and len(list(path.parent.iterdir())) == 1


def test_a_file_reaches_the_disk_before_its_name_and_its_name_before_the_end(tmp_path, monkeypatch):
  path, fsync, synced = tmp_path / "file", os.fsync, []

  def noted(descriptor):
    synced.append((os.fstat(descriptor).st_ino, path.exists()))
    fsync(descriptor)

  monkeypatch.setattr("os.fsync", noted)
  write_whole(path, b"new")
  assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_tables_quote_what_they_must(tmp_path):
  write_table(tmp_path / "t.csv", ("a", "b"), [("x,y", 1)])
  assert (tmp_path / "t.csv").read_text() == 'a,b\n"x,y",1\n'


def test_what_another_process_of_the_number_left_behind_is_not_in_the_way(tmp_path):
  (tmp_path / f".out.{os.getpid()}").mkdir()
  (tmp_path / "usual").mkdir()
  with whole_folder(tmp_path / "out") as unfinished:
    (unfinished / "file").write_text("")
  assert (tmp_path / "out" / "file").exists() and len(list(tmp_path.iterdir())) == 3
  assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_workdir_below_home_and_one_that_is_a_file(toy_tree, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert RunFolder("~/run").path == tmp_path / "run"
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match=r"file is a file: .*--workdir"):
    RunFolder(tmp_path / "file").begin(CONFIG, toy_tree, "labels")


@pytest.mark.parametrize(
  ("changed", "remedy"),
  [
    ({"seed": 2, "name": "a b"}, "`hierjax train --extend {} --config.name='a b' --config.seed=2`"),
    ({"head": {"width": 9}, "seed": 2}, "another --workdir, where --config.init.run={} starts from its weights"),
  ],
)
def test_the_refusal_of_another_config_names_the_way_to_go_on_from_its_weights(toy_tree, folder, changed, remedy):
  with pytest.raises(UserError) as error:
    folder.begin(CONFIG | changed, toy_tree, "labels")
  assert remedy.format(folder.path) in str(error.value)
  with pytest.raises(UserError, match=rf"label tree: .*`hierjax train --extend {folder.path}`"):
    folder.begin(CONFIG, toy_tree.truncated(2), "labels")
  shutil.rmtree(folder.checkpoints)
  with pytest.raises(UserError, match="it has no weights yet: remove it, or choose another --workdir"):
    folder.begin(CONFIG | changed, toy_tree, "labels")


def test_names_of_files_that_are_not_utf8_are_written_byte_for_byte(tmp_path):
  write_table(tmp_path / "t.csv", ["image"], [[os.fsdecode(b"\xe9t\xe9.png")]])
  assert (tmp_path / "t.csv").read_bytes() == b"image\n\xe9t\xe9.png\n"
