"""The runs of a study: once each, chosen on validation, in pieces."""

import json
import os
import signal
import time

import jax
import pytest
from commands import MESH

from hierjax.cli.main import main
from hierjax.config_files import load_config
from hierjax.data import open_source
from hierjax.errors import UserError
from hierjax.evaluation import evaluate
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.study import runs
from hierjax.study.measurement import Finished, Measurement
from hierjax.study.plan import EvaluatedRow, Row, Study, load_study, names
from hierjax.study.runs import StudyRuns, TimeOver, time_limit
from hierjax.training.loop.signals import stop_signals
from hierjax.training.loop.steps import Stopped

STUDY = """
from hierjax.study.plan import EvaluatedRow, Row, Study

def get_study():
  rows = (
    Row("flat head", "quickstart:flat,smoke"),
    Row("flat head, tuned", "quickstart:flat,smoke", ("epochs=1.0",), {"optim.lr": ("1e-6", "0.05")}),
    EvaluatedRow("fewest edges", of="flat head", minimise="edges"),
    EvaluatedRow("of two", of="flat head", ensemble=2),
  )
  return Study("Three rows", rows, baseline="flat head", seeds=(3, 4), settings=("epochs=1.0",))
"""


SMALL = [
  f"--config.{value}" for value in ("data.examples=48", "data.resize=16", "data.crop=16", "backbone.widths=(4,)")
]


def last_params(folder):
  _, variables = Run.from_folder(RunFolder(folder)).restored_variables(RunFolder(folder), devices.data_mesh())
  return variables["params"]


def test_a_study_trains_each_run_once_and_writes_its_table(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(devices, "data_mesh", lambda: MESH)
  (tmp_path / "two.py").write_text(STUDY)
  command = ["study", str(tmp_path / "two.py"), "--workdir", str(tmp_path / "out"), *SMALL]
  evaluated, opened = [], []
  measured, noise = Measurement._measured_run, open_source._KINDS["noise"]
  with monkeypatch.context() as patched:
    patched.setattr(evaluate, "evaluate_with_facts", lambda *_: pytest.fail("evaluated twice"))
    patched.setattr(
      Measurement, "_measured_run", lambda self, *rest: evaluated.append(self.file) or measured(self, *rest)
    )
    patched.setitem(open_source._KINDS, "noise", lambda *rest: opened.append(len(evaluated)) or noise(*rest))
    assert main(command) == 0, capsys.readouterr().err
  assert len(evaluated) == len(set(evaluated)) == 2 + 3 + 2  # two seeds, three runs, two seeds again
  assert [count for count in opened if count < 2 + 3] == [0]  # once for all that are trained
  assert (tmp_path / "out" / "flat-head" / "seed4" / "eval" / "test.json").exists()
  text = (tmp_path / "out" / "study.md").read_text()
  assert text in capsys.readouterr().out and "| flat head, tuned |" in text and "seeds 3, 4" in text
  tuned = sorted(path.name for path in (tmp_path / "out" / "flat-head,-tuned").iterdir())
  assert len(tuned) == 3 and {"optim.lr=0.05-seed3", "optim.lr=1e-6-seed3"} < set(tuned)
  config = RunFolder(tmp_path / "out" / "flat-head,-tuned" / "optim.lr=0.05-seed3").config()
  assert (config["seed"], config["optim"]["lr"], config["epochs"], config["data"]["examples"]) == (3, 0.05, 1.0, 48)
  assert (tmp_path / "out" / "study.csv").read_text().startswith("row,config,settings,metric,mean")
  assert (tmp_path / "out" / "study.png").stat().st_size > 1000
  assert "| of two | of flat head, ensemble=2 |" in text
  members = [tmp_path / "out" / "flat-head" / f"seed{seed}" for seed in (3, 4)]
  assert main(["evaluate", *map(str, members), "--out", str(tmp_path / "both")]) == 0
  both = json.loads((tmp_path / "both" / "eval" / "test.json").read_text())
  of_two = json.loads((members[0] / "study-with-4.json").read_text())
  assert of_two["metrics"] == {name: both[name] for name in of_two["metrics"]}
  session = json.loads((members[1] / "provenance.json").read_text())
  session["sessions"][0]["started"] = "2026-01-01T00:00:00+00:00"  # trained anew
  (members[1] / "provenance.json").write_text(json.dumps(session))
  (members[0] / "study-with-4.json").write_text(json.dumps({**of_two, "metrics": {}}))
  assert main(command) == 0
  again = json.loads((members[0] / "study-with-4.json").read_text())
  assert again["metrics"] == of_two["metrics"] and again["started"][1].startswith("2026-01-01")
  assert of_two["weights"] == 2 * sum(w.size for w in jax.tree.leaves(last_params(members[0])))
  assert "| fewest edges | of flat head, minimise=edges |" in text and not (tmp_path / "out" / "fewest-edges").exists()
  of = tmp_path / "out" / "flat-head" / "seed3"
  found, measured = (json.loads((of / name).read_text()) for name in ("study-edges.json", "eval/test-edges.json"))
  assert found["metrics"]["path_accuracy"] == measured["path_accuracy"] and measured["purpose"]["minimise"] == "edges"
  assert found["weights"] == sum(w.size for w in jax.tree.leaves(last_params(of)))
  monkeypatch.setattr(runs, "train_and_evaluate", lambda *_: pytest.fail("a run was trained again"))
  assert main(command) == 0
  assert (tmp_path / "out" / "study.md").read_text() == text
  capsys.readouterr()
  assert main([*command, "--config.batch_size=8"]) == 1
  assert "flat-head/seed3 was trained with another config" in capsys.readouterr().err


def stub(folder, settings, validation):
  return Finished(folder, settings, validation, {}, {}, {"checksum": "same"})


def test_the_values_of_the_best_candidate_on_validation_train_with_the_other_seeds(tmp_path, monkeypatch):
  row = Row("row", "photos", tuned={"optim.lr": ("1", "2"), "head.width": ("3", "4")})
  scores = {("optim.lr=1", "head.width=4"): 0.9}
  asked = []

  def finished(self, row, settings, seeds):
    asked.extend((settings, seed) for seed in seeds)
    return [stub(RunFolder(self.folder), settings, scores.get(settings, 0.1)) for _ in seeds]

  monkeypatch.setattr(StudyRuns, "finished", finished)
  ((_, found),) = StudyRuns(Study("T", (row,), "row", seeds=(5, 6)), tmp_path).rows()
  best = ("optim.lr=1", "head.width=4")
  assert [run.settings for run in found] == [best, best]
  assert [seed for settings, seed in asked if settings == best] == [5, 6] and len(asked) == 5
  monkeypatch.setattr(
    StudyRuns, "finished", lambda self, row, settings, seeds: [stub(RunFolder(self.folder), settings, None)]
  )
  with pytest.raises(UserError, match="no validation images"):
    list(StudyRuns(Study("T", (row,), "row"), tmp_path).rows())


def test_seeds_that_are_left_train_together_where_they_can(tmp_path, monkeypatch):
  trained = []
  monkeypatch.setattr(runs, "train_seeds", lambda config, folders, *_: trained.append(tuple(folders)))
  monkeypatch.setattr(runs, "train_and_evaluate", lambda config, folder, *_: trained.append(config["seed"]))
  monkeypatch.setattr(Measurement, "write", lambda *_: None)
  monkeypatch.setattr(Measurement, "read", lambda self, settings: stub(self.folders[0], settings, 0.5))
  of = StudyRuns(Study("T", (Row("row", "photos"),), "row"), tmp_path, ("--config.data.root=nowhere",))
  own = {seed: (f"seed={seed}",) for seed in (5, 6, 7)}
  assert len(of.finished(of.study.rows[0], (), own)) == 3
  (tmp_path / "row" / "seed6").mkdir(parents=True)
  (tmp_path / "row" / "seed6" / "study.json").touch()
  of.finished(of.study.rows[0], (), own)
  (tmp_path / "row" / "seed5" / "checkpoints" / "40" / "model").mkdir(parents=True)
  of.finished(of.study.rows[0], (), own)  # one of them has stopped at a step
  of.finished(of.study.rows[0], ("frozen.keep=False", "frozen.views=0"), {8: ("seed=8",), 9: ("seed=9",)})
  assert trained == [(5, 6, 7), (5, 7), (5, 7), 8, 9]


def test_consecutive_runs_on_a_set_open_it_once(tmp_path):
  of = StudyRuns(Study("T", (Row("row", "photos"),), "row"), tmp_path)
  config = load_config("quickstart:smoke", [])
  opened = of._opened_set(config)
  assert of._opened_set({**config, "seed": 9, "head": {}}) is opened
  assert of._opened_set({**config, "data": {**config["data"], "split_seed": 9}}) is not opened
  assert len(of._opened) == 1
  again = of._opened_set(config)
  assert of._opened_set({**config, "tree": {**config["tree"], "levels": 1}}) is not again


def test_each_seed_has_its_images_and_the_pseudo_labels_of_the_run_of_its_seed(tmp_path, monkeypatch):
  trained, written = [], []
  monkeypatch.setattr(runs, "train_and_evaluate", lambda config, folder, *_: trained.append((folder, config)))
  monkeypatch.setattr(runs, "train_seeds", lambda *_: pytest.fail("they have different images"))
  monkeypatch.setattr(Measurement, "write", lambda *_: None)
  monkeypatch.setattr(Measurement, "read", lambda self, settings: stub(self.folders[0], settings, 0.5))
  monkeypatch.setattr(RunFolder, "config", lambda self: {"batch_size": 8})
  monkeypatch.setattr(runs.LoadedRun, "open", lambda folder, mesh: folder)
  monkeypatch.setattr(runs, "write_pseudo_labels", lambda folder, file: written.append(folder.path))
  monkeypatch.setattr(runs, "pseudo_label_summary", str)
  rows = (
    Row("teacher", "photos", tuned={"optim.lr": ("1", "2")}),
    Row("pupil", "photos", pseudo_labels_of="teacher"),
  )
  study = Study("T", rows, "teacher", seeds=(5, 6), seeded=("data.split_seed",))
  list(StudyRuns(study, tmp_path, ("--config.data.root=nowhere",)).rows())
  teachers = [tmp_path / "teacher" / f"optim.lr=1-seed{seed}" for seed in (5, 6)]
  assert written == teachers
  pupils = [config for folder, config in trained if "pupil" in folder]
  assert [config["data"]["pseudo_labels"] for config in pupils] == [
    f"{path}/study-pseudo_labels.npz" for path in teachers
  ]
  assert {config["data"]["partial_labels"] for config in pupils} == {"pseudo"}
  assert [config["data"]["split_seed"] for config in pupils] == [config["seed"] for config in pupils] == [5, 6]
  (teachers[0] / "study-pseudo_labels.npz").parent.mkdir(parents=True)
  (teachers[0] / "study-pseudo_labels.npz").touch()
  list(StudyRuns(study, tmp_path, ("--config.data.root=nowhere",)).rows())
  assert written == [*teachers, teachers[1]]  # the file that is there is not written again


def test_other_pseudo_labels_are_another_config_and_a_moved_file_is_not(tmp_path):
  config = load_config("photos", ["--config.data.partial_labels=pseudo"])
  sums = []
  for name, content in (("a", b"1"), ("b", b"1"), ("b", b"2")):
    (tmp_path / name).write_bytes(content)
    sums.append(runs._checksum({**config, "data": {**config["data"], "pseudo_labels": str(tmp_path / name)}}))
  assert sums[0] == sums[1] != sums[2]


def test_runs_that_are_judged_on_other_images_end_a_study_after_their_row(tmp_path, monkeypatch):
  def finished(self, row, settings, own):
    return [Finished(RunFolder(f"{row.name}-{seed}"), (), 0.5, {}, {}, {"checksum": str(seed)}) for seed in own]

  monkeypatch.setattr(StudyRuns, "finished", finished)
  rows = (Row("first", "photos"), Row("second", "photos"))
  found = StudyRuns(Study("T", rows, "first", seeds=(5, 6), seeded=("data.split_seed",)), tmp_path).rows()
  assert next(found)[0].name == "first"
  with pytest.raises(
    UserError, match=r"first-5 and \S*first-6 are not judged on the same images; where the set has no te"
  ):
    next(found)


def test_the_time_limit_stops_a_training_after_its_checkpoint_and_anything_else_at_once():
  with pytest.raises(TimeOver), time_limit(0.002):
    time.sleep(5)
  with pytest.raises(TimeOver), time_limit(0.002), stop_signals() as signals:
    while signals.received is None:  # as a training does
      time.sleep(0.01)
    raise Stopped(signals.received, 3, 9)
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("minutes", [0.0, 5.0])
def test_a_signal_of_somebody_else_is_no_end_of_the_time(minutes):
  with pytest.raises(Stopped), time_limit(minutes):
    raise Stopped(signal.SIGTERM, 3, 9)
  seen = []
  before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
  try:
    with time_limit(minutes):
      os.kill(os.getpid(), signal.SIGTERM)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert seen == [1]


@pytest.mark.parametrize("name", names())
def test_the_studies_of_the_package_name_configs_and_keys_that_there_are(name):
  study = load_study(name)
  for row in study.rows:
    for settings in row.candidates() if isinstance(row, Row) else ():
      load_config(row.config, [f"--config.{one}" for one in (*study.settings, *row.settings, *settings)])


def test_what_is_no_study_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"there is no study 'heat'; did you mean 'heads'\?"):
    load_study("heat")
  (tmp_path / "none.py").write_text("x = 1\n")
  with pytest.raises(UserError, match=r"none\.py is not a study: it needs a function get_study"):
    load_study(str(tmp_path / "none.py"))
  one = Row("a", "photos")
  for rows, changes, message in (
    ((one, one), {}, "two rows have the same name"),
    ((one,), {"baseline": "b"}, "baseline = 'b'"),
    ((one, EvaluatedRow("b", "")), {}, "b: of = '': no row before it that trains"),
    ((one, EvaluatedRow("b", "a")), {}, "b: give what differs from 'a': minimise, alpha, calibrated or ensemble"),
    ((one, EvaluatedRow("b", "a", ensemble=1, against="a")), {}, "b: give what differs from 'a'"),
    ((one, EvaluatedRow("b", "a", ensemble=6)), {}, "b: ensemble = 6: must be from 0 to 5, the number of seeds"),
    ((one, EvaluatedRow("b", "a", alpha="best")), {}, "b: alpha = 'best': must be a number, or 'chosen'"),
    ((one, EvaluatedRow("b", "a", minimise="edge")), {}, r"minimise = 'edge': choose from .*did you mean 'edges'"),
    ((EvaluatedRow("early", "a", minimise="edges"), one), {}, "early: of = 'a': no row before it that trains"),
    ((one, EvaluatedRow("b", "A", minimise="edges")), {}, "of = 'A': no row before it that trains"),
    ((one, Row("b", "photos", against="A")), {}, "b: against = 'A': no row before it has this name"),
    ((one, Row("b", "photos", pseudo_labels_of="b")), {}, "b: pseudo_labels_of = 'b': no row before it that trains"),
    ((one,), {"seeds": ()}, "give one or more"),
    ((Row("a", "photos", tuned={"optim.lr": ()}),), {}, "no values to choose from"),
  ):
    with pytest.raises(UserError, match=message):
      Study(**({"title": "T", "rows": rows, "baseline": "a"} | changes))
