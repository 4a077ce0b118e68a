"""Train, stop, go on, evaluate and predict: through the commands that a user types."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import chex
import numpy as np
import pytest
from compiled_programs import FLAGS
from PIL import Image

from hierjax.cli.main import main
from hierjax.runs.devices import data_mesh
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run

ROOT = Path(__file__).parents[1]
TRAIN = [sys.executable, "train.py", "--config=configs/quickstart.py:smoke"]
SMALL = ["--config.data.examples=160", "--config.log_every=2", "--config.checkpoint_every=0.2"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


def environment(cache, devices=1, flags=FLAGS):
  """Returns what a command runs in; what it compiles is kept with what the tests compile."""
  return os.environ | {
    "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
    "JAX_PLATFORMS": "cpu",
    "XDG_CACHE_HOME": str(cache),
  }


def train(workdir, cache, *flags, devices=1, check=True, env=None):
  command = [*TRAIN, *SMALL, f"--workdir={workdir}", *flags]
  env = env or environment(cache, devices)
  result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
  if check:
    assert result.returncode == 0, result.stderr
  return result


def logged(workdir, split="train"):
  lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
  return [line for line in map(json.loads, lines) if line["split"] == split]


def last_weights(workdir):
  """Returns the step and the weights of the latest checkpoint."""
  folder = RunFolder(workdir)
  latest = max(int(p.name) for p in folder.checkpoints.iterdir() if p.name.isdigit())
  run = Run.from_folder(folder)
  return latest, run.restored_variables(folder, data_mesh(), latest)[1]


@pytest.fixture(scope="session")
def whole(tmp_path_factory, cache):
  """Uninterrupted runs on 1 and on 4 devices, and what they printed."""
  folder = tmp_path_factory.mktemp("whole")
  return {n: (folder / str(n), train(folder / str(n), cache, devices=n).stdout) for n in (1, 4)}


def test_a_run_leaves_the_folder_of_the_contract(whole, cache):
  workdir, printed = whole[1]
  assert {"config.json", "tree.json", "checkpoints", "metrics.jsonl", "eval", "tensorboard"} <= set(os.listdir(workdir))
  metrics = json.loads((workdir / "eval" / "test.json").read_text())
  assert metrics["num_examples"] == 26
  names = {"path_accuracy", "node_accuracy", "level_accuracy", "leaf_top1", "leaf_top5"}
  assert names <= metrics.keys() and len(metrics["level_accuracy"]) == 4
  for name in ("level 1", "level 4", "path accuracy", "-m hierjax predict", "devices: 1 x cpu"):
    assert name in printed
  assert [line["step"] for line in logged(workdir)] == list(range(2, 21, 2))
  events = b"".join(file.read_bytes() for file in (workdir / "tensorboard").iterdir())
  assert b"train/loss" in events and b"validation/path_accuracy" in events
  assert " > " in printed  # a few paths
  env = environment(cache)
  del env["JAX_COMPILATION_CACHE_DIR"]  # where a command keeps programs by itself, however small these are
  again = train(workdir, cache, env=env)
  assert "path accuracy" in again.stdout and "training for" not in again.stdout
  assert len(logged(workdir)) == 10
  assert any((cache / "hierjax" / "xla").iterdir())  # compiled programs are kept


def interrupted(workdir, env, sign, lines, flags=()):
  """Starts a run, sends it a signal once it has logged some lines, and returns the process."""
  process = subprocess.Popen(
    [*TRAIN, *SMALL, f"--workdir={workdir}", *flags],
    cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  deadline = time.monotonic() + 200
  while process.poll() is None and time.monotonic() < deadline:
    if (workdir / "metrics.jsonl").exists() and len((workdir / "metrics.jsonl").read_text().splitlines()) >= lines:
      process.send_signal(sign)
      break
    time.sleep(0.005)
  process.communicate(timeout=100)
  return process


@pytest.mark.parametrize(
  ("sign", "lines", "devices"),
  [(signal.SIGTERM, 2, 1), (signal.SIGINT, 5, 4), (signal.SIGKILL, 3, 1), (signal.SIGKILL, 5, 4)],
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, whole, cache, sign, lines, devices):
  process = interrupted(tmp_path, environment(cache, devices), sign, lines)
  assert process.returncode == (-9 if sign == signal.SIGKILL else 128 + sign)
  assert not (tmp_path / "eval").exists()
  train(tmp_path, cache, devices=devices)
  step, weights = last_weights(tmp_path)
  reference_step, reference = last_weights(whole[devices][0])
  assert step == reference_step == 20
  chex.assert_trees_all_equal(weights, reference)
  assert [x["loss"] for x in logged(tmp_path)] == [x["loss"] for x in logged(whole[devices][0])]


def test_device_and_process_counts_do_not_matter(tmp_path, whole, cache):
  address = f"127.0.0.1:{free_port()}"
  commands = [[*TRAIN, *SMALL, f"--workdir={tmp_path}", f"--multihost={address},2,{i}"] for i in range(2)]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  processes = [subprocess.Popen(c, cwd=ROOT, env=environment(cache), **pipes) for c in commands]
  errors = [p.communicate(timeout=300)[1] for p in processes]
  assert [p.returncode for p in processes] == [0, 0], errors
  one, four, two = (logged(w) for w in (whole[1][0], whole[4][0], tmp_path))
  for other in (four, two):
    np.testing.assert_allclose([x["loss"] for x in other], [x["loss"] for x in one], rtol=1e-5)
  metrics = [json.loads((w / "eval" / "test.json").read_text()) for w in (whole[1][0], whole[4][0], tmp_path)]
  assert [m["num_examples"] for m in metrics] == [26, 26, 26]
  assert metrics[0]["path_accuracy"] == metrics[1]["path_accuracy"] == metrics[2]["path_accuracy"]


def free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def test_a_signal_to_one_process_stops_both_at_one_step_and_they_go_on(tmp_path, whole, cache):
  def start():
    address = f"127.0.0.1:{free_port()}"
    commands = [[*TRAIN, *SMALL, f"--workdir={tmp_path}", f"--multihost={address},2,{i}"] for i in range(2)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return [subprocess.Popen(c, cwd=ROOT, env=environment(cache), **pipes) for c in commands]

  processes = start()
  deadline = time.monotonic() + 200
  while time.monotonic() < deadline and processes[1].poll() is None:
    if (tmp_path / "metrics.jsonl").exists() and (tmp_path / "metrics.jsonl").read_text().count("\n") >= 2:
      processes[1].send_signal(signal.SIGTERM)
      break
    time.sleep(0.005)
  printed = [p.communicate(timeout=200)[0] for p in processes]
  assert [p.returncode for p in processes] == [128 + signal.SIGTERM] * 2
  assert printed[0].splitlines()[-1] == printed[1].splitlines()[-1]
  assert "the same command resumes the run" in printed[1]
  processes = start()
  errors = [p.communicate(timeout=300)[1] for p in processes]
  assert [p.returncode for p in processes] == [0, 0], errors
  np.testing.assert_allclose([x["loss"] for x in logged(tmp_path)], [x["loss"] for x in logged(whole[1][0])], rtol=1e-5)


def test_a_folder_that_one_process_cannot_make_ends_both(tmp_path, cache):
  (tmp_path / "run").touch()
  address = f"127.0.0.1:{free_port()}"
  commands = [[*TRAIN, *SMALL, f"--workdir={tmp_path / 'run'}", f"--multihost={address},2,{i}"] for i in range(2)]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  processes = [subprocess.Popen(c, cwd=ROOT, env=environment(cache), **pipes) for c in commands]
  try:
    errors = [p.communicate(timeout=100)[1] for p in processes]
  finally:
    for process in processes:
      process.kill()
  assert all(p.returncode for p in processes)
  assert str(tmp_path / "run") in errors[0] and "the first process" in errors[1]


def test_another_config_is_refused(whole, cache):
  result = train(whole[1][0], cache, "--config.optim.lr=0.01", check=False)
  assert result.returncode == 1
  assert "config.optim.lr: 0.1 in the folder, 0.01 now" in result.stderr
  assert "Traceback" not in result.stderr


def test_divergence_names_the_step_and_the_last_good_checkpoint(tmp_path, cache):
  slow = ["--config.schedule.name=cosine", "--config.schedule.warmup=1.5", "--config.optim.lr=1e9"]
  result = train(tmp_path, cache, *slow, "--config.checkpoint_every=0.1", check=False)
  assert result.returncode == 1 and "Traceback" not in result.stderr
  found = re.search(r"not finite at step (\d+); the last good checkpoint is of step (\d+)", result.stderr)
  assert found and int(found[2]) < int(found[1])
  assert (tmp_path / "checkpoints" / found[2]).is_dir()


def test_every_switch_goes_through_the_loop(tmp_path, cache):
  """A run of everything that a config can turn on, stopped hard and resumed, on four devices."""
  flags = [
    "--config.optim.name=adamw", "--config.optim.lr=0.003", "--config.optim.accumulate=2",
    "--config.optim.clip_norm=1.0", "--config.optim.lr_groups=(('^backbone/stem', None), ('.*', 1.0))",
    "--config.schedule.name=plateau", "--config.schedule.patience=1", "--config.schedule.min_delta=10.0",
    "--config.eval_every=0.5",
    "--config.class_weights=balanced", "--config.dtype=bfloat16",
  ]  # fmt: skip
  env = environment(cache, devices=4, flags="")  # without optimisation, bfloat16 is slow
  train(tmp_path / "whole", cache, *flags, env=env)
  interrupted(tmp_path / "killed", env, signal.SIGKILL, 6, flags)
  train(tmp_path / "killed", cache, *flags, env=env)
  chex.assert_trees_all_equal(last_weights(tmp_path / "whole")[1], last_weights(tmp_path / "killed")[1])
  rates = [line["lr"] for line in logged(tmp_path / "whole")]
  assert rates == [line["lr"] for line in logged(tmp_path / "killed")]
  assert min(rates) < 0.1 * max(rates)  # the plateau dropped it


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path, whole, cache):
  rng = np.random.default_rng()
  for _ in range(5):
    process = subprocess.Popen(
      [*TRAIN, *SMALL, f"--workdir={tmp_path}"],
      cwd=ROOT, env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(rng.uniform(2.0, 9.0))
    process.kill()
    process.wait()
  train(tmp_path, cache)
  chex.assert_trees_all_equal(last_weights(tmp_path)[1], last_weights(whole[1][0])[1])
  assert [x["loss"] for x in logged(tmp_path)] == [x["loss"] for x in logged(whole[1][0])]


def hierjax(cache, *arguments):
  command = [sys.executable, "-m", "hierjax", *map(str, arguments)]
  return subprocess.run(command, cwd=ROOT, env=environment(cache), capture_output=True, text=True, timeout=300)


def test_evaluate_needs_no_batch_that_fits_its_devices(whole, cache):
  workdir = whole[1][0]
  before = json.loads((workdir / "eval" / "test.json").read_text())
  command = [sys.executable, "-m", "hierjax", "evaluate", str(workdir)]
  result = subprocess.run(command, cwd=ROOT, env=environment(cache, 3), capture_output=True, text=True, timeout=300)
  assert result.returncode == 0, result.stderr
  after = json.loads((workdir / "eval" / "test.json").read_text())
  assert after["num_examples"] == 26 and after["path_accuracy"] == before["path_accuracy"]


def test_evaluate_covers_every_example_of_a_split(whole, capsys):
  workdir = whole[1][0]
  assert main(["evaluate", str(workdir), "--split", "train"]) == 0
  assert json.loads((workdir / "eval" / "train.json").read_text())["num_examples"] == 160
  assert "level 1" in capsys.readouterr().out
  for *flags, message in (
    ("--views", "5", "views = 5: choose from 1, 10"),
    ("--views", "10", "four corners of 32 pixels need larger images"),
    ("--known-levels", "4", "--known-levels 4: give 0 to 3"),
  ):
    assert main(["evaluate", str(workdir), *flags]) == 1
    assert message in capsys.readouterr().err


def test_predict_answers_for_every_file(whole, cache, tmp_path, rng):
  for name in ("a.png", "sub/b.jpg"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
  (tmp_path / "broken.png").write_bytes(b"not an image")
  out = tmp_path / "out.csv"
  result = hierjax(cache, "predict", whole[1][0], tmp_path, "--csv", out, "--top", 2)
  assert result.returncode == 0, result.stderr
  header, *rows = csv.reader(out.read_text().splitlines())
  assert header == ["image", "path", "probability", "rank", "node_probabilities", "log_probability", "error"]
  assert [Path(row[0]).name for row in rows] == ["a.png", "a.png", "broken.png", "b.jpg", "b.jpg"]
  tree = RunFolder(whole[1][0]).tree()
  for row in (rows[0], rows[1], rows[3], rows[4]):
    assert tree.find(row[1].split("/")) in tree.leaves
    nodes = [float(p) for p in row[4].split("/")]
    assert len(nodes) == len(row[1].split("/")) and nodes == sorted(nodes, reverse=True)
    np.testing.assert_allclose(nodes[-1], float(row[2]), atol=1e-4)
  assert 0 >= float(rows[0][5]) >= float(rows[1][5]) and rows[2][5] == ""  # as they rank
  assert "not an image" in rows[2][-1] and rows[2][1] == ""


def test_a_damaged_checkpoint_gets_a_clear_sentence(whole, cache, tmp_path):
  shutil.copytree(whole[1][0], tmp_path / "run")
  for file in (tmp_path / "run" / "checkpoints").rglob("d/*"):
    file.write_bytes(file.read_bytes()[:10])
  result = hierjax(cache, "evaluate", tmp_path / "run")
  assert result.returncode == 1
  assert "checkpoints/20 is damaged (" in result.stderr


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_foreign_folders_get_a_clear_sentence(folder, command, tmp_path, capsys):
  files = [str(ROOT / "README.md")] if command == "predict" else []
  assert main([command, str(tmp_path / folder), *files]) == 1
  assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=configs/nowhere.py"], "configs/nowhere.py"),
    (["--config=configs/quickstart.py:huge"], "unknown variant 'huge'; choose from: flat, smoke"),
    (
      ["--config=configs/quickstart.py", "--config.batchsize=3"],
      "config.batchsize: there is no such key; did you mean 'batch_size'?",
    ),
    (["--config=configs/quickstart.py", "--config.neck.scales=(1,)"], "config.neck.scales: there is no such key"),
    (["--config=configs/chrnn.py"], "configs/chrnn.py is not a config: it has no function get_config"),
    (["--config=configs/quickstart.py", "--config.batch_size=0"], "config.batch_size = 0: must be above 0"),
    (
      ["--config=configs/quickstart.py:smoke", "--config.class_weights=balanced", "--config.data.balanced=True"],
      "config.class_weights = balanced and config.data.balanced = True: choose one",
    ),
    (
      ["--config=configs/photos.py:from_scratch", "--config.data.root=nowhere"],
      "config.data.root = 'nowhere': there is no such",
    ),
  ],
)
def test_mistakes_on_the_command_line_get_a_clear_sentence(tmp_path, monkeypatch, capsys, arguments, message):
  monkeypatch.chdir(ROOT)
  assert main(["train", *arguments, f"--workdir={tmp_path / 'run'}"]) == 1
  said = capsys.readouterr().err
  assert message in said and "Traceback" not in said


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=configs/nowhere.py"], "configs/nowhere.py"),
    (["--config=configs/quickstart.py", "--multihost=here"], "--multihost=here: give auto, or ADDRESS,N,I"),
  ],
)
def test_train_py_ends_with_the_sentence_and_the_status(tmp_path, cache, arguments, message):
  command = [sys.executable, "train.py", *arguments, f"--workdir={tmp_path / 'run'}"]
  result = subprocess.run(command, cwd=ROOT, env=environment(cache), capture_output=True, text=True, timeout=100)
  assert result.returncode == 1
  assert message in result.stderr and "Traceback" not in result.stderr
