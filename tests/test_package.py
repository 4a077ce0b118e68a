"""What `import hierjax` offers, its extras, and the files that describe the package."""

import ast
import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hierjax
from hierjax import extras
from hierjax.errors import UserError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]


def test_every_name_can_be_used_and_editors_see_the_same_names():
  tree = ast.parse((ROOT / "hierjax" / "__init__.py").read_text())
  (block,) = [node for node in tree.body if isinstance(node, ast.If)]
  seen = {alias.name: node.module for node in block.body for alias in node.names}
  assert seen == hierjax._MODULES
  for name in hierjax.__all__:
    assert getattr(hierjax, name) is not None and name in dir(hierjax)
  with pytest.raises(AttributeError, match="'Predicter'"):
    hierjax.Predicter  # noqa: B018


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch):
  for extra, modules in extras.EXTRAS.items():
    with monkeypatch.context() as patch:
      for module in modules:
        patch.setitem(sys.modules, module, None)
      with pytest.raises(UserError) as error:
        extras.require(extra)
      assert all(module in str(error.value) for module in modules) and f'pip install "hierjax[{extra}]"' in str(
        error.value
      )


NEEDS = {  # the extra that each command lacks
  "report nowhere": "report",
  "compare nowhere nowhere": "report",
  "plot predictions nowhere": "report",
  "plot states nowhere": "report",
  "plot neighbours nowhere": "report",
  "data prepare cifar100": "prepare",
  "serve nowhere": "serve",
  "push nowhere hf:a/b": "hub",
}
WITHOUT = """
import contextlib, io, json, sys
for name in {modules}: sys.modules[name] = None
from hierjax.cli.main import main
found = []
for words in {commands}:
  with contextlib.redirect_stderr(io.StringIO()) as err:
    found.append((main(words.split()), err.getvalue()))
print(json.dumps(found))
"""


def test_without_extras_the_core_works_and_other_commands_name_what_they_lack(tmp_path):
  train = f"train flat_cifar100:smoke --workdir={tmp_path / 'run'} --config.data.name=cifar100"
  needs = {train: "tfds", **NEEDS}
  core = {"train quickstart --config.batch_size=0": "batch_size"}
  core |= dict.fromkeys(("evaluate nowhere", "predict nowhere a.jpg", "export nowhere out"), "run folder")
  run = tmp_path / "quickstart"
  works = [f"train quickstart:smoke --workdir={run}", f"evaluate {run}", f"predict {run} docs/pictures/lite0.jpg"]
  modules = sorted({module for names in extras.EXTRAS.values() for module in names})
  code = WITHOUT.format(modules=modules, commands=[*needs, *core, *works])
  result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
  assert result.returncode == 0, result.stderr
  facts = [*(f'pip install "hierjax[{extra}]"' for extra in needs.values()), *core.values()]
  found = json.loads(result.stdout.splitlines()[-1])
  for words, fact, (status, err) in zip([*needs, *core], facts, found[: -len(works)], strict=True):
    assert status == 1 and fact in err, f"{words}: {err}"
  assert [status for status, _ in found[-len(works) :]] == [0] * len(works), found[-len(works) :]


def test_training_without_tensorboard_says_so_once_and_logs_to_metrics_jsonl(monkeypatch, tmp_path, capsys):
  from hierjax.runs.folder import RunFolder
  from hierjax.training.logs.console import Progress
  from hierjax.training.logs.metrics_log import MetricsLog

  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  folder = RunFolder(tmp_path)
  log = MetricsLog(folder, Progress(total_steps=2, batch_size=1))
  log.write(1, "train", {"loss": 0.5})
  log.write(2, "train", {"loss": 0.25})
  log.close()
  assert capsys.readouterr().out.count('pip install "hierjax[tensorboard]"') == 1
  assert len(folder.metrics.read_text().splitlines()) == 2 and not folder.tensorboard.exists()


def names(requirements):
  return {re.split(r"[<>=\[ ;]", line)[0] for line in requirements}


def test_requirements_txt_has_the_core_and_all_extras():
  extras = ("tfds", "report", "tensorboard", "hub", "serve", "weights")
  wanted = {*PROJECT["dependencies"], *itertools.chain(*(OPTIONAL[extra] for extra in extras))}
  listed = {line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")}
  assert listed == wanted
  assert OPTIONAL["all"] == [f"hierjax[{','.join(extras)}]"] and "hierjax[all]" in OPTIONAL["test"]


def test_what_the_core_imports_is_declared():
  """Walks the imports of the package; the optional ones are those of hierjax/extras.py."""
  distributions = {"PIL": "pillow", "absl": "absl-py", "orbax": "orbax-checkpoint"}
  imported = set()
  for path in [*(ROOT / "hierjax").rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Import):
        imported |= {alias.name.split(".")[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        imported.add((node.module or "").split(".")[0])
  imported -= {*sys.stdlib_module_names, "hierjax", "configs"}
  optional = {module for modules in extras.EXTRAS.values() for module in modules}
  wanted = {distributions.get(name, name) for name in imported - optional}
  assert wanted <= names(PROJECT["dependencies"])


def test_the_citation_has_the_version_of_the_package():
  assert f"version: {hierjax.__version__}\n" in (ROOT / "CITATION.cff").read_text()
