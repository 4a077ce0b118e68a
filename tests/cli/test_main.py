"""The command line: help, suggestions, exit statuses and JSON; nothing here compiles a network."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import hierjax
from hierjax.cli.evaluate import command as evaluate_command
from hierjax.cli.main import COMMANDS, main
from hierjax.errors import UserError

ROOT = Path(__file__).parents[2]
GROUPS = ["", *sorted({name.split()[0] for name in COMMANDS if " " in name})]
WITH_SPLIT = ["evaluate", "report", "plot predictions", "plot states"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_well_and_shows_examples_of_the_command(name, capsys):
  assert main([*name.split(), "--help"]) == 0
  out, err = capsys.readouterr()
  assert f"hierjax {name} " in out.split("examples:")[1] or f"hierjax {name}\n" in out.split("examples:")[1]
  assert COMMANDS[name].HELP in out and err == ""


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_lists_its_commands(group, capsys):
  assert main([*group.split(), "--help"]) == 0
  listed = [line.strip() for line in capsys.readouterr().out.splitlines()]
  for name, command in COMMANDS.items():
    assert (f"{name} " in " ".join(line for line in listed if line.endswith(command.HELP))) == name.startswith(group)


def test_help_documents_every_exit_status(capsys):
  main(["--help"])
  status = capsys.readouterr().out.split("exit status:")[1]
  assert [line.split()[0] for line in status.splitlines() if line[2:3].isdigit()] == ["0", "1", "2", "130", "143", "75"]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_example_is_a_command_line_that_can_be_parsed(name, monkeypatch):
  seen = []
  for each in COMMANDS.values():
    monkeypatch.setattr(each, "run", lambda args: seen.append(args) or 0)
  examples = [line for line in COMMANDS[name].EXAMPLES.strip().splitlines() if "hierjax " in line]
  for example in examples:
    words = example.split(" && ")[-1].split()
    assert (words[0] == "hierjax" and main(words[1:]) == 0) or "train.py" in example
  assert seen


def test_the_version_is_that_of_the_package(capsys):
  assert main(["--version"]) == 0
  assert capsys.readouterr().out == f"hierjax {hierjax.__version__}\n"


@pytest.mark.parametrize(
  ("words", "facts"),
  [
    ("evalute runs/a", ["'evalute'", "'evaluate'"]),
    ("data chek", ["'data chek'", "'data check'"]),
    ("dta check", ["'dta'", "'data'"]),
    ("plot prediction runs/a", ["'plot predictions'"]),
    ("predict runs/a b.jpg --threshhold 1", ["--threshhold", "'--threshold'"]),
    ("report runs/a --jsn", ["--jsn"]),
    ("evaluate runs/a --config.seed=1", ["--config.seed=1"]),
    ("evaluate", ["WORKDIR"]),
    ("data check", ["SOURCE", "--labels"]),
    ("data show cifar100 --depth 0", ["--depth", "at least 1"]),
    ("predict runs/a b.jpg --top 0", ["--top", "at least 1"]),
    ("data demo d --images none", ["'none'"]),
    ("train", ["hierjax train quickstart"]),
    ("train quickstart --config=folder", ["quickstart", "folder"]),
    ("train quickstart --config.batch_size 64", ["64"]),
    ("--versoin", ["--versoin"]),
    ("data", ["data check"]),
    ("", ["train"]),
  ],
)
def test_a_command_line_that_cannot_be_understood_ends_with_2(words, facts, capsys):
  assert main(words.split()) == 2
  out, err = capsys.readouterr()
  assert out == "" and all(fact in err for fact in facts)


@pytest.mark.parametrize("name", WITH_SPLIT)
def test_val_is_validation_and_another_split_is_refused(name, monkeypatch, capsys):
  seen = []
  monkeypatch.setattr(COMMANDS[name], "run", lambda args: seen.append(args.split) or 0)
  for text in ("val", "validation", "test"):
    assert main([*name.split(), "runs/a", "--split", text]) == 0
  assert seen == ["validation", "validation", "test"]
  assert main([*name.split(), "runs/a", "--split", "tset"]) == 2
  err = capsys.readouterr().err
  assert "'tset'" in err and "'test'" in err


@pytest.mark.parametrize(
  ("words", "facts"),
  [
    ("train quickstrt", ["'quickstrt'", "'quickstart'"]),
    ("train nowhere.py", ["nowhere.py"]),
    ("train quickstart:flt", ["'flt'", "flat"]),
    ("train quickstart --config.batchsize=3", ["config.batchsize", "'batch_size'"]),
    ("config show quickstart --config.optim.momentm=0.5", ["config.optim.momentm", "'momentum'"]),
    ("weights import a.npz --backbone resnet5", ["resnet5", "'resnet50'"]),
    ("data check nowhere.csv", ["nowhere.csv"]),
    ("data show cifr100", ["cifr100", "'cifar100'"]),
    ("evaluate nowhere", ["nowhere", "run folder"]),
  ],
)
def test_a_name_that_is_not_there_ends_with_1_and_a_suggestion(words, facts, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(words.split()) == 1
  out, err = capsys.readouterr()
  assert out == "" and err.startswith("error: ") and all(fact in err for fact in facts)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("raised", "status"), [(UserError("no"), 1), (FileNotFoundError("no"), 1), (KeyboardInterrupt(), 130)]
)
def test_what_ends_a_command_is_its_exit_status(raised, status, monkeypatch):
  def run(args):
    raise raised

  monkeypatch.setattr(COMMANDS["report"], "run", run)
  assert main(["report", "runs/a"]) == status


def test_a_training_that_sigterm_stops_ends_with_143(monkeypatch, tmp_path):
  from hierjax.training.loop import run, steps

  def stopped(config, workdir):
    assert config["batch_size"] == 64 and config["head"]["name"] == "flat" and workdir == "runs/quickstart-flat"
    raise steps.Stopped(signal.SIGTERM, 1, 2)

  monkeypatch.setattr(run, "train_and_evaluate", stopped)
  words = ["quickstart:flat", "--config=quickstart:flat", f"--config={ROOT / 'configs/quickstart.py:flat'}"]
  for word in words:
    assert main(["train", word, "--config.batch_size=64"]) == 143


def test_train_py_and_the_module_are_the_command():
  helps = [
    subprocess.run([sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for words in (["train.py"], ["-m", "hierjax", "train"])
  ]
  assert helps[0] == helps[1] and "hierjax train quickstart" in helps[0]


def test_importing_and_helping_load_no_library():
  code = (
    "import sys, hierjax; from hierjax.cli.main import main; main(['--help']); main(['train', '--help']);"
    "print([m for m in ('jax', 'numpy', 'flax', 'matplotlib', 'absl') if m in sys.modules])"
  )
  result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert result.stdout.splitlines()[-1] == "[]"


def test_predicting_and_evaluating_load_no_library_that_they_do_not_need():
  """Each of these takes a tenth to a half of a second."""
  others = ("matplotlib", "optax", "scipy", "grain", "flax.nnx", "tensorflow", "jinja2")
  code = (
    "import sys, hierjax.inference.predictor, hierjax.evaluation.evaluate;"
    f"print([m for m in {others} if m in sys.modules])"
  )
  result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert result.stdout.splitlines()[-1] == "[]"


def test_json_of_a_check_is_one_object_with_every_finding(tmp_path, capsys):
  path = tmp_path / "e.csv"
  path.write_text("parent,child\nroot,a\nroot,b\nb,a\n")
  assert main(["data", "check", str(path), "--json"]) == 1
  out, err = capsys.readouterr()
  found = json.loads(out)
  assert found["source"] == str(path) and found["errors"] == 1 and found["warnings"] == 0
  (finding,) = found["findings"]
  assert finding["line"] == 4 and finding["severity"] == "error" and finding["node"] == "a"
  assert "two parents" in err
  assert main(["data", "check", "cifar100", "--json"]) == 0
  assert json.loads(capsys.readouterr().out)["findings"] == []


def test_json_of_an_evaluation_is_all_that_reaches_stdout(monkeypatch, capsys):
  def evaluate(args, mesh):
    print("a table")
    return {"test": {"path_accuracy": 0.5}}

  monkeypatch.setattr(evaluate_command, "_evaluate", evaluate)
  assert main(["evaluate", "runs/a", "--json"]) == 0
  out, err = capsys.readouterr()
  assert json.loads(out) == {"test": {"path_accuracy": 0.5}} and err == "a table\n"
  assert main(["evaluate", "runs/a"]) == 0
  assert capsys.readouterr().out == "a table\n"


def test_labels_that_the_terminal_cannot_show_become_question_marks(tmp_path, monkeypatch):
  (tmp_path / "t.csv").write_text("a,b\nété,x\nêtre,y\n", encoding="utf-8")
  stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  monkeypatch.setattr(sys, "stdout", stdout)
  assert main(["data", "show", str(tmp_path / "t.csv")]) == 0
  stdout.flush()
  assert b"?t?" in stdout.buffer.getvalue()


def test_a_reader_that_closes_the_pipe_is_no_error():
  command = [sys.executable, "-m", "hierjax", "data", "show", "imagenet1k", "--depth", "99", "--max-children", "9999"]
  with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 0
