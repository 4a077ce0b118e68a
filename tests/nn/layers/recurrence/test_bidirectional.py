"""Recurrences from any state, in both directions, against loops in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hierjax.errors import UserError
from hierjax.nn.layers.recurrence.bidirectional import Bidirectional, Recurrence
from hierjax.nn.layers.recurrence.sequence import LSTM

X = np.asarray(jax.random.normal(jax.random.key(0), (2, 4, 3)))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def numpy_steps(cell, p, x):
  """Returns h after each step, and the last state, of one recurrence over x[l, d]."""
  p = jax.tree.map(lambda w: np.asarray(w, np.float64), p)
  hidden = p["state"]["hidden"]["kernel"]
  h = c = np.zeros(hidden.shape[0])
  steps = []
  for inputs in x @ p["inputs"]["kernel"] + p["inputs"]["bias"]:
    if cell == "lstm":
      i, f, o, g = np.split(inputs + h @ hidden, 4)
      c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
      h = sigmoid(o) * np.tanh(c)
    else:
      (r, z, n), (ur, uz, un) = np.split(inputs, 3), np.split(h @ hidden, 3)
      new = np.tanh(n + sigmoid(r + ur) * (un + p["state"]["bias"]))
      z = sigmoid(z + uz)
      h = (1 - z) * new + z * h
    steps.append(h)
  return np.array(steps), ([h, c] if cell == "lstm" else [h])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_two_layers_both_ways_are_the_equations(cell):
  module = Bidirectional(cell, 5, layers=2)
  variables = jax.jit(module.init)(jax.random.key(1), X)
  variables = jax.tree.map(lambda w: w + np.float32(0.1), jax.device_get(variables))  # no bias is zero
  last, y = jax.device_get(jax.jit(module.apply)(variables, X))
  assert y.shape == (2, 4, 10)
  for example in range(2):
    x = np.asarray(X[example], np.float64)
    for layer in range(2):
      ahead, first = numpy_steps(cell, variables["params"][f"forward_{layer}"], x)
      back, second = numpy_steps(cell, variables["params"][f"backward_{layer}"], x[::-1])
      x = np.concatenate([ahead, back[::-1]], axis=1)
    np.testing.assert_allclose(y[example], x, rtol=1e-4, atol=1e-5)
    for found, a, b in zip(last, first, second, strict=True):
      np.testing.assert_allclose(found[example], np.concatenate([a, b]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_run_goes_on_from_a_state(cell):
  module = Recurrence(cell, 5)

  @jax.jit
  def run(x):
    variables = module.init(jax.random.key(1), x)
    carry, first = module.apply(variables, x[:, :2])
    return module.apply(variables, x), first, module.apply(variables, carry, x[:, 2:], method="run")

  (last, whole), first, (after, second) = run(X)
  np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(after[0], last[0], rtol=1e-5, atol=1e-6)


def test_initial_values():  # READINGS K15
  variables = jax.jit(Recurrence("lstm", 5).init)(jax.random.key(1), X)["params"]
  np.testing.assert_array_equal(variables["inputs"]["bias"], np.repeat([0, 1, 0, 0], 5))
  for kernel in np.split(np.asarray(variables["state"]["hidden"]["kernel"]), 4, axis=1):
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(5), atol=1e-5)


@pytest.mark.parametrize(
  ("cell", "start", "biases"),
  [
    ("lstm", "open", [2, 1, 2, 0]),
    ("lstm", "lasting", [0, 3, 2, 0]),
    ("gru", "open", [0, -1, 0]),
    ("gru", "lasting", [0, 3, 0]),
  ],
)
def test_other_initial_values(cell, start, biases):

  @jax.jit
  def start_of_inputs(x):
    kinds = [Recurrence(cell, 50, start=kind).init(jax.random.key(1), x) for kind in ("usual", start)]
    return [variables["params"]["inputs"] for variables in kinds]

  usual, other = jax.device_get(start_of_inputs(np.zeros((1, 1, 64), np.float32)))
  np.testing.assert_array_equal(other["bias"], np.repeat(biases, 50))
  np.testing.assert_allclose(other["kernel"], 2 * usual["kernel"], rtol=1e-5)


def test_scanned_and_fast_lstm_are_one():
  cell = LSTM(5)

  @jax.jit
  def run():
    inputs = jax.random.normal(jax.random.key(2), (2, 4, 20))
    variables = cell.init(jax.random.key(1), inputs)
    carry = (jnp.zeros((2, 5)),) * 2
    return cell.apply(variables, carry, inputs, method="run")[1], cell.apply(variables, inputs)

  np.testing.assert_allclose(*run(), rtol=1e-5, atol=1e-6)


def test_an_unknown_cell_is_refused():
  with pytest.raises(UserError, match=r"^Recurrence: cell = 'rnn': choose from lstm, gru"):
    jax.eval_shape(Recurrence("rnn", 5).init, jax.random.key(1), X)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("size", [3, 40])
def test_the_whole_kernel_starts_orthogonal(cell, size):
  """Inputs above state, all gates side by side, as in TensorFlow: orthonormal rows, or columns where it is taller."""
  x = np.zeros((2, 4, size), np.float32)
  variables = jax.device_get(jax.jit(Bidirectional(cell, 5, layers=2, whole=True).init)(jax.random.key(1), x))["params"]
  assert len(variables) == 4
  seen = []
  for weights in variables.values():
    kernel = np.concatenate([weights["inputs"]["kernel"], weights["state"]["hidden"]["kernel"]])
    for part in (kernel,) if cell == "lstm" else (kernel[:, :10], kernel[:, 10:]):
      gram = part @ part.T if part.shape[0] <= part.shape[1] else part.T @ part
      np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
    seen.append(kernel[-1, -1])
  assert len(set(seen)) == 4  # drawn anew for each layer and direction


def test_the_whole_kernel_of_a_decoder_starts_orthogonal():
  module = Recurrence("lstm", 5, whole=3)
  weights = jax.jit(module.init)(jax.random.key(1), X)["params"]
  kernel = np.concatenate([weights["inputs"]["kernel"], weights["state"]["hidden"]["kernel"]])
  np.testing.assert_allclose(kernel @ kernel.T, np.eye(8), atol=1e-5)
  with pytest.raises(ValueError, match="the inputs have 3 numbers"):
    jax.eval_shape(Recurrence("lstm", 5, whole=4).init, jax.random.key(1), X)
