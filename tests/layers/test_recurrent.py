import jax
import jax.numpy as jnp
import numpy as np

from hierjax.layers.recurrent import LSTM


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
  inputs = jnp.asarray(rng.normal(size=(3, 4, 20)).astype(np.float32))
  variables = jax.jit(lstm.init)(key, inputs)
  scanned = lstm.apply(variables, inputs)
  np.testing.assert_allclose(
    scanned, equations_2_to_7(np.asarray(inputs), np.asarray(variables["params"]["hidden"]["kernel"])), atol=1e-6
  )
  carry = lstm.initial_carry(3)
  for t in range(4):
    carry, h = lstm.apply(variables, carry, inputs[:, t], method="step")
    np.testing.assert_allclose(h, scanned[:, t], atol=1e-6)


def test_each_gate_starts_orthogonal_and_bf16_keeps_a_float32_state(key):
  lstm = LSTM(width=4, dtype=jnp.bfloat16)
  inputs = jnp.zeros((2, 3, 16), jnp.bfloat16)
  variables = jax.jit(lstm.init)(key, inputs)
  kernel = variables["params"]["hidden"]["kernel"]
  assert kernel.dtype == jnp.float32 and jax.eval_shape(lstm.apply, variables, inputs).dtype == jnp.float32
  for gate in np.split(np.asarray(kernel), 4, axis=1):
    np.testing.assert_allclose(gate @ gate.T, np.eye(4), atol=1e-5)
