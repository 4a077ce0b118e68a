"""Where weights lie: rules by the names of parameters, over a mesh of `data` x `model` devices.

The images of a batch are divided over all devices. By default each device has all weights, and computes their
gradients for its images; the sum of these is the same on all. A rule divides a weight in one of two ways.

Over `data` it is *kept* in parts: a step gathers it before it uses it, each device computes with the whole weight on
its own images, and of the summed gradient it keeps its part (fully sharded data parallel, FSDP; ZeRO, Rajbhandari et
al. 2020). So a device has less to keep between steps, for the same bytes between the devices.

Over `model` it is *used* in parts, too: a device computes, say, the logits of its own nodes, of all images of its row
of the mesh, whose features the row exchanges first. Neither the weight nor its gradient is ever whole on a device.

The optimiser's state lies as its parameter does; all else, such as batch statistics, is whole on each device. Losses
are those of whole weights but for the order of sums. Checkpoints hold whole arrays, so a run goes on in any layout.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hierjax.config import checked
from hierjax.errors import UserError
from hierjax.functional.tree_arrays import TreeArrays
from hierjax.nn.classifier import ModelMethod
from hierjax.runs import devices
from hierjax.runs.checkpoint import num_bytes
from hierjax.training.optim import Groups, Optimizer, parameter_names
from hierjax.training.state import TrainState, init_state
from hierjax.types import Variables

DATA, MODEL = devices.AXES
FSDP, NODES = "fsdp", "nodes"
_WORDS = f"a tuple with {DATA}, {MODEL} or None for each of its axes, or {FSDP} or {NODES}"


@checked
@dataclasses.dataclass(frozen=True)
class ShardingConfig:
  """The section `sharding` of a config: how devices divide the weights. A run may go on with other values.

  Attributes:
    rules: (regex, axes) pairs over parameter names such as `head/output/kernel`; the first whose regex is found in a
      name counts, and a parameter without one is whole on each device. The axes are a tuple with `data`, `model` or
      None for each axis of the parameter; or a word. `fsdp`: over `data`, the largest axis that divides evenly.
      `nodes`: over `model`, the axis over the nodes of the tree, of output layers, label embeddings and tables; weights
      without such an axis are left to the next rule. A weight that a word cannot divide is whole.
    data: devices along `data`; 0 for all that there are, divided by `model`, but for one where a head trains on kept
      vectors on a CPU.
    model: devices along `model`.
    least: numbers that a weight must have for `fsdp` to divide it: many small ones cost more time than they take room.
  """

  rules: Groups = ()
  data: int = 0
  model: int = 1
  least: int = 4096

  def __post_init__(self) -> None:
    """Raises UserError for a value outside its range."""
    for name, bound in (("data", 0), ("model", 1), ("least", 1)):
      if getattr(self, name) < bound:
        raise UserError(f"config.sharding.{name} = {getattr(self, name)}: must be {bound} or more")
    for rule in self.rules:
      if len(rule) != 2 or not isinstance(rule[0], str):
        raise UserError(f"config.sharding.rules: {rule!r} must be a pair of a regex and {_WORDS}")
      try:
        re.compile(rule[0])
      except re.error as error:
        raise UserError(f"config.sharding.rules: {rule[0]!r} is not a valid regex ({error})") from None
      self._check_axes(rule)

  def _check_axes(self, rule: Sequence[Any]) -> None:
    axes = rule[1]
    unknown = [axes] if isinstance(axes, str) and axes not in (FSDP, NODES) else []
    if not isinstance(axes, str):
      if not isinstance(axes, list | tuple):
        raise UserError(f"config.sharding.rules: the axes of {rule[0]!r}, {axes!r}, must be {_WORDS}")
      unknown = [axis for axis in axes if axis not in (DATA, MODEL, None)]
      named = [axis for axis in axes if axis is not None]
      if len(set(map(str, named))) < len(named):
        raise UserError(f"config.sharding.rules: {rule[0]!r} names an axis of the mesh twice: {axes!r}")
    if unknown:
      raise UserError(f"config.sharding.rules: {rule[0]!r} names {unknown[0]!r}, and must have {_WORDS}")
    if self.model == 1 and (axes == NODES or MODEL in axes):
      raise UserError(
        f"config.sharding.rules: {rule[0]!r} divides over {MODEL}, and config.sharding.model = 1: set the number of "
        "devices that divide it"
      )

  def mesh(self, alone: bool = False) -> Mesh:
    """Returns all devices of all processes as a grid, or as a single row where `model` is 1.

    Args:
      alone: whether one device of a CPU is faster than several; it is taken unless `data`, `model` or `rules` ask for
        more.

    Raises:
      UserError: there are not so many.
    """
    mesh = devices.data_mesh()
    asked = bool(self.rules) or self.data > 0 or self.model > 1
    if alone and not asked and jax.process_count() == 1 and jax.default_backend() == "cpu":
      return Mesh(mesh.devices[:1], mesh.axis_names)
    data = self.data or mesh.size // self.model
    if data * self.model != mesh.size:
      sizes = f"config.sharding.data = {self.data}, config.sharding.model = {self.model}"
      fits = ", ".join(str(n) for n in range(1, mesh.size + 1) if mesh.size % n == 0)
      raise UserError(f"{sizes}: they make no grid of the {mesh.size} devices in use; for model, choose from {fits}")
    return mesh if self.model == 1 else Mesh(mesh.devices.reshape(data, self.model), devices.AXES)


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the parameters of a run lie.

  Attributes:
    mesh: the devices.
    kept: a tree like the parameters of `NamedSharding`, between steps; that of gradients, too.
    used: the same within a step. Its parts may differ in size by one entry, where the number does not divide.
    state: a train state of `NamedSharding`: the parameters as in `kept`, and the optimiser's state beside them.
    lines: the bytes of a device, in words.
  """

  mesh: Mesh
  kept: Any
  used: Any
  state: TrainState
  lines: tuple[str, ...]

  @property
  def whole(self) -> NamedSharding:
    """The sharding of what each device has all of."""
    return devices.replicated(self.mesh)

  @property
  def of_step(self) -> tuple[TrainState, NamedSharding]:
    """The sharding of what a train step returns, the state and the metrics."""
    return self.state, self.whole

  @property
  def divides(self) -> bool:
    """Whether any parameter is divided."""
    return any(not own.is_fully_replicated for own in jax.tree.leaves((self.kept, self.used)))

  def in_use(self, params: Any) -> Any:
    """Returns parameters as a step computes with them; jittable."""
    return jax.lax.with_sharding_constraint(params, self.used) if self.divides else params

  def in_parts(self, grads: Any) -> Any:
    """Returns gradients as parameters are kept; jittable."""
    return jax.lax.with_sharding_constraint(grads, self.kept) if self.divides else grads

  def gathered(self, state: TrainState) -> Variables:
    """Returns the variables with weights that are divided over `model` alone, as validation reads them."""
    if not self.divides:
      return state.variables
    over_model = jax.tree.map(lambda own: NamedSharding(self.mesh, without(own.spec, DATA)), self.kept)
    return {**state.variables, "params": jax.jit(_same, out_shardings=over_model)(state.params)}

  def reading(self, method: ModelMethod) -> ModelMethod:
    """Returns the method whose head is given the features of all images of its row of the mesh."""
    if MODEL not in self.mesh.axis_names or not self.divides:
      return method
    rows = NamedSharding(self.mesh, PartitionSpec(DATA))
    return dataclasses.replace(method, module=method.module.clone(head_rows=rows))


def layout_of(
  config: ShardingConfig, method: ModelMethod, variables: Variables, optimizer: Optimizer, mesh: Mesh
) -> Layout:
  """Returns the layout that the rules give to the variables of a method, or to their shapes.

  Args:
    config: the section `sharding`.
    method: the model.
    variables: of its module, or their shapes.
    optimizer: of the run.
    mesh: as `ShardingConfig.mesh` has it.

  Raises:
    UserError: a rule matches no parameter, or names axes that one of its parameters does not have, or an axis that does
      not divide evenly.
  """
  params = variables["params"]
  names = parameter_names(params)
  for pattern, _ in config.rules:
    if not any(re.search(pattern, name) for name in jax.tree.leaves(names)):
      raise UserError(
        f"config.sharding.rules: {pattern!r} matches no parameter's name, such as {jax.tree.leaves(names)[0]}"
      )
  over_nodes = _node_axes(config, method)
  specs = jax.tree.map(partial(_specs, config, mesh, over_nodes), names, params)
  kept, used = (jax.tree.map(lambda _, s, i=i: NamedSharding(mesh, s[i]), names, specs) for i in range(2))
  state = jax.eval_shape(lambda: init_state(variables, optimizer))
  lies = _of_state(state, kept, optimizer, devices.replicated(mesh))
  return Layout(mesh, kept, used, lies, _lines(mesh, state, lies))


def _of_state(state: TrainState, kept: Any, optimizer: Optimizer, whole: NamedSharding) -> TrainState:
  """Returns the sharding of each array of a state: the optimiser's lie as their parameters, all others are whole."""

  def beside(leaf: Any, own: NamedSharding) -> NamedSharding:
    return own if len(leaf.shape) == len(own.spec) else whole  # such as a count of its steps

  of_optimizer = optax.tree_map_params(
    optimizer.transform, beside, state.opt_state, kept, transform_non_params=lambda _: whole
  )
  others: TrainState = jax.tree.map(lambda _: whole, state)
  return dataclasses.replace(others, params=kept, opt_state=of_optimizer)


def _lines(mesh: Mesh, state: TrainState, lies: TrainState) -> tuple[str, ...]:
  """Returns the bytes of a device in words; `state` has shapes."""
  parts = {"weights": (state.params, lies.params), "the optimiser's state": (state.opt_state, lies.opt_state)}
  divided = any(not own.is_fully_replicated for own in jax.tree.leaves(lies.params))
  held = [
    f"{_mib(bytes_a_device(*trees))}{f' of {_mib(num_bytes(trees[0]))}' if divided else ''} MiB of {name}"
    for name, trees in parts.items()
  ]
  grid = " x ".join(f"{size} {name}" for name, size in mesh.shape.items())
  return (f"a device ({grid}) holds {' and '.join(held)}",)


def _specs(
  config: ShardingConfig, mesh: Mesh, over_nodes: Mapping[str, int], name: str, param: Any
) -> tuple[PartitionSpec, PartitionSpec]:
  """Returns the spec with which a parameter is kept, and the one with which it is used."""
  found = (rule for rule in config.rules if re.search(rule[0], name) and (rule[1] != NODES or name in over_nodes))
  rule = next(found, None)
  none = (None,) * len(param.shape)
  if rule is None:
    return PartitionSpec(*none), PartitionSpec(*none)
  axes = rule[1]
  if axes == FSDP:
    large = param.size >= config.least
    return _along(none, _largest_axis(param.shape, mesh.shape[DATA]) if large else None, DATA), PartitionSpec(*none)
  if axes == NODES:
    axis = over_nodes[name]
    even = axis if param.shape[axis] % config.model == 0 else _largest_axis(param.shape, config.model)
    return _along(none, even, MODEL), _along(none, axis, MODEL)
  _check_divides(rule, mesh, name, param.shape)
  return PartitionSpec(*axes), without(PartitionSpec(*axes), DATA)


def _check_divides(rule: Sequence[Any], mesh: Mesh, name: str, shape: tuple[int, ...]) -> None:
  pattern, axes = rule
  if len(axes) != len(shape):
    raise UserError(
      f"config.sharding.rules: {pattern!r} names {len(axes)} axes, {tuple(axes)!r}, and {name} has {len(shape)}, of "
      f"sizes {list(shape)}"
    )
  for axis, size in zip(axes, shape, strict=True):
    if axis is not None and size % mesh.shape[axis]:
      raise UserError(
        f"config.sharding.rules: {pattern!r} divides {name}, of sizes {list(shape)}, over {axis}: {size} does not "
        f"divide by its {mesh.shape[axis]} devices"
      )


def _node_axes(config: ShardingConfig, method: ModelMethod) -> dict[str, int]:
  """Returns the axis over the tree's nodes of each parameter that the word `nodes` divides, by name.

  Raises:
    UserError: the head does not say which these are, or a rule with that word matches none.
  """
  patterns = [pattern for pattern, axes in config.rules if axes == NODES]
  if not patterns:
    return {}
  head = method.module.head
  if not hasattr(head, "weight_axes"):  # a head from outside of this package
    raise UserError(f"config.sharding.rules: {NODES!r} needs a head with weight_axes(tree); see hierjax.nn.heads.axes")
  found = _axes_over_nodes(head, method.tree)
  for pattern in patterns:
    if not any(re.search(pattern, name) for name in found):
      raise UserError(
        f"config.sharding.rules: {pattern!r} matches no parameter with an axis over the tree's nodes, which are "
        f"{', '.join(found)}"
      )
  return found


def _axes_over_nodes(head: Any, tree: TreeArrays) -> dict[str, int]:
  found = {}
  for name, axes in head.weight_axes(tree).items():
    over = [i for i, axis in enumerate(axes) if axis is not None and not isinstance(axis[0], str)]
    if over:
      found[f"head/{name}"] = max(over, key=lambda i: len(axes[i]))
  return found


def _along(none: tuple[None, ...], axis: int | None, name: str) -> PartitionSpec:
  return PartitionSpec(*(name if i == axis else None for i in range(len(none))))


def _largest_axis(shape: tuple[int, ...], parts: int) -> int | None:
  """Returns the largest axis that divides evenly, the last of equal ones; None where there is none."""
  found = [(size, axis) for axis, size in enumerate(shape) if size and size % parts == 0]
  return max(found)[1] if found else None


def without(spec: PartitionSpec, axis: str) -> PartitionSpec:
  """Returns a spec that does not divide over an axis of the mesh."""
  return PartitionSpec(*(None if own == axis else own for own in spec))


def _same(tree: Any) -> Any:
  return tree


def bytes_a_device(tree: Any, shardings: Any) -> int:
  """Returns the bytes that a device holds of arrays, or shapes, with a sharding each."""
  parts = jax.tree.map(lambda x, own: math.prod(own.shard_shape(x.shape)) * x.dtype.itemsize, tree, shardings)
  return sum(jax.tree.leaves(parts))


def _mib(count: int) -> str:
  return f"{count / 2**20:,.1f}"
