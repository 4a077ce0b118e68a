"""The bounds of numbers in configs, which may be of others."""

import pytest

from hierjax.errors import UserError
from hierjax.nn.registry import make_part


@pytest.mark.parametrize(
  ("section", "key"),
  [
    (dict(name="small_resnet", widths=(4,), blocks=10**6), "blocks"),
    (dict(name="small_resnet", widths=(4,) * 1000, blocks=1), "widths"),
    (dict(name="small_resnet", widths=(10**9,), blocks=1), "widths"),
    (dict(name="small_resnet", widths=(float("inf"),), blocks=1), "widths"),
  ],
)
def test_a_network_that_no_machine_could_build_is_refused_at_once(section, key):
  with pytest.raises(UserError, match=rf"config\.backbone\.{key} = .*: must be at most"):
    make_part("backbone", section, {})


def test_usual_numbers_pass():
  make_part("backbone", dict(name="small_resnet", widths=(4, 8), blocks=3), {"dtype": "float32"})
