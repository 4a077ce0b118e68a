"""The studies in configs/studies: rows that one table can compare, and the command that trains them."""

import re
from pathlib import Path

import pytest

from benchmarks.study_minutes import PAPERS
from hierjax.config_files import load_config, run_file
from hierjax.study.plan import STUDIES, Row, Study, load_study, names

OF_IMAGES = ("name", "root", "train_split", "validation_split", "test_split", "validation", "calibration", "split_seed")
PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "studies.md"
SEEDS = {"dutt_resnet164": 5}  # "five times", as the paper says; the others do not say


def configs(name):
  """Returns the config of each row, with the first of its tuned values."""
  study = load_study(name)
  return [
    load_config(row.config, [f"--config.{one}" for one in (*study.settings, *row.settings, *next(row.candidates()))])
    for row in study.rows
    if isinstance(row, Row)
  ]


@pytest.mark.parametrize("name", names())
def test_the_rows_of_a_study_have_the_same_images_and_labels(name):
  first, *others = configs(name)
  for config in others:
    assert {key: config["data"][key] for key in OF_IMAGES} == {key: first["data"][key] for key in OF_IMAGES}
    assert [config["tree"][key] for key in ("source", "levels")] == [first["tree"][key] for key in ("source", "levels")]


@pytest.mark.parametrize("name", [name for name in PAPERS if name != "guo_coarse"])
def test_the_rows_of_a_papers_study_differ_in_the_network_alone(name):
  parts = {"backbone", "neck", "head", "merged"}
  first, *others = ({key: value for key, value in config.items() if key not in parts} for config in configs(name))
  assert others and all(config == first for config in others)


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_study_has_its_seeds_and_opens_with_its_command(name):
  assert len(load_study(name).seeds) == SEEDS.get(name, 3)
  text = run_file(STUDIES / f"{name}.py").__doc__
  command = text.split("\n")[2].strip()
  assert command.startswith(f"hierjax study {name} ")
  assert command.endswith(f"--minutes 9 --workdir=runs/{name}")
  assert "et al. 20" in text.split("\n")[0] and "GPU" in text


def test_the_examples_of_the_page_make_a_study(tmp_path):
  whole, *rows = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
  (tmp_path / "own.py").write_text(whole, encoding="utf-8")
  study = load_study(str(tmp_path / "own.py"))
  for row in study.rows:
    for settings in row.candidates():
      load_config(row.config, [f"--config.{one}" for one in (*row.settings, *settings)])
  text = f"from hierjax.study.plan import EvaluatedRow\n\nROWS = [{','.join(rows)}]\n"
  (tmp_path / "further.py").write_text(text, encoding="utf-8")
  further = run_file(tmp_path / "further.py").ROWS
  assert len(further) == 2 and Study("T", (*study.rows, *further), study.baseline)
