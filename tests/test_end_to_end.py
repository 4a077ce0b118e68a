"""Train, stop, go on, evaluate and predict: through the commands that a user types."""

import contextlib
import csv
import io
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
from unittest import mock

import chex
import jax
import numpy as np
import pytest
from compiled_programs import FLAGS
from jax.sharding import Mesh
from PIL import Image

from hierjax.cli.main import main
from hierjax.runs import devices
from hierjax.runs.devices import data_mesh
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.logs.metrics_log import MetricsLog

ROOT = Path(__file__).parents[1]
TRAIN = ["--config=configs/quickstart.py:smoke", "--config.data.examples=160", "--config.log_every=2",
         "--config.checkpoint_every=0.2", "--config.data.resize=16", "--config.data.crop=16",
         "--config.backbone.widths=(4,)", "--config.head.width=8"]  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


def environment(cache, devices=1):
  """Returns what a process of its own runs in; what it compiles is kept with what the tests compile."""
  return os.environ | {
    "XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count={devices}",
    "JAX_PLATFORMS": "cpu",
    "XDG_CACHE_HOME": str(cache),
  }


def started(workdir, env, *flags):
  """Starts train.py in a process of its own."""
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  return subprocess.Popen(
    [sys.executable, "train.py", *TRAIN, f"--workdir={workdir}", *flags], cwd=ROOT, env=env, **pipes
  )


def train(workdir, *flags, devices=1):
  """Runs `hierjax train` in this process; returns the exit status and what it printed on stdout and on stderr."""
  out, err = io.StringIO(), io.StringIO()
  mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
  with (
    contextlib.chdir(ROOT),
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    mock.patch("hierjax.runs.devices.data_mesh", lambda: mesh),
  ):
    return main(["train", *TRAIN, f"--workdir={workdir}", *flags]), out.getvalue(), err.getvalue()


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
def whole(tmp_path_factory):
  """Uninterrupted runs on 1 and on 4 devices, and what they printed."""
  folder = tmp_path_factory.mktemp("whole")
  found = {}
  for n in (1, 4):
    status, printed, said = train(folder / str(n), devices=n)
    assert status == 0, said
    found[n] = folder / str(n), printed
  return found


def test_a_run_leaves_the_folder_of_the_contract(whole, cache):
  workdir, printed = whole[1]
  assert {"config.json", "tree.json", "checkpoints", "metrics.jsonl", "eval", "tensorboard"} <= set(os.listdir(workdir))
  metrics = json.loads((workdir / "eval" / "test.json").read_text())
  assert metrics["num_examples"] == 26
  names = {"path_accuracy", "node_accuracy", "level_accuracy", "leaf_top1", "leaf_top5"}
  assert names <= metrics.keys() and len(metrics["level_accuracy"]) == 4
  for name in ("level 1", "level 4", "path accuracy", "-m hierjax predict", "devices: "):
    assert name in printed
  assert [line["step"] for line in logged(workdir)] == list(range(2, 21, 2))
  assert [line["step"] for line in logged(workdir, "validation")] == [10, 20]  # every epoch
  events = b"".join(file.read_bytes() for file in (workdir / "tensorboard").iterdir())
  assert b"train/loss" in events and b"validation/path_accuracy" in events
  assert " > " in printed  # a few paths
  env = environment(cache)
  del env["JAX_COMPILATION_CACHE_DIR"]  # where a command keeps programs by itself, however small these are
  process = started(workdir, env)
  again, said = process.communicate(timeout=300)
  assert process.returncode == 0, said
  assert "path accuracy" in again and "training for" not in again and "devices: 1 x cpu" in again
  assert len(logged(workdir)) == 10
  assert any((cache / "hierjax" / "xla").iterdir())  # compiled programs are kept


def send_after(process, workdir, sign, lines):
  """Sends a process a signal once its run has logged some lines."""
  deadline = time.monotonic() + 200
  while process.poll() is None and time.monotonic() < deadline:
    if (workdir / "metrics.jsonl").exists() and (workdir / "metrics.jsonl").read_text().count("\n") >= lines:
      process.send_signal(sign)
      break
    time.sleep(0.005)


@pytest.mark.parametrize(("sign", "step", "devices"), [(signal.SIGTERM, 4, 1), (signal.SIGINT, 10, 4)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, whole, monkeypatch, sign, step, devices):
  def write(log, at, split, metrics, write=MetricsLog.write):
    write(log, at, split, metrics)
    if (at, split) == (step, "train"):
      signal.raise_signal(sign)

  with monkeypatch.context() as patch:
    patch.setattr(MetricsLog, "write", write)
    status, printed, _ = train(tmp_path, devices=devices)
  assert status == 128 + sign and f"stopped at step {step} of 20: the same command resumes the run" in printed
  assert not (tmp_path / "eval").exists() and last_weights(tmp_path)[0] == step
  assert train(tmp_path, devices=devices)[0] == 0
  at_end, weights = last_weights(tmp_path)
  reference_step, reference = last_weights(whole[devices][0])
  assert at_end == reference_step == 20
  chex.assert_trees_all_equal(weights, reference)
  assert [x["loss"] for x in logged(tmp_path)] == [x["loss"] for x in logged(whole[devices][0])]


def test_the_number_of_devices_does_not_matter(whole):
  one, four = (logged(whole[n][0]) for n in (1, 4))
  np.testing.assert_allclose([x["loss"] for x in four], [x["loss"] for x in one], rtol=1e-5)
  metrics = [json.loads((whole[n][0] / "eval" / "test.json").read_text()) for n in (1, 4)]
  assert [m["num_examples"] for m in metrics] == [26, 26]
  assert metrics[0]["path_accuracy"] == metrics[1]["path_accuracy"]


def free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def two_processes(workdir, cache):
  """Starts a run of two processes."""
  address = f"127.0.0.1:{free_port()}"
  return [started(workdir, environment(cache), f"--multihost={address},2,{i}") for i in range(2)]


def test_a_signal_to_one_process_stops_both_at_one_step_and_they_go_on_as_one_process_does(tmp_path, whole, cache):
  processes = two_processes(tmp_path, cache)
  send_after(processes[1], tmp_path, signal.SIGTERM, 2)
  printed, said = zip(*(p.communicate(timeout=200) for p in processes), strict=True)
  assert [p.returncode for p in processes] == [128 + signal.SIGTERM] * 2
  assert all("waiting for the other processes of the run" in text for text in said)
  assert printed[0].splitlines()[-1] == printed[1].splitlines()[-1]
  assert "the same command resumes the run" in printed[1]
  command = ["bash", str(ROOT / "scripts" / "launch" / "local.sh"), "2", *TRAIN, f"--workdir={tmp_path}"]
  environs = environment(cache) | {"PYTHON": sys.executable}
  found = subprocess.run(command, cwd=ROOT, env=environs, capture_output=True, text=True, timeout=300)
  assert found.returncode == 0, found.stderr
  assert "2 processes, 2 x cpu" in found.stdout and "path accuracy" in found.stdout
  one, two = whole[1][0], tmp_path
  np.testing.assert_allclose([x["loss"] for x in logged(two)], [x["loss"] for x in logged(one)], rtol=1e-5)
  metrics = [json.loads((w / "eval" / "test.json").read_text()) for w in (one, two)]
  assert [m["num_examples"] for m in metrics] == [26, 26]
  assert metrics[0]["path_accuracy"] == metrics[1]["path_accuracy"]


def test_a_folder_that_one_process_cannot_make_ends_both(tmp_path, cache):
  (tmp_path / "run").touch()
  processes = two_processes(tmp_path / "run", cache)
  try:
    errors = [p.communicate(timeout=100)[1] for p in processes]
  finally:
    for process in processes:
      process.kill()
  assert all(p.returncode for p in processes)
  assert str(tmp_path / "run") in errors[0] and "process 0 cannot use the folder" in errors[1]


def test_another_config_is_refused(whole):
  status, _, said = train(whole[1][0], "--config.optim.lr=0.01")
  assert status == 1 and "config.optim.lr: 0.1 in the folder, 0.01 now" in said


def test_divergence_names_the_step_and_the_last_good_checkpoint(tmp_path):
  slow = ["--config.schedule.name=cosine", "--config.schedule.warmup=1.5", "--config.optim.lr=1e9"]
  status, _, said = train(tmp_path, *slow, "--config.checkpoint_every=0.1")
  found = re.search(r"not finite at step (\d+); the last good checkpoint is of step (\d+)", said)
  assert status == 1 and found and int(found[2]) < int(found[1])
  assert (tmp_path / "checkpoints" / found[2]).is_dir()


def test_every_switch_goes_through_the_loop(tmp_path, cache):
  """A run of everything that a config can turn on, in a process that is killed, and resumed; on four devices."""
  flags = [
    "--config.epochs=1",
    "--config.optim.name=adamw", "--config.optim.lr=0.003", "--config.optim.accumulate=2",
    "--config.optim.clip_norm=1.0", "--config.optim.lr_groups=(('^backbone/stem', None), ('.*', 1.0))",
    "--config.schedule.name=plateau", "--config.schedule.patience=1", "--config.schedule.min_delta=10.0",
    "--config.eval_every=0.25",
    "--config.class_weights=balanced", "--config.dtype=bfloat16",
  ]  # fmt: skip
  process = started(tmp_path / "killed", environment(cache, devices=4), *flags)
  send_after(process, tmp_path / "killed", signal.SIGKILL, 4)
  process.communicate(timeout=100)
  assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "eval").exists()
  for name in ("killed", "whole"):
    status, _, said = train(tmp_path / name, *flags, devices=4)
    assert status == 0, said
  chex.assert_trees_all_equal(last_weights(tmp_path / "whole")[1], last_weights(tmp_path / "killed")[1])
  lines = logged(tmp_path / "whole")
  for name in ("loss", "lr"):
    assert [line[name] for line in lines] == [line[name] for line in logged(tmp_path / "killed")]
  rates = [line["lr"] for line in lines]
  assert min(rates) < 0.1 * max(rates)  # the plateau dropped it


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path, whole, cache):
  rng = np.random.default_rng()
  for _ in range(5):
    process = started(tmp_path, environment(cache))
    time.sleep(rng.uniform(2.0, 9.0))
    process.kill()
    process.communicate()
  assert train(tmp_path)[0] == 0
  chex.assert_trees_all_equal(last_weights(tmp_path)[1], last_weights(whole[1][0])[1])
  assert [x["loss"] for x in logged(tmp_path)] == [x["loss"] for x in logged(whole[1][0])]


def test_evaluate_needs_no_batch_that_fits_its_devices(whole, monkeypatch):
  workdir = whole[1][0]
  before = json.loads((workdir / "eval" / "test.json").read_text())
  monkeypatch.setattr(devices, "data_mesh", lambda: Mesh(np.array(jax.devices()[:3]), ("data",)))
  monkeypatch.setattr(jax, "device_count", lambda: 3)
  assert main(["evaluate", str(workdir)]) == 0
  after = json.loads((workdir / "eval" / "test.json").read_text())
  assert after["num_examples"] == 26 and after["path_accuracy"] == before["path_accuracy"]


def test_evaluate_covers_every_example_of_a_split(whole, capsys):
  workdir = whole[1][0]
  assert main(["evaluate", str(workdir), "--split", "train"]) == 0
  assert json.loads((workdir / "eval" / "train.json").read_text())["num_examples"] == 160
  assert "level 1" in capsys.readouterr().out
  for *flags, message in (
    ("--views", "5", "views = 5: choose from 1, 10"),
    ("--views", "10", "four corners of 16 pixels need larger images"),
    ("--known-levels", "4", "--known-levels 4: give 0 to 3"),
  ):
    assert main(["evaluate", str(workdir), *flags]) == 1
    assert message in capsys.readouterr().err


def test_predict_answers_for_every_file(whole, tmp_path, rng):
  for name in ("a.png", "sub/b.jpg"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
  (tmp_path / "broken.png").write_bytes(b"not an image")
  out = tmp_path / "out.csv"
  assert main(["predict", str(whole[1][0]), str(tmp_path), "--csv", str(out), "--top", "2"]) == 0
  header, *rows = csv.reader(out.read_text().splitlines())
  assert header == ["image", "path", "probability", "rank", "node_probabilities", "log_probability", "why", "error"]
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
  """In a process of its own: reads of other arrays go on after the first one has failed."""
  shutil.copytree(whole[1][0], tmp_path / "run")
  for file in (tmp_path / "run" / "checkpoints").rglob("d/*"):
    file.write_bytes(file.read_bytes()[:10])
  command = [sys.executable, "-m", "hierjax", "evaluate", str(tmp_path / "run")]
  result = subprocess.run(command, cwd=ROOT, env=environment(cache), capture_output=True, text=True, timeout=300)
  assert result.returncode == 1 and "checkpoints/20 is damaged (" in result.stderr
  assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1


def test_going_on_after_a_damaged_checkpoint_prints_nothing_of_other_threads(whole, cache, tmp_path):
  shutil.copytree(whole[1][0], tmp_path / "run")
  for file in (tmp_path / "run" / "checkpoints" / "20").rglob("d/*"):
    file.write_bytes(file.read_bytes()[:10])
  process = started(tmp_path / "run", environment(cache))
  printed, said = process.communicate(timeout=300)
  assert process.returncode == 0 and "path accuracy" in printed
  assert "checkpoints/20 is damaged" in printed + said and (tmp_path / "run" / "checkpoints" / "damaged-20").is_dir()
  assert not [line for line in said.splitlines() if "Traceback" in line or "never retrieved" in line], said


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


def test_processes_that_cannot_be_named_so_are_refused(tmp_path):
  with pytest.raises(SystemExit, match="--multihost=here: give auto, or ADDRESS,N,I"):
    train(tmp_path, "--multihost=here")


def test_train_py_ends_with_the_sentence_and_the_status(tmp_path, cache):
  process = started(tmp_path, environment(cache), "--config=configs/nowhere.py")
  said = process.communicate(timeout=100)[1]
  assert process.returncode == 1
  assert "configs/nowhere.py" in said and "Traceback" not in said
