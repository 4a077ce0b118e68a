"""Each field of each section of each config can be set to another value on a command line."""

import functools
import itertools
from typing import Any, Literal, get_args, get_origin

import pytest
from without_weights import without_weights

from hierjax.config import REQUIRED, fields_of, unpack
from hierjax.config_files import load_config, names
from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import HEADS, PARTS, PRETRAINED, make_part, part_fields
from hierjax.runs.run import RunConfig
from hierjax.training.initial.from_weights import with_weights
from hierjax.training.sections import SECTIONS, overridden, section_fields, top_fields
from hierjax.tree.builders import from_paths

TREE = tree_arrays(from_paths([("animal", "dog"), ("animal", "cat"), ("thing", "cup")]))

# Other values of fields whose annotations do not say which there are.
VALUES = {
  "loggers": (("console", "jsonl"), ("jsonl",)),
  "data.sides": ((512, 512),),
  "data.crop_area": ((0.5, 1.0), (0.25, 0.5)),
  "data.fit": ("crop", "stretch"),
  "data.partial_labels": ("direct", "drop"),
  "data.on_bad_image": ("stop", "skip"),
  "data.on_no_label": ("stop", "skip"),
  "decode.restrict": ("tree", "raw"),
  "decode.normalise": ("trained", "siblings"),
  "decode.threshold_per": ("tree", "level"),
  "optim.keep_statistics": (("backbone",), ()),
  "optim.name": ("sgd", "adamw"),
  "remat": (("backbone",), ()),
  "schedule.name": ("cosine", "constant"),
  "schedule.monitor": ("loss", "accuracy"),
  "sharding.rules": (((".*", "fsdp"),), ()),
  "head.criterion": ("cross_entropy", "hierjax.functional.losses:subtree_cross_entropy"),
  "head.filters": (((7, 7, 0),),),
  "neck.cell": ("srn", "lstm"),
  "neck.resample": ("overlap", "floor"),
}
TUPLES = (
  (),
  *itertools.chain.from_iterable([(0.5,) * n, (0.25,) * n, (8,) * n, (40,) * n] for n in range(1, 6)),
  ((1,), (2,)),
  ("nw",),
  (("^head/",),),
  ((".*", 0.5),),
)
# Values that other fields of the section must allow: those are set with it.
TOGETHER = {
  "data.coarse": "--config.data.fine=0.5",
  "data.fine_per_label": "--config.data.fine=1.0",
  "data.sides": "--config.data.pad=0 --config.data.crop_area=()",
  "data.pad": "--config.data.sides=() --config.data.crop_area=()",
  "data.crops": "--config.data.pad=0 --config.data.sides=() --config.data.crop_area=()",
  "data.crop_area": "--config.data.pad=0 --config.data.sides=()",
  "data.rotate": "--config.data.pad=0 --config.data.sides=() --config.data.crop_area=(0.5,1.0)",
  "frozen.keep": "--config.frozen.views=0",
  "frozen.views": "--config.frozen.keep=True",
  "merged.levels": "--config.merged.shared=1",
  "init.skip": "--config.init.run=runs/first",
  "init.extend": "--config.init.run=runs/first",
  "init.run": "--config.init.weights=",
  "init.sha256": "--config.init.weights=lite0",
  "head.feedback": "--config.head.output=softmax",  # a step that is fed labels predicts one path
  "head.label_smoothing": "--config.head.output=softmax",
  "head.output": "--config.head.feedback=soft",
  "head.own_level": "--config.head.output=sigmoid --config.head.feedback=soft",
  "head.strength": "--config.head.criterion=hxe",
  "head.filters": "--config.head.conversion=conv",
}


def others(key: str, value: Any, kind: Any) -> list[Any]:
  """Returns values of a kind besides the one that a config has; one of them must be allowed."""
  if key in VALUES:
    found = VALUES[key]
  elif get_origin(kind) is Literal:
    found = get_args(kind)
  elif isinstance(value, bool):
    found = (not value,)
  elif isinstance(value, int):
    found = (value + 1, value * 2, value - 1, 10, value + 6, value + 9)
  elif isinstance(value, float):
    found = (value / 2, value + 0.25, value + 1)
  elif isinstance(value, str):
    found = ("x",)
  else:  # a tuple, or None where there may be a number or a tuple
    found = (3, *TUPLES)
  return [other for other in found if other != value]


@functools.cache
def refusal(section: str, config: "Frozen") -> str:
  """Returns why a section is refused, by what reads it; '' where it is not."""
  try:
    if section in PARTS:
      make_part(section, config.value, {"arrays": TREE, "branch_levels": ()})
    else:
      unpack(SECTIONS[section] if section else RunConfig, config.value, section)
  except UserError as error:
    return str(error)
  return ""


class Frozen:
  """A section that its text stands for: many configs have the same."""

  def __init__(self, value):
    self.value, self.text = value, repr(value)

  def __eq__(self, other):
    return self.text == other.text

  def __hash__(self):
    return hash(self.text)


def set_to(config: dict, key: str, other: Any) -> str:
  """Returns why a value of a key is refused; '' where it is what the config has then."""
  text = other if isinstance(other, str) else repr(other)
  section, _, name = key.rpartition(".")
  more = [text for text in TOGETHER.get(key, "").split() if text.partition("=")[0][9:] in keys_of(config)]
  try:
    found = overridden(config, [*more, f"--config.{key}={text}"])
  except UserError as error:
    return str(error)
  if key == "data.size":  # which sets data.crop and data.resize
    found, _ = with_weights(found)
  part = Frozen(found[section] if section else found)
  if (found[section] if section else found)[name] != other:
    return f"{key} has {part.value} and not {other!r}"
  return refusal(section, part)


def keys_of(config: dict) -> set[str]:
  return {f"{section}.{key}" for section in (*SECTIONS, *PARTS) for key in section_fields(section, config[section])}


@pytest.mark.parametrize("name", names())
def test_each_field_can_be_set(name):
  config = without_weights(load_config(name))
  fields = {key: field for key, field in top_fields().items() if key not in (*SECTIONS, *PARTS)}
  for section in (*SECTIONS, *PARTS):
    for key, field in section_fields(section, config[section]).items():
      if section in SECTIONS or key != "name":
        fields[f"{section}.{key}"] = field
  for key, field in fields.items():
    section, _, own = key.rpartition(".")
    value = (config[section] if section else config)[own]
    whys = []
    for other in others(key, value, field.kind):
      whys.append(set_to(config, key, other))
      if not whys[-1]:
        break
    assert whys and not whys[-1], f"{key}: {whys}"


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, table in PARTS.items() for name in table])
def test_each_part_can_be_named(part, name):
  needed = ["--config.backbone.width=4"] if name == "features" else []
  found = load_config("quickstart", [f"--config.{part}.name={name}", *needed])
  assert found[part]["name"] == name
  why = "config.init.weights, and none is named" if name == PRETRAINED else ""
  assert refusal(part, Frozen(found[part])).endswith(why)


@pytest.mark.parametrize("name", HEADS)
def test_each_attribute_of_a_head_is_a_field_or_given_by_tree_and_model(name):
  given = {"arrays", "branch_levels", "dtype", "stop_at", "parent", "name"}
  attributes = {key for key, field in fields_of(HEADS[name]).items() if field.default is not REQUIRED}
  assert attributes - given == part_fields("head", name).keys()


@pytest.mark.parametrize(
  ("spec", "key", "value"),
  [
    ("dhnn_cifar100", "head.output", "sigmoid"),
    ("dhnn_cifar100", "head.strict", True),
    ("dhnn_cifar100", "head.cell", "gru"),
    ("quickstart", "head.dropout", 0.5),
    ("quickstart", "head.reduction", "mean"),
    ("quickstart", "backbone.dropout", 0.5),
    ("quickstart", "optim.b1", 0.5),
  ],
)
def test_fields_that_no_config_sets_can_be_set(spec, key, value):
  assert set_to(load_config(spec), key, value) == ""
