import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hierjax.errors import UserError
from hierjax.training.optim import (
  OptimConfig,
  frozen_statistics,
  make_optimizer,
  match_groups,
  parameter_names,
)

PARAMS = {
  "backbone": {"conv": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}},
  "head": {"kernel": jnp.ones(4)},
}
ALL = ((".*", 1.0),)


def run(config, grads, lr=0.1, params=PARAMS):
  optimizer = make_optimizer(config, params)
  state = optimizer.init(params)
  for g in grads:
    params, state, norm = optimizer.update(g, state, params, jnp.float32(lr))
  return params, state, norm


def random_grads(n):
  rng = np.random.default_rng(1)
  return [jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), PARAMS) for _ in range(n)]


def test_sgd_is_momentum_with_coupled_decay():
  grads = random_grads(3)
  got, _, _ = run(OptimConfig(momentum=0.9, decay=(("bias$", 0.0), (".*", 0.01)), lr_groups=ALL), grads)
  for name, decay in (("kernel", 0.01), ("bias", 0.0)):
    p = np.asarray(PARAMS["backbone"]["conv"][name])
    v = np.zeros_like(p)
    for g in grads:
      v = 0.9 * v + np.asarray(g["backbone"]["conv"][name]) + decay * p
      p = p - 0.1 * v
    np.testing.assert_allclose(got["backbone"]["conv"][name], p, rtol=1e-6)


def test_adamw_is_optax_adamw():
  grads = random_grads(3)
  got, _, _ = run(OptimConfig(name="adamw", decay=((".*", 0.05),)), grads)
  reference = optax.adamw(0.1, weight_decay=0.05)
  params, state = PARAMS, reference.init(PARAMS)
  for g in grads:
    with jax.numpy_dtype_promotion("standard"):
      updates, state = reference.update(g, state, params)
    params = optax.apply_updates(params, updates)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, params)


def test_learning_rate_groups_scale_the_step():
  grads = random_grads(1)
  config = OptimConfig(decay=((".*", 0.0),), lr_groups=(("^head/", 10.0), (".*", 1.0)))
  got, _, _ = run(config, grads)
  np.testing.assert_allclose(got["head"]["kernel"], 1.0 - grads[0]["head"]["kernel"], rtol=1e-5)


def test_frozen_parameters_and_their_state_keep_their_bits_and_leave_the_norm():
  grads = random_grads(2)
  config = OptimConfig(name="adamw", lr_groups=(("^backbone/", None), (".*", 1.0)))
  params, state, norm = run(config, grads)
  jax.tree.map(np.testing.assert_array_equal, params["backbone"], PARAMS["backbone"])
  assert not np.array_equal(params["head"]["kernel"], PARAMS["head"]["kernel"])
  adam = state[0]
  jax.tree.map(lambda m: np.testing.assert_array_equal(m, 0), adam.mu["backbone"])
  np.testing.assert_allclose(norm, np.linalg.norm(grads[1]["head"]["kernel"]), rtol=1e-6)


def test_clipping_bounds_the_whole_gradient():
  grads = [jax.tree.map(lambda g: 100 * g, random_grads(1)[0])]
  got, _, norm = run(OptimConfig(clip_norm=1.0, decay=((".*", 0.0),)), grads, lr=1.0)
  step = optax.tree.norm(jax.tree.map(lambda a, b: a - b, got, PARAMS))
  np.testing.assert_allclose(step, 1.0, rtol=1e-5)
  assert norm > 100


def test_groups_are_clipped_by_their_own_norms():
  """The first regex counts, the rest is a group, and a group whose norm is small keeps its gradient."""
  grads = jax.tree.map(lambda g: 100 * g, random_grads(1)[0])
  grads["head"] = jax.tree.map(lambda g: 1e-4 * g, grads["head"])
  config = OptimConfig(clip_norm=1.0, clip_groups=("head", "kernel"), decay=((".*", 0.0),))
  got, *_ = run(config, [grads], lr=1.0)
  taken = jax.tree.map(lambda before, after: before - after, PARAMS, got)
  np.testing.assert_allclose(optax.tree.norm(taken["backbone"]["conv"]["kernel"]), 1.0, rtol=1e-5)
  np.testing.assert_allclose(optax.tree.norm(taken["backbone"]["conv"]["bias"]), 1.0, rtol=1e-5)
  np.testing.assert_allclose(taken["head"]["kernel"], grads["head"]["kernel"], rtol=1e-4)
  for wrong, message in (("head", "must be a tuple"), (("(",), "'(' is not a valid regex")):
    with pytest.raises(UserError, match=re.escape(message)):
      OptimConfig(clip_groups=wrong)


def test_first_match_counts_and_every_name_must_match():
  names = parameter_names(PARAMS)
  assert names["backbone"]["conv"]["bias"] == "backbone/conv/bias"
  found = match_groups(names, (("bias", 1.0), ("conv", 2.0), ("", 3.0)), "optim.decay")
  assert found == {"backbone": {"conv": {"kernel": 2.0, "bias": 1.0}}, "head": {"kernel": 3.0}}
  with pytest.raises(UserError, match=r"config\.optim\.decay: .*'head/kernel'"):
    match_groups(names, (("conv", 2.0),), "optim.decay")
  with pytest.raises(UserError, match="regex, value"):
    match_groups(names, (("(", 2.0),), "optim.decay")


def test_some_layers_can_learn_ten_times_as_fast():
  """As Zuo et al. IV-B3 fine-tune: the recurrent layers, their links among them, against all others."""
  fast = {"neck/context/scale_1/row_kernel", "neck/context/scale_1/bias", "neck/context/link_0_1/kernel"}
  slow = {"backbone/conv/kernel", "neck/hidden_0/kernel", "head/output/kernel"}
  start, *grads = (
    {name: jnp.asarray(np.random.default_rng(seed).normal(size=4), jnp.float32) for name in sorted(fast | slow)}
    for seed in (0, *range(1, 4))
  )
  plain = dict(momentum=0.9, decay=((".*", 0.0),))
  grouped, _, _ = run(OptimConfig(lr_groups=(("^neck/context/", 10.0), *ALL), **plain), grads, params=start)
  alike, _, _ = run(OptimConfig(lr_groups=ALL, **plain), grads, params=start)
  for name in start:
    factor = 10 if name in fast else 1
    np.testing.assert_allclose(grouped[name] - start[name], factor * (alike[name] - start[name]), rtol=1e-4, atol=1e-6)


def test_statistics_of_frozen_layers_are_frozen_and_whole_parts_run_in_evaluation_mode():
  variables = {
    "params": PARAMS,
    "batch_stats": {"backbone": {"bn": {"mean": jnp.zeros(3)}}, "head": {"mean": jnp.zeros(1)}},
  }
  config = OptimConfig(lr_groups=(("^backbone/", None), (".*", 1.0)))
  frozen, parts = frozen_statistics(config, variables)
  assert frozen == {"batch_stats": {"backbone": {"bn": {"mean": True}}, "head": {"mean": False}}}
  assert parts == ("backbone",)
  assert frozen_statistics(OptimConfig(lr_groups=(("conv/bias", None), (".*", 1.0))), variables)[1] == ()


@pytest.mark.parametrize("key", ["decay", "lr_groups"])
@pytest.mark.parametrize("group", [(".*", "x"), (1,), (".*", -0.1), (".*", float("nan")), (".*", True), (3, 0.1)])
def test_groups_are_pairs_of_a_regex_and_a_number_of_0_or_more(key, group):
  with pytest.raises(UserError, match=rf"config\.optim\.{key}: {re.escape(repr(group))} must be a pair of a regex and"):
    OptimConfig(**{key: (group, (".*", 1.0))})


def test_an_unknown_optimiser_lists_the_choices():
  with pytest.raises(UserError, match="adamw, sgd"):
    make_optimizer(OptimConfig(name="adamax"), PARAMS)


def test_layer_decay_multiplies_the_rates_of_stages_from_the_last_one_up():
  names = ("stem/conv", "stages_0/conv", "stages_1/conv", "stages_2/conv", "top/fc")
  params = {"backbone": {}, "head": {"kernel": jnp.ones(2)}}
  for name in names:
    outer, inner = name.split("/")
    params["backbone"][outer] = {inner: {"kernel": jnp.ones(2)}}
  config = OptimConfig(lr_groups=(("^backbone/", 0.1), (".*", 1.0)), layer_decay=0.5)
  factors = make_optimizer(config, params).factors
  found = [factors["backbone"][name.split("/")[0]][name.split("/")[1]]["kernel"] for name in names]
  np.testing.assert_allclose(found, [0.0125, 0.025, 0.05, 0.1, 0.1])
  assert factors["head"]["kernel"] == 1.0
  assert make_optimizer(OptimConfig(lr_groups=ALL), params).factors["backbone"]["stem"]["conv"]["kernel"] == 1.0


@pytest.mark.parametrize(
  ("names", "factors"),
  [
    (("trunk_0", "trunk_1", "branches_0/stages_0", "branches_1/stages_1"), (0.125, 0.25, 0.5, 1)),
    (("branches_0/stem", "branches_0/stages_0", "branches_1/stages_1", "branches_1/top"), (0.25, 0.5, 1, 1)),
    (("trunk_0", "trunk_1", "branches_0/top"), (0.5, 1, 1)),
  ],
  ids=["a stage is shared", "nothing is", "all stages are"],
)
def test_layer_decay_counts_the_stages_of_a_merged_backbone(names, factors):
  params = {"backbone": {f"{name}/w": jnp.ones(2) for name in names}}
  found = make_optimizer(OptimConfig(lr_groups=ALL, layer_decay=0.5), params).factors["backbone"]
  assert [found[f"{name}/w"] for name in names] == list(factors)


@pytest.mark.parametrize(
  ("field", "value"), [("layer_decay", 0.0), ("layer_decay", 1.5), ("keep_statistics", ("body",))]
)
def test_values_of_fine_tuning_out_of_range(field, value):
  with pytest.raises(UserError, match=rf"config\.optim\.{field}"):
    OptimConfig(**{field: value})


def test_parts_that_keep_their_statistics_run_as_in_evaluation_while_they_train():
  variables = {"params": PARAMS, "batch_stats": {"backbone": {"norm": {"mean": jnp.zeros(3)}}}}
  _, parts = frozen_statistics(OptimConfig(keep_statistics=("backbone",)), variables)
  assert parts == ("backbone",)
  assert frozen_statistics(OptimConfig(), variables)[1] == ()
  frozen = make_optimizer(OptimConfig(keep_statistics=("backbone",)), PARAMS).frozen
  assert not any(jax.tree.leaves(frozen))


def test_layer_decay_of_a_backbone_without_stages_is_refused():
  with pytest.raises(UserError, match=r"config\.optim\.layer_decay = 0\.5: the backbone has no parameters of stages"):
    make_optimizer(OptimConfig(layer_decay=0.5), PARAMS)
