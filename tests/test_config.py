"""Sections as arguments: values of a wrong kind or size, and damaged JSON, end in a sentence that names them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from configs import common
from hierjax.config import misfit, read_json
from hierjax.errors import UserError
from hierjax.runs.run import Run


@pytest.mark.parametrize(
  ("kind", "good", "bad"),
  [
    (int, [0, -3, 2**63 - 1], [1.0, True, "1", None, 2**63]),
    (float, [0, 0.5, -1e30, 10**30], [float("nan"), float("inf"), 1e300, 10**400, True, "1", None]),
    (bool, [True], [1, None]),
    (str, ["", "x"], [1, None, ["x"]]),
    (int | None, [None, 1], ["x", 0.5]),
    (Sequence[float], [(), (1, 0.5), [0.5]], ["x", 1.0, (0.5, "x"), (float("nan"),)]),
    (tuple[int | tuple[int, int], ...], [(1, (2, 3))], [(1, (2, 3, 4)), (1, (2, 0.5)), 1]),
    (Sequence[Sequence[Any]], [(("x", None),)], ["x", ("x",)]),
    (Mapping[str, Any], [{}, {"a": 1}], [[1], None, "x"]),
    (Literal["a", "b"], ["a", "b"], ["c", ["a"], 1]),
    (Any, [None, [1], "x"], []),
    (None, [1, "x"], []),
  ],
)
def test_values_are_of_the_kind_of_an_annotation_or_it_is_said_in_words(kind, good, bad):
  assert [misfit(value, kind) for value in good] == [""] * len(good)
  assert all(misfit(value, kind) for value in bad)


@pytest.mark.parametrize(
  ("key", "value", "wanted"),
  [
    ("epochs", float("nan"), r"epochs = nan: must be a finite number"),
    ("epochs", 1e10, r"epochs = 10000000000\.0: .* at most 100,000"),
    ("least_steps", -1, r"least_steps = -1: must be 0, or a number of steps"),
    ("most_steps", -1, r"most_steps = -1: must be 0, or config\.least_steps = 0 or more"),
    ("most_steps", 10**10, r"most_steps = 10000000000: must be 0, or config\.least_steps = 0 or more"),
    ("seed", 2**64, r"seed = 18446744073709551616: must be a whole number, at most"),
    ("batch_size", 16.5, r"batch_size = 16\.5: must be a whole number"),
    ("batch_size", 99999999999, r"batch_size = 99999999999: .* at most 1,000,000"),
    ("eval_every", float("nan"), r"eval_every = nan: must be a finite number"),
    ("checkpoint_every", 1e-310, r"checkpoint_every = 1e-310: must be above 0: 1e-6"),
    ("data", [1], r"data = \[1\]: must be keys and values"),
    ("data.resize", 10**8, r"data\.resize = 100000000: must be from 1 to 9459"),
    ("data.examples", 10**7, r"data\.examples = 10000000: must be 6 or more, and at most 1,398,101, so that"),
    ("data.width", 10**9, r"data\.width = 1000000000: .* at most 1,048,576"),
    ("data.mean", ("a", 0.5, 0.5), r"data\.mean = \('a', 0\.5, 0\.5\): must be a tuple, each entry a finite number"),
    ("data.std", (0.5, 0.5, float("nan")), r"data\.std = .*: must be a tuple, each entry a finite number"),
    ("decode.beam", 10**12, r"decode\.beam = 1000000000000: .* at most 10,000"),
    ("head", {"name": ["a"]}, r"head\.name = \['a'\]: choose from"),
    (
      "backbone",
      {"name": "small_resnet", "widths": ("a",)},
      r"backbone\.widths = \('a',\): must be a tuple, each entry",
    ),
    ("backbone", {"name": "features", "width": 32.0}, r"backbone\.width = 32\.0: must be a whole number"),
    ("backbone", {"name": "alexnet", "lrn_alpha": float("nan")}, r"backbone\.lrn_alpha = nan: must be a finite number"),
    ("neck", {"name": "nosuch"}, r"neck\.name = 'nosuch': choose from context, none"),
  ],
)
def test_a_value_that_no_run_can_have_is_named_with_its_key(key, value, wanted):
  config = common.base().to_dict()
  config["tree"]["source"] = "shapes"
  *sections, last = key.split(".")
  (config[sections[0]] if sections else config)[last] = value
  with pytest.raises(UserError, match=r"^config\." + wanted):
    Run.from_config(config)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"seed": ' + "1" * 5000 + "}", "[1]", "\xff"])
def test_json_that_is_no_object_is_damaged_whatever_it_is(tmp_path, text):
  path = tmp_path / "x.json"
  path.write_bytes(text.encode("latin-1"))
  with pytest.raises(UserError, match=r"x\.json is (damaged: (?!.*sys\.)|not the thing)"):
    read_json(path, "the thing")
