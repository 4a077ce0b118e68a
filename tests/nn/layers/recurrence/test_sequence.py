import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.nn.layers.recurrence.sequence import LSTM


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def equations_2_to_7(inputs, weights):
  """Runs the LSTM over `inputs[b, l, 4 w]`, which hold W_x x + W_v v + b of the gates i, f, o, g."""
  b, steps, four = inputs.shape
  width = four // 4
  h, c, states = np.zeros((b, width)), np.zeros((b, width)), []
  for t in range(steps):
    i, f, o, g = (
      inputs[:, t, n * width : (n + 1) * width] + h @ weights[:, n * width : (n + 1) * width] for n in range(4)
    )
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    states.append(h)
  return np.stack(states, axis=1)


def test_the_scan_is_the_loop_is_the_equations(rng, key):
  lstm = LSTM(width=5)
  inputs = rng.normal(size=(3, 4, 20)).astype(np.float32)

  @jax.jit
  def run(inputs):
    variables = lstm.init(key, inputs)
    carry, steps = lstm.initial_carry(3), []
    for t in range(4):
      carry, h = lstm.apply(variables, carry, inputs[:, t], method="step")
      steps.append(h)
    return variables, lstm.apply(variables, inputs), jnp.stack(steps, axis=1)

  variables, scanned, steps = jax.device_get(run(inputs))
  np.testing.assert_allclose(scanned, equations_2_to_7(inputs, variables["params"]["hidden"]["kernel"]), atol=1e-6)
  np.testing.assert_allclose(steps, scanned, atol=1e-6)


def test_each_gate_starts_orthogonal_and_bf16_keeps_a_float32_state(key):
  lstm = LSTM(width=4, dtype=jnp.bfloat16)
  inputs = jnp.zeros((2, 3, 16), jnp.bfloat16)
  variables = jax.jit(lstm.init)(key, inputs)
  kernel = variables["params"]["hidden"]["kernel"]
  assert kernel.dtype == jnp.float32 and jax.eval_shape(lstm.apply, variables, inputs).dtype == jnp.float32
  for gate in np.split(np.asarray(kernel), 4, axis=1):
    np.testing.assert_allclose(gate @ gate.T, np.eye(4), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)], ids=["float32", "bfloat16"])
def test_the_gradient_of_the_scan_is_that_of_its_steps(steps, dtype, tolerance, rng, key):
  lstm = LSTM(width=5, dtype=dtype)
  inputs = rng.normal(size=(3, steps, 20)).astype(dtype)
  cotangent = jax.device_put(rng.normal(size=(3, steps, 5)).astype(np.float32))
  variables = jax.jit(lstm.init)(key, inputs)

  def step_by_step(variables, inputs):
    carry, states = lstm.initial_carry(3), []
    for t in range(steps):
      carry, h = lstm.apply(variables, carry, inputs[:, t], method="step")
      states.append(h)
    return jnp.stack(states, axis=1)

  @jax.jit
  def states_and_gradients(variables, inputs):
    return [(y, pull(cotangent)) for y, pull in (jax.vjp(f, variables, inputs) for f in (lstm.apply, step_by_step))]

  scanned, looped = states_and_gradients(variables, inputs)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), scanned) == jax.tree.map(lambda x: (x.shape, x.dtype), looped)
  assert np.any(looped[1][0]["params"]["hidden"]["kernel"]) == (steps > 1)
  for found, expected in zip(jax.tree.leaves(scanned), jax.tree.leaves(looped), strict=True):
    found, expected = (np.asarray(x, np.float32) for x in (found, expected))
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def test_for_its_gradient_a_batch_that_is_split_over_devices_is_not_gathered(rng, key, monkeypatch):
  lstm = LSTM(width=4)
  inputs = rng.normal(size=(8, 3, 16)).astype(np.float32)
  variables = jax.jit(lstm.init)(key, inputs)
  gradient = lambda variables, inputs: jax.grad(lambda v: jnp.sum(lstm.apply(v, inputs) ** 2))(variables)  # noqa: E731
  mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
  split, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("batch",), ()))
  placed = jax.device_put((variables, inputs), (whole, split))
  compiled = jax.jit(gradient).lower(*placed).compile()
  text = compiled.as_text()
  assert "all-reduce" in text  # of the kernel's gradient
  assert not any(op in text for op in ("all-gather", "all-to-all", "collective-permute"))
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  alone = jax.jit(lambda *given: gradient(*given))(variables, inputs)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), compiled(*placed), alone)
