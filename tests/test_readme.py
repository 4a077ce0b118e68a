"""The README's commands and code do what it says."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiled_programs import FLAGS

import hierjax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
  return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]
LIBRARY, ASKS = blocks("python")
OWN_IMAGES = [c for c in COMMANDS if c.startswith(("hierjax ", "python "))]
PROGRAMS = {"hierjax": [sys.executable, "-m", "hierjax"], "python": [sys.executable]}


def run(command, tmp_path, flags=FLAGS):
  """Runs a command of the README in the checkout, its run folders moved to `tmp_path`."""
  words = [w.replace("runs/", f"{tmp_path}/") for w in shlex.split(command)]
  return subprocess.run(
    [*PROGRAMS[words[0]], *words[1:]],
    cwd=ROOT,
    env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XLA_FLAGS": flags},
    capture_output=True,
    text=True,
    timeout=600,
  )


def test_the_commands_on_own_images_work_in_order(tmp_path):
  assert len(OWN_IMAGES) == 8
  for command in OWN_IMAGES:
    result = run(command, tmp_path)
    assert result.returncode == 0, f"{command}\n{result.stderr}"
  assert "Node by node" in (tmp_path / "mine" / "report.html").read_text()
  answers = (tmp_path / "mine" / "answers.csv").read_text().splitlines()
  assert answers[0].startswith("image,path,probability") and len(answers) > 10
  image, path, probability = answers[1].split(",")[:3]
  shutil.copy(image, tmp_path / "photo.png")
  code = f"{ASKS}\nimport sys; assert 'hierjax' not in sys.modules".replace("runs/", f"{tmp_path}/")
  printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True).stdout
  name, number = printed.splitlines()[-1].rsplit(" ", 1)
  assert name == path and float(number) == pytest.approx(float(probability), abs=1e-4)


@pytest.mark.slow
def test_the_first_run_works(tmp_path):
  command = next(c for c in COMMANDS if "configs/quickstart.py" in c)
  result = run(command.split("&&")[-1].replace(".venv/bin/", ""), tmp_path, flags="")
  assert result.returncode == 0, result.stderr
  assert "path accuracy" in result.stdout and "-m hierjax predict" in result.stdout


def test_the_library_example_learns_its_four_images(capsys):
  exec(compile(LIBRARY, "README.md", "exec"), {"__name__": "example"})  # noqa: S102 (our own README)
  assert capsys.readouterr().out == "['animal/cat', 'thing/cup', 'animal/dog/basenji', 'animal/dog/leonberg']\n"


def test_no_number_is_left_to_fill_in():
  assert not re.search(r"[A-Z]+_(TABLE|WHERE|MINUTES|NUMBERS|HERE)|FIXME", README)
  for config in (ROOT / "configs").glob("*.py"):
    assert not re.search(r"[A-Z]+_(NUMBERS|HERE)", config.read_text(encoding="utf-8")), config.name


def test_preparing_a_set_without_tensorflow_says_what_to_install():
  if importlib.util.find_spec("tensorflow"):
    pytest.skip("TensorFlow is installed here: this would download the set")
  result = subprocess.run([*PROGRAMS["hierjax"], "data", "prepare", "cifar100"], capture_output=True, text=True)
  assert result.returncode == 1 and 'pip install "hierjax[prepare]"' in result.stderr


def test_api_md_lists_what_the_package_offers():
  listed = set(
    re.findall(r"^\| `(\w+)", (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
  )
  assert listed == set(hierjax.__all__)
