"""Config files by name and path, values of a command line by annotation, and the lines that show a config."""

from typing import Any, Literal

import pytest

from configs import common
from hierjax.config import parsed
from hierjax.config_files import CONFIGS, find_config, list_configs, load_config, show_config
from hierjax.errors import UserError
from hierjax.training.sections import PARTS, SECTIONS, resolved, section_fields

OWN = """
import ml_collections as mlc
from configs import common

def get_config(variant=""):
  c = common.base()
  c.tree.source = "shapes"
  c.head = dict(name="path_rnn", width=7)
  return common.apply(c, variant, ({"flat": common.flat},))
"""


@pytest.mark.parametrize("spec", ["quickstart", "configs/quickstart.py", str(CONFIGS / "quickstart.py")])
def test_a_config_is_found_by_name_and_by_path_from_any_folder(spec, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert find_config(spec).path == CONFIGS / "quickstart.py" and find_config(spec).variant == ""
  assert find_config(f"{spec}:flat,smoke").variant == "flat,smoke"
  assert load_config(f"{spec}:flat")["head"] == {
    "name": "flat",
    "criterion": "cross_entropy",
    "strength": None,
    "dropout": 0.0,
  }


def test_a_file_of_ones_own_uses_the_common_module(tmp_path, monkeypatch):
  (tmp_path / "my_config.py").write_text(OWN)
  monkeypatch.chdir(tmp_path)
  found = load_config("my_config.py", ["--config.head.dropout=0.5"])
  assert (found["head"]["width"], found["head"]["dropout"]) == (7, 0.5)
  assert load_config("my_config.py:flat")["head"]["name"] == "flat"


@pytest.mark.parametrize(
  ("spec", "overrides", "facts"),
  [
    ("quickstrat", (), ["quickstrat", "did you mean 'quickstart'", "dhnn_shapes"]),
    ("common", (), ["common", "quickstart"]),
    ("no/such.py", (), ["no/such.py"]),
    ("quickstart:flaat", (), ["'flaat'", "did you mean 'flat'", "smoke"]),
    ("quickstart:smoke,nosuch", (), ["'nosuch'", "flat, smoke"]),
    ("quickstart", ["--config.head.widht=3"], ["config.head.widht", "did you mean 'width'", "dropout"]),
    ("quickstart", ["--config.haed.width=3"], ["config.haed", "did you mean 'head'"]),
    ("quickstart", ["--config.data.mean.x=3"], ["config.data.mean"]),
    ("quickstart", ["--config.bacth_size=3"], ["config.bacth_size", "did you mean 'batch_size'"]),
    ("quickstart", ["--config.head=3"], ["config.head is a section"]),
    ("quickstart", ["--config.epochs"], ["--config.epochs", "=VALUE"]),
    ("quickstart", ["--config.head.name=flaat"], ["config.head.name = 'flaat'", "did you mean 'flat'", "path_rnn"]),
    (
      "quickstart",
      ["--config.head.name=flat", "--config.head.width=3"],
      ["config.head.width", "allowed: criterion, dropout, name, strength"],
    ),
    ("quickstart", ["--config.head.reduction=maen"], ["config.head.reduction = 'maen'", "sum, mean", "'mean'?"]),
    ("quickstart", ["--config.batch_size=1.5"], ["config.batch_size = 1.5", "whole number"]),
    ("quickstart", ["--config.data.mirror=perhaps"], ["config.data.mirror = 'perhaps'", "True or False"]),
    ("quickstart", ["--config.head.name=no_such_pkg.mod:Thing"], ["no_such_pkg.mod", "'Thing'"]),
    ("quickstart", ["--config.head.name=json:Thing"], ["module 'json'", "'Thing'"]),
    ("quickstart", ["--config.head.name=json:"], ["json:", "package.module:Thing"]),
    ("quickstart", ["--config.head.name=json:loads"], ["json:loads", "for_tree"]),
    ("quickstart", ["--config.backbone.name=flax.nnx:Linear"], ["flax.nnx:Linear", "ToLinen"]),
  ],
)
def test_what_is_not_there_is_named_with_the_nearest(spec, overrides, facts):
  with pytest.raises(UserError) as error:
    load_config(spec, overrides)
  assert all(fact in str(error.value) for fact in facts), str(error.value)


@pytest.mark.parametrize(
  ("text", "kind", "value"),
  [
    ("3", int, 3),
    ("3", float, 3.0),
    ("1e-3", float, 1e-3),
    ("true", bool, True),
    ("False", bool, False),
    ("3", str, "3"),
    ("", str, ""),
    ("None", int | None, None),
    ("3", int | None, 3),
    ("gru", Literal["lstm", "gru"], "gru"),
    ("10", Literal[1, 10], 10),
    ("(1, (2, 3))", tuple[int | tuple[int, int], ...], (1, (2, 3))),
    ("[[1], [2]]", tuple[tuple[int, ...], ...], ((1,), (2,))),
    ("1,2", tuple[int, ...], (1, 2)),
    ("5", tuple[int, ...], (5,)),
    ("^head/", tuple[str, ...], ("^head/",)),
    ("()", tuple[int, ...], ()),
    ("None", tuple[int, ...] | None, None),
    ("(('^neck/', None), ('.*', 1.0))", Any, (("^neck/", None), (".*", 1.0))),
    ("words", Any, "words"),
  ],
)
def test_a_text_is_read_as_its_field_is_annotated(text, kind, value):
  found = parsed(text, kind)
  assert found == value and type(found) is type(value)


def test_a_section_holds_all_fields_and_keeps_what_a_config_sets():
  config = common.base().to_dict()
  full = resolved(config)
  assert resolved(full) == full
  for name in (*SECTIONS, *PARTS):
    assert full[name].keys() == section_fields(name, full[name]).keys()
    assert full[name] == full[name] | config[name]


def test_another_part_starts_from_its_own_defaults():
  found = load_config("quickstart", ["--config.backbone.name=wide_resnet", "--config.backbone.depth=10"])
  assert found["backbone"] == {"name": "wide_resnet", "depth": 10, "width": 10, "dropout": 0.3}
  same = load_config("quickstart", ["--config.backbone.name=small_resnet"])
  assert same == load_config("quickstart")


def test_a_config_is_shown_with_the_description_of_each_key():
  config = load_config("quickstart", ["--config.head.width=5"])
  lines = show_config(config).splitlines()
  assert any(line.startswith("head.width = 5  # ") and "LSTM" in line for line in lines)
  assert any(line.startswith("seed = 0  # ") for line in lines)
  keys = [line.partition(" = ")[0] for line in lines]
  assert len(set(keys)) == len(keys) == sum(len(v) if isinstance(v, dict) else 1 for v in config.values())
  assert "must be set" in show_config(load_config("quickstart", ["--config.backbone.name=features"]))


def test_each_field_of_each_part_and_section_is_described():
  sections = [(part, {"name": name}) for part, table in PARTS.items() for name in table]
  for name, section in [*sections, *((name, {}) for name in SECTIONS)]:
    bare = [key for key, field in section_fields(name, section).items() if not field.text]
    assert not bare, (name, section, bare)


def test_the_list_has_every_config_with_its_variants():
  found = {name: (line, kinds) for name, line, kinds in list_configs()}
  assert "common" not in found and found["quickstart"][1] == (("smoke",), ("flat",))
  assert all(line and kinds for line, kinds in found.values())
