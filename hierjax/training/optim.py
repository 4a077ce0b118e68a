"""The optimiser, with learning rates, weight decay and freezing by the names of parameters.

The update of one parameter p with gradient g, learning rate lr, factor k and weight decay d:

    sgd     m <- momentum m + (g + d p)                              p <- p - lr k m
    adamw   m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
            p <- p - lr k (m' / (sqrt(v') + eps) + d p),   m' = m / (1 - b1^t),  v' = v / (1 - b2^t)

With `nesterov`, sgd's step is along (g + d p) + momentum m.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hierjax.config import checked, lookup, misfit
from hierjax.errors import UserError

Groups = Sequence[Sequence[Any]]  # ordered (regex, value) pairs


@checked
@dataclasses.dataclass(frozen=True)
class OptimConfig:
  """The section `optim` of a config.

  Attributes:
    name: `sgd` (momentum; decay joins the gradient, as the papers have it) or `adamw` (decay joins the update).
    lr: the learning rate for batches of `lr_batch`; it is scaled in proportion to the batch size.
    lr_batch: the batch size that `lr` is given for; 0 for the run's own batch size, so that `lr` is not scaled.
    momentum: of sgd.
    nesterov: whether sgd uses Nesterov momentum.
    b1: decay of adamw's mean of the gradient.
    b2: decay of adamw's mean of the squared gradient.
    eps: added to the root of the latter.
    decay: (regex, weight decay) pairs over parameter names such as `head/cell/kernel`; the first match counts.
    lr_groups: (regex, factor) pairs that multiply the learning rate; None freezes, batch statistics included.
    layer_decay: r, which also multiplies the rates of the backbone's stages: by 1 for the last one, r for the one
      before, and so on, and once more for the stem.
    keep_statistics: those of `backbone`, `neck` and `head` that run as in evaluation while they train: batch norm keeps
      its statistics, and dropout is off.
    clip_norm: the largest norm of the gradient; 0 does not clip.
    clip_groups: regexes over parameter names, one a group. The first regex found in a name gives its group; names
      without a match are the last group. Each group is clipped by its own norm. (): one norm of the whole gradient.
    accumulate: equal parts into which a batch is divided; their gradients are computed in turn, to save memory.
  """

  name: str = "sgd"
  lr: float = 0.1
  lr_batch: int = 0
  momentum: float = 0.9
  nesterov: bool = False
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  decay: Groups = (("(bias|scale)$", 0.0), (".*", 1e-4))
  lr_groups: Groups = ((".*", 1.0),)
  layer_decay: float = 1.0
  keep_statistics: Sequence[str] = ()
  clip_norm: float = 0.0
  clip_groups: Sequence[str] = ()
  accumulate: int = 1

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    least = {"lr": 0.0, "lr_batch": 0, "momentum": 0.0, "b1": 0.0, "b2": 0.0, "clip_norm": 0.0, "accumulate": 1}
    values = dataclasses.asdict(self)
    for name, bound in least.items():
      if not values[name] >= bound:
        raise UserError(f"config.optim.{name} = {values[name]!r}: must be {bound} or more")
    if any(len(group) == 2 and group[1] is None for group in self.decay):
      raise UserError("config.optim.decay: None is for lr_groups, where it freezes; no decay is 0.0")
    for name, groups, words in (("decay", self.decay, ""), ("lr_groups", self.lr_groups, ", or None, which freezes")):
      for group in groups:
        pair = len(group) == 2 and isinstance(group[0], str)
        frozen = pair and group[1] is None and name == "lr_groups"
        if not frozen and not (pair and not misfit(group[1], float) and group[1] >= 0):
          raise UserError(f"config.optim.{name}: {group!r} must be a pair of a regex and a number of 0 or more{words}")
    if not 0 < self.layer_decay <= 1:
      raise UserError(f"config.optim.layer_decay = {self.layer_decay}: must be above 0 and at most 1")
    if not set(self.keep_statistics) <= {"backbone", "neck", "head"}:
      raise UserError(
        f"config.optim.keep_statistics = {self.keep_statistics!r}: name backbone, neck or head, as a tuple"
      )
    for pattern in self.clip_groups:
      try:
        re.compile(pattern)
      except re.error as error:
        raise UserError(f"config.optim.clip_groups: {pattern!r} is not a valid regex ({error})") from None

  def peak_lr(self, batch_size: int) -> float:
    """Returns the learning rate for batches of this size."""
    return self.lr * batch_size / self.lr_batch if self.lr_batch else self.lr


def parameter_names(params: Any) -> Any:
  """Returns a tree like `params` that holds each parameter's name: `head/cell/kernel`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params
  )


def match_groups(names: Any, groups: Groups, where: str) -> Any:
  """Returns, for each name, the value of the first (regex, value) pair whose regex is found in it.

  Raises:
    UserError: an entry is not such a pair, a regex is invalid, or a name has no match.
  """
  try:
    compiled = [(re.compile(pattern), value) for pattern, value in groups]
  except (re.error, TypeError, ValueError) as error:
    raise UserError(f"config.{where} must be a list of (regex, value) pairs: {error}") from None

  def value_of(name: str) -> Any:
    for pattern, value in compiled:
      if pattern.search(name):
        return value
    raise UserError(f"config.{where}: no regex matches the parameter {name!r}; end the list with ('.*', value)")

  return jax.tree.map(value_of, names)


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """A gradient transformation with its learning-rate factors and frozen parameters.

  Attributes:
    transform: turns gradients into directions; the learning rate is applied by `update`.
    factors: a tree of floats, the learning rate's factor of each parameter; 0 where it is frozen.
    frozen: a tree of bools.
  """

  transform: optax.GradientTransformation
  factors: Any
  frozen: Any

  def init(self, params: Any) -> Any:
    """Returns the optimiser's state."""
    return self.transform.init(params)

  def update(self, grads: Any, state: Any, params: Any, lr: jax.Array) -> tuple[Any, Any, jax.Array]:
    """Returns new parameters, the new state, and the gradient's norm; frozen leaves keep their bits."""
    grads = jax.tree.map(lambda g, frozen: jnp.zeros_like(g) if frozen else g, grads, self.frozen)
    norm = optax.tree.norm(grads)
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
      directions, new_state = self.transform.update(grads, state, params)

    def step(param: jax.Array, direction: jax.Array, factor: float, frozen: bool) -> jax.Array:
      return param if frozen else (param - lr * factor * direction).astype(param.dtype)

    new_params = jax.tree.map(step, params, directions, self.factors, self.frozen)
    held = optax.tree_map_params(
      self.transform, lambda _, frozen: frozen, new_state, self.frozen, transform_non_params=lambda _: False
    )
    new_state = jax.tree.map(lambda new, old, keep: old if keep else new, new_state, state, held)
    return new_params, new_state, norm


def make_optimizer(config: OptimConfig, params: Any, own_counts: bool = False) -> Optimizer:
  """Builds the optimiser for parameters of these names.

  Args:
    config: the section `optim`.
    params: the parameters, or their shapes.
    own_counts: whether Adam counts the steps of each parameter separately; needed where some are frozen for a time.

  Raises:
    UserError: as `match_groups`.
  """
  names = parameter_names(params)
  factors = match_groups(names, config.lr_groups, "optim.lr_groups")
  is_none = lambda x: x is None  # noqa: E731
  frozen = jax.tree.map(lambda f: f is None, factors, is_leaf=is_none)
  decays = _layer_factors(names, config.layer_decay)
  factors = jax.tree.map(lambda f, d: 0.0 if f is None else float(f) * d, factors, decays, is_leaf=is_none)
  decay = match_groups(names, config.decay, "optim.decay")
  decayed = _add_decay(decay)
  adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
  kinds = {
    "sgd": lambda: [decayed, optax.trace(config.momentum, config.nesterov)],
    "adamw": lambda: [_with_own_counts(adam) if own_counts else adam, decayed],
  }
  chain = lookup(kinds, config.name, "optim.name")()
  if config.clip_norm > 0:
    chain.insert(0, _clip(config, names))
  return Optimizer(optax.chain(*chain), factors, frozen)


def _layer_factors(names: Any, decay: float) -> Any:
  """Returns `layer_decay` to the power of the number of stages after each parameter's; 1 outside the backbone."""
  shared = max(_count(names, r"^backbone/trunk_(\d+)/") - 1, 0)  # stages of a merged backbone's trunk, its stem apart
  own = _count(names, r"^backbone/(?:branches_\w+/)?stages_(\d+)/")
  if decay != 1 and not shared + own:
    raise UserError(f"config.optim.layer_decay = {decay}: the backbone has no parameters of stages_N; set it to 1")
  part = re.compile(r"^backbone/(?:branches_\w+/)?(?:(trunk|stages)_(\d+)|(top))?")

  def factor(name: str) -> float:
    match = part.match(name)
    if match is None or match[3]:
      return 1.0
    if match[1] == "trunk":
      return float(decay ** (own + shared - int(match[2])))
    return float(decay ** (own - 1 - int(match[2]) if match[2] else own + shared))

  return jax.tree.map(factor, names)


def _count(names: Any, pattern: str) -> int:
  """Returns how many numbers, from 0, the names have in a place; 0 for none."""
  found = (re.search(pattern, name) for name in jax.tree.leaves(names))
  return max((int(match[1]) + 1 for match in found if match), default=0)


def _clip(config: OptimConfig, names: Any) -> optax.GradientTransformation:
  clip = optax.clip_by_global_norm(config.clip_norm)
  if not config.clip_groups:
    return clip
  groups = [(pattern, str(i)) for i, pattern in enumerate((*config.clip_groups, ".*"))]
  labels = match_groups(names, groups, "optim.clip_groups")
  return optax.multi_transform({label: clip for _, label in groups}, labels)


def _with_own_counts(adam: optax.GradientTransformation) -> optax.GradientTransformation:
  """Returns `adam` with a step count for each parameter, which stays as it is while the parameter is frozen.

  With one count for all parameters, the bias correction 1 - b^t of a parameter that was frozen for a time would use too
  large a t, and its steps would be several times too large.
  """

  def init(params: Any) -> Any:
    return adam.init(params)._replace(count=jax.tree.map(lambda _: jnp.int32(0), params))

  def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
    each = jax.tree.map(lambda g, *own: adam.update(g, optax.ScaleByAdamState(*own)), updates, *state)
    structure = jax.tree.structure((0, optax.ScaleByAdamState(0, 0, 0)))
    found: tuple[Any, Any] = jax.tree.transpose(jax.tree.structure(updates), structure, each)
    return found

  return optax.GradientTransformation(init, update)


def _add_decay(decay: Any) -> optax.GradientTransformation:
  def update(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
    return jax.tree.map(lambda u, p, d: u + d * p if d else u, updates, params, decay), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def frozen_statistics(config: OptimConfig, variables: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
  """Returns the frozen variables other than parameters, and the frozen parts of the module.

  Args:
    config: the section `optim`; None in `lr_groups` freezes batch statistics by their own names as well.
    variables: the module's variables, or their shapes.

  Returns:
    A tree of bools like the variables without the parameters, and the names of the module's parts, such as `backbone`,
    that run with `train=False`: those of `keep_statistics`, and those all of whose parameters are frozen.
  """
  params = variables["params"]

  def frozen(tree: Any) -> Any:
    # A list must cover the parameters; statistics that it does not name are not frozen.
    factors = match_groups(parameter_names(tree), (*config.lr_groups, (".*", 1.0)), "optim.lr_groups")
    return jax.tree.map(lambda factor: factor is None, factors, is_leaf=lambda x: x is None)

  collections = {name: frozen(tree) for name, tree in variables.items() if name != "params"}
  whole = [part for part in params if all(jax.tree.leaves(frozen({part: params[part]})))]
  return collections, tuple(part for part in params if part in whole or part in config.keep_statistics)
