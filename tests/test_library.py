"""The library in research code: no config, no flag, no run folder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hierjax as hj


def test_train_over_seeds_and_decode(toy_tree):
  images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
  paths = jnp.asarray(toy_tree.encode([5, 6, 3, 4]))

  tree = hj.tree_arrays(toy_tree)
  head = hj.PathRNNHead.for_tree(tree, width=16)
  method = hj.ModelMethod(hj.Classifier(hj.small_resnet(widths=(8, 16)), head), tree)
  optimizer = optax.sgd(0.1, momentum=0.9)

  def init(key):
    variables = method.module.init(key, images)
    return variables, optimizer.init(variables["params"])

  def train_step(state, images, paths):
    variables, opt_state = state

    def loss(params):
      model_state = {**variables, "params": params}
      outputs, changed = method.module.apply(model_state, images, paths, train=True, mutable=["batch_stats"])
      return method.loss(outputs, paths).mean(), changed

    (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    updates, opt_state = optimizer.update(grads, opt_state)
    return ({"params": optax.apply_updates(variables["params"], updates), **changed}, opt_state), value

  states = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 3))
  step = jax.jit(jax.vmap(train_step, in_axes=(0, None, None)))
  losses = []
  for _ in range(20):
    states, values = step(states, images, paths)
    losses.append(values)
  assert losses[0].shape == (3,) and len(np.unique(losses[0])) == 3
  assert (losses[-1] < 0.5 * losses[0]).all()

  one = jax.tree.map(lambda x: x[0], states[0])
  predict = jax.jit(lambda variables, images: method.predict(variables, images, options=hj.DecodeOptions(beam=3)))
  prediction = predict(one, images)
  assert prediction.paths.shape == (4, 3, 3)
  for path in prediction.paths.reshape(-1, 3).tolist():
    assert toy_tree.is_path(path)
