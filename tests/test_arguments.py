"""An argument of a wrong kind or shape gets a sentence, also without the checks that the tests switch on."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import hierjax
from hierjax.config import checked, fields_of, misfit
from hierjax.errors import UserError
from hierjax.functional.tree_arrays import tree_arrays
from hierjax.nn.registry import PARTS
from hierjax.runs.run import RunConfig
from hierjax.training.sections import SECTIONS
from hierjax.tree.builders import from_paths

pytestmark = pytest.mark.usefixtures("without_shape_checks")

TREE = tree_arrays(from_paths([("animal", "dog"), ("animal", "cat"), ("thing", "cup")]))
WRONG = (2.5, "x", None, True, (), ("x",), {"a": 1}, 3, [1])
NEEDED = {  # of those that cannot be made without
  "Conversion": {"kind": "pool", "size": 8},
  "PrecomputedFeatures": {"width": 8},
  "ForeignBackbone": {"module": hierjax.small_resnet()},
  "ModelConfig": {"backbone": {}, "head": {}},
  "RunConfig": {key: {} for key in (*SECTIONS, *PARTS)},
}
OTHERS = ("Conversion", "ForeignBackbone", "ModelConfig", "Purpose", "SpatialRNN")
BUILT = {
  **{build.__name__: build for build in (*SECTIONS.values(), RunConfig)},
  **{name: getattr(hierjax, name) for name in OTHERS},
  **{getattr(b, "__name__", name): b for t in PARTS.values() for name, b in t.items() if inspect.getmodule(b)},
}


@pytest.mark.parametrize("name", BUILT)
def test_each_field_refuses_each_value_of_another_kind(name):
  build, needed = BUILT[name], NEEDED.get(name, {})
  if hasattr(build, "for_tree"):
    build, needed = build.for_tree, {"arrays": TREE}
  for key, field in fields_of(build).items():
    for value in WRONG:
      if misfit(value, field.kind) and key not in ("arrays", "branch_levels", "module", "parent", "name"):
        with pytest.raises(UserError, match=rf"{key}|strategy"):
          build(**needed | {key: value})


LOGITS, NODES, PATHS = jnp.zeros((4, 5)), jnp.zeros(4, jnp.int32), jnp.zeros((4, 2), jnp.int32)


@pytest.mark.parametrize(
  ("name", "arguments", "wrong"),
  [
    ("hierarchical_cross_entropy", (LOGITS, NODES[:, None]), r"nodes = int32\[4, 1\]: must be an array Int\[b\]"),
    ("soft_label_cross_entropy", (LOGITS, NODES[:3]), r"nodes = int32\[3\]"),
    ("smoothed_cross_entropy", (LOGITS, NODES[:2]), r"nodes = int32\[2\]"),
    ("soft_max_margin", (LOGITS, NODES.astype(jnp.float32)), r"nodes = float32\[4\]: must be an array Int"),
    ("subtree_cross_entropy", (LOGITS[0], NODES), r"logits = float32\[5\]: must be an array Float\[b m\]"),
    ("path_cross_entropy", (LOGITS, PATHS), r"logits = float32\[4, 5\]: must be an array Float\[b l o\]"),
    ("path_cross_entropy", (LOGITS[:, None].repeat(3, axis=1), PATHS), r"paths = int32\[4, 2\]"),
    ("conditional_cross_entropy", (LOGITS, NODES), r"paths = int32\[4\]: must be an array Int\[b l\]"),
    ("end_cross_entropy", (LOGITS, PATHS[:2]), r"paths = int32\[2, 2\]"),
    ("adapt", (LOGITS, np.ones(2, np.float32)), r"alpha = float32\[2\]: must be an array Float\[\] or a finite number"),
  ],
)
def test_arrays_that_do_not_fit_are_named_with_their_shapes(name, arguments, wrong):
  with pytest.raises(UserError, match=rf"^{name}: {wrong}"):
    getattr(hierjax, name)(*arguments, TREE)


def test_scalars_of_numpy_are_numbers_and_arrays_of_any_library_arrays():
  @checked
  def scaled(x: Float[Array, "b"], by: float, times: int = 1):
    return x * by * times

  assert scaled(np.ones(2, np.float32), np.float32(2), np.int64(3)).tolist() == [6, 6]
  with pytest.raises(UserError, match=r"times = float32\[\]: must be a whole number"):
    scaled(np.ones(2, np.float32), 2.0, np.float32(3))
