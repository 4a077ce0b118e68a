"""The scripts of scripts/launch, with commands that are given here; test_end_to_end.py trains two processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hierjax.runs.peers import LOST

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "scripts" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one(script):
  subprocess.run(["bash", "-n", script], check=True)
  if shutil.which("shellcheck"):
    subprocess.run(["shellcheck", script], check=True)


@pytest.fixture
def given(tmp_path):
  """Returns a function that makes a command of a text in bash; `$LOG` is a file that it may write to."""
  (tmp_path / "bin").mkdir()
  log = tmp_path / "log"
  log.touch()
  environment = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "LOG": str(log)}

  def make(name, text):
    path = tmp_path / "bin" / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)
    return path

  make.environment, make.log = environment, log
  return make


def run(script, *words, given, **values):
  command = ["bash", str(LAUNCH / script), *words]
  return subprocess.run(command, env=given.environment | values, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_a_signal_to_the_script_reaches_all_processes(given):
  python = given(
    "python",
    f"""if [[ $1 == -c ]]; then exec "{sys.executable}" "$@"; fi
trap 'echo "got TERM" >> "$LOG"; exit 143' TERM
echo "$*" >> "$LOG"
while :; do sleep 0.05; done""",
  )
  environment = given.environment | {"PYTHON": str(python)}
  process = subprocess.Popen(["bash", str(LAUNCH / "local.sh"), "2", "quickstart", "--workdir=run"], env=environment)
  deadline = time.monotonic() + 30
  while given.log.read_text().count("--workdir=run") < 2 and time.monotonic() < deadline:
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 143
  lines = sorted(given.log.read_text().splitlines())
  assert lines[2:] == ["got TERM"] * 2
  address = lines[0].partition("--multihost=")[2].removesuffix(",2,0")
  assert lines[:2] == [f"-m hierjax train quickstart --workdir=run --multihost={address},2,{i}" for i in range(2)]


def test_the_first_status_that_is_no_success_is_the_scripts(given):
  python = given(
    "python", f'if [[ $1 == -c ]]; then exec "{sys.executable}" "$@"; fi; [[ $* == *,2,0 ]] || exit {LOST}'
  )
  assert run("local.sh", "2", "quickstart", given=given, PYTHON=str(python)).returncode == LOST
  assert run("local.sh", "two", "quickstart", given=given).returncode == 2


@pytest.mark.parametrize(
  ("status", "restarts", "goes_on"),
  [(0, 0, False), (128 + signal.SIGUSR1, 0, True), (LOST, 3, True), (LOST, 50, False), (1, 0, False), (2, 0, False)],
)
def test_a_job_of_slurm_goes_back_to_the_queue_where_that_helps(given, status, restarts, goes_on):
  given("srun", f'echo "srun $*" >> "$LOG"; exit {status}')
  given("scontrol", 'echo "scontrol $*" >> "$LOG"')
  counted = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": str(restarts)}
  assert run("slurm.sh", "quickstart", "--workdir=run", given=given, **counted).returncode == status
  first, *rest = given.log.read_text().splitlines()
  assert "hierjax train quickstart --workdir=run --multihost=auto" in first
  assert rest == (["scontrol requeue 17"] if goes_on else [])


# A slice that is there after it is asked for, until `taken` times it is not.
GCLOUD = """echo "$*" >> "$LOG"
case "$*" in
  *" describe "*) cat "$LOG.state" ;;
  *" create "*) echo ACTIVE > "$LOG.state" ;;
  *"hierjax train"*)
    count=$(grep -c "hierjax train" "$LOG")
    if ((count <= TAKEN)); then echo SUSPENDED > "$LOG.state"; exit 255; fi
    exit "$STATUS" ;;
esac"""


@pytest.mark.parametrize(("taken", "status"), [(0, 0), (2, 0), (0, 1), (1, 1)])
def test_a_slice_that_is_taken_away_is_asked_for_anew(given, taken, status):
  given("gcloud", GCLOUD)
  given("sleep", "")
  Path(f"{given.log}.state").write_text("")
  values = {"PROJECT": "p", "ZONE": "z", "SETUP": "install", "TAKEN": str(taken), "STATUS": str(status)}
  found = run("tpu_vm.sh", "quickstart", "--workdir=run", given=given, **values)
  lines = given.log.read_text().splitlines()
  created = [line for line in lines if " create " in line]
  assert found.returncode == status and len(created) == taken + 1, found.stdout
  assert all("--spot --project=p --zone=z" in line for line in created)
  assert sum("--command=install" in line for line in lines) == taken + 1
  assert (" delete " in lines[-1]) == (status == 0)


def test_the_host_of_a_slice_starts_anew_but_for_errors(given):
  """What is run on a host, of a program that a peer's end ends once."""
  given(
    "gcloud", 'case "$*" in *" describe "*) echo ACTIVE ;; *"hierjax train"*) printf "%s" "$*" > "$LOG.line" ;; esac'
  )
  run("tpu_vm.sh", "quickstart", given=given, PROJECT="p", ZONE="z")
  text = Path(f"{given.log}.line").read_text()
  command = text.partition("--command=")[2].rpartition(" --project=")[0]
  given("sleep", "")
  given("python3", f'echo run >> "$LOG"; (($(wc -l < "$LOG") > 1)) || exit {LOST}; exit 1')
  assert subprocess.run(["bash", "-c", command], env=given.environment).returncode == 1
  assert given.log.read_text().splitlines() == ["run", "run"]


def test_the_pods_of_a_job_set_have_what_a_process_needs():
  (found,) = yaml.safe_load_all((LAUNCH / "gke.yaml").read_text())
  assert found["kind"] == "JobSet" and found["spec"]["failurePolicy"]["maxRestarts"] > 0
  (job,) = found["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  (rule,) = spec["podFailurePolicy"]["rules"]
  assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [1, 2]}
  assert spec["backoffLimit"] == 0 and pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 60
  columns, rows = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
  chips = container["resources"]["limits"]["google.com/tpu"]
  assert spec["parallelism"] == spec["completions"] == columns * rows // chips
  assert [*container["command"], container["args"][0]] == ["hierjax", "train", "cnnrnn_imagenet:images"]
  assert "--multihost=auto" in container["args"]
  assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
