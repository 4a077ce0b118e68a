"""The wheel in a fresh environment, outside a checkout: every command that a first user types."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from compiled_programs import FLAGS

ROOT = Path(__file__).parents[1]

COMMANDS = [
  ("--help", "train"),
  ("--version", "hierjax 0."),
  ("config list", "quickstart"),
  ("config show quickstart:smoke", "batch_size"),
  ("data demo photos --images 40", "40 images are in photos"),
  ("data check photos", "0 errors"),
  ("data show cifar100 --depth 1", "100 leaves"),
  ("train quickstart:smoke --workdir=run", "path accuracy"),
  ("train mine.py:smoke --config.epochs=1 --workdir=other", "path accuracy"),
  ("predict run photos", "photos/"),
  ("predict run photos --top 2 --json", "photos/"),
  ("evaluate run --json", "path_accuracy"),
  ("report run", "report.html"),
  ("compare run other", "compare.png"),
  ("plot predictions run --each 1", ".png"),
  ("plot states run --images 60", ".png"),
  ("data features run features", "hierjax train features"),
  ("export run exported", "u8[1 "),
  ("push run published", "README.md"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """A folder without a checkout, and the command that a wheel has installed."""
  folder = tmp_path_factory.mktemp("wheel")
  pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
  subprocess.run([*pip, "wheel", "--no-deps", str(ROOT), "-w", str(folder)], check=True)
  subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
  site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
  (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
  (wheel,) = folder.glob("*.whl")
  python = folder / "venv" / "bin" / "python"
  subprocess.run([python, "-m", "pip", "--quiet", "install", "--no-deps", "--ignore-installed", wheel], check=True)
  (folder / "work").mkdir()
  return folder / "work", folder / "venv" / "bin" / "hierjax"


@pytest.mark.slow
def test_every_command_works_in_order(installed):
  folder, command = installed
  (folder / "mine.py").write_text((ROOT / "configs" / "quickstart.py").read_text())
  environment = os.environ | {"XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder / "cache")}
  environment.pop("PYTHONPATH", None)
  for arguments, expected in COMMANDS:
    result = subprocess.run(
      [command, *arguments.split()], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, f"hierjax {arguments}\n{result.stderr}"
    assert expected in result.stdout, f"hierjax {arguments}\n{result.stdout}"
    if "--json" in arguments:
      assert json.loads(result.stdout)
