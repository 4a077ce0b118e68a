import pytest

from hierjax.data.config import DataConfig
from hierjax.data.open_source import open_source
from hierjax.data.sources import shapes
from hierjax.data.split_names import SPLITS, split_name
from hierjax.errors import UserError


def test_val_is_accepted_for_validation():
  assert [split_name(text) for text in (*SPLITS, "val", " Val ", "DEV")] == [*SPLITS, *["validation"] * 3]
  config = DataConfig(examples=12)
  short, long = (open_source(config, shapes.tree(), name) for name in ("val", "validation"))
  assert len(short) == len(long) == 2 and (short.nodes == long.nodes).all()


@pytest.mark.parametrize(("text", "nearest"), [("tset", "test"), ("validatoin", "validation"), ("", "")])
def test_an_unknown_split_lists_the_choices_and_the_nearest_one(text, nearest):
  with pytest.raises(UserError) as error:
    split_name(text)
  assert repr(text) in str(error.value) and all(name in str(error.value) for name in (*SPLITS, "val"))
  assert (f"did you mean {nearest!r}" in str(error.value)) == bool(nearest)
