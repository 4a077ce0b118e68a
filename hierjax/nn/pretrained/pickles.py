"""The pickles inside PyTorch's files, read by a machine that can build containers and descriptions of tensors alone.

Python's own unpickler with a filter would not do: this one knows the opcodes that PyTorch writes for weights, and has
no instruction that imports a module, calls an object of the file or sets an attribute.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple, cast

MOST_OPCODES = 2_000_000
MOST_DIMENSIONS = 32


class Refused(ValueError):
  """A pickle holds what no file of weights needs; the message is the end of a sentence about the file."""


class Global(NamedTuple):
  """A name `module.thing` in a pickle; nothing is imported."""

  name: str


class Storage(NamedTuple):
  """The numbers that tensors are views of.

  Attributes:
    kind: such as `torch.FloatStorage`.
    key: its name in the file.
    numel: how many numbers it has.
  """

  kind: str
  key: str
  numel: int


class Tensor(NamedTuple):
  """A view of a storage, which lies within it.

  Attributes:
    storage: the storage.
    offset: of the first element, in elements.
    shape: the sizes.
    strides: in elements, 0 or more.
  """

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  @property
  def size(self) -> int:
    """The number of elements."""
    found = 1
    for side in self.shape:
      found *= side
    return found


class _Mark:
  """The opcode MARK, on the stack."""


_MARK = _Mark()
_ORDERED_DICT = "collections.OrderedDict"
_STORAGES = frozenset(
  f"torch.{kind}Storage"
  for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
)


def load(file: io.BufferedIOBase) -> tuple[Any, dict[str, Storage]]:
  """Returns the object of the pickle that starts at the file's position, which is then after it, and its storages.

  Tensors are `Tensor`, and all else is None, bool, int, float, str, bytes, dict, list or tuple. Storages are by key.

  Raises:
    Refused: it holds another global, or something else that weights do not need.
    ValueError: it is damaged.
  """
  machine = _Machine()
  for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
    if count >= MOST_OPCODES:
      raise Refused(f"its pickle has more than {MOST_OPCODES:,} instructions")
    if opcode.name == "STOP":
      return machine.pop(), machine.storages
    machine.take(opcode.name, argument)
  raise ValueError("its pickle has no end")


class _Machine:
  """A stack and a memo, and what each opcode does to them."""

  def __init__(self) -> None:
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}
    self.storages: dict[str, Storage] = {}

  def take(self, name: str, argument: Any) -> None:
    """Carries out an instruction; raises Refused or ValueError."""
    if name in _NOTHING:
      return
    if name in _VALUES:
      self.stack.append(argument)
    elif name in _CONSTANTS:
      self.stack.append(_CONSTANTS[name]())
    elif name in _ACTIONS:
      _ACTIONS[name](self, argument)
    else:
      raise Refused(f"its pickle has the instruction {name}, which no file of weights needs")

  def pop(self) -> Any:
    """Takes the top of the stack; raises ValueError where there is none, or a mark."""
    if not self.stack or self.stack[-1] is _MARK:
      raise ValueError("its pickle takes more from the stack than there is")
    return self.stack.pop()

  def since_mark(self) -> list[Any]:
    """Takes all above the last mark, and the mark."""
    for place in range(len(self.stack) - 1, -1, -1):
      if self.stack[place] is _MARK:
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found
    raise ValueError("its pickle has no mark where it needs one")

  def put(self, number: Any) -> None:
    """Keeps the top of the stack in the memo."""
    self.memo[number] = self.stack[-1] if self.stack and self.stack[-1] is not _MARK else self.pop()

  def get(self, number: Any) -> None:
    """Puts an entry of the memo on the stack."""
    if number not in self.memo:
      raise ValueError("its pickle refers to what is not there")
    self.stack.append(self.memo[number])

  def tuple_of(self, count: int) -> None:
    """Replaces the top of the stack by a tuple of it."""
    items = [self.pop() for _ in range(count)]
    self.stack.append(tuple(reversed(items)))

  def extend(self, items: list[Any]) -> None:
    """Appends items to the list on the stack."""
    found = self._below(list)
    found.extend(items)

  def update(self, items: list[Any]) -> None:
    """Sets keys and values in the dict on the stack."""
    found = self._below(dict)
    if len(items) % 2:
      raise ValueError("its pickle has a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
      found[_key(key)] = value

  def _below(self, kind: type) -> Any:
    if not self.stack or type(self.stack[-1]) is not kind:
      raise Refused(f"its pickle adds to what is no {kind.__name__}")
    return self.stack[-1]

  def global_of(self, name: Any, module: Any) -> None:
    """Puts a name on the stack, if it is one that weights need."""
    if not isinstance(name, str) or not isinstance(module, str):
      raise Refused("its pickle names a global by what is no text")
    full = f"{module}.{name}"
    if full not in _CALLS and full not in _STORAGES:
      raise Refused(_other_global(full))
    self.stack.append(Global(full))

  def call(self) -> None:
    """Carries out REDUCE and NEWOBJ for the few names of `_CALLS`."""
    arguments, name = self.pop(), self.pop()
    if not isinstance(name, Global) or type(arguments) is not tuple or name.name not in _CALLS:
      raise Refused("its pickle calls what is no function that builds weights")
    self.stack.append(_CALLS[name.name](arguments))

  def build(self) -> None:
    """Drops the attributes that BUILD would set: state dicts have `_metadata`, which no weights need."""
    self.pop()
    if not self.stack or type(self.stack[-1]) not in (dict, Tensor):
      raise Refused("its pickle sets attributes of what is neither a dict nor a tensor")

  def persistent(self) -> None:
    """Puts the storage that a persistent id names on the stack."""
    storage = _storage(self.pop())
    if self.storages.setdefault(storage.key, storage) != storage:
      raise Refused("it has two storages of one key")
    self.stack.append(storage)


def _key(key: Any) -> Any:
  if type(key) not in (str, int, float, bool, type(None)):  # the hash of a tuple may take for ever
    raise Refused("its pickle has a key that is neither text nor a number")
  return key


def _other_global(name: str) -> str:
  shown = name if name.isprintable() and len(name) <= 100 else f"{name[:100]!a}..."
  return (
    f"it names {shown}, and hierjax builds tensors and containers alone; of a model that you trust, save the weights "
    "alone with PyTorch: torch.save(model.state_dict(), FILE)"
  )


def _storage(found: Any) -> Storage:
  if type(found) is not tuple or len(found) not in (5, 6) or found[0] != "storage":
    kind = "a whole module" if type(found) is tuple and found[:1] == ("module",) else "an object that is no storage"
    raise Refused(f"it holds {kind}; save the weights alone with PyTorch: torch.save(model.state_dict(), FILE)")
  _, kind, key, _, numel, *view = found
  if not isinstance(kind, Global) or kind.name not in _STORAGES or type(key) is not str or not _is_count(numel):
    raise Refused("it has a storage of an unknown kind")
  if view and view[0] is not None:
    raise Refused("it has a view of a storage, as PyTorch before 0.4 wrote them; save it anew with PyTorch")
  return Storage(kind.name, key, numel)


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
  if not 4 <= len(arguments) <= 7 or not isinstance(arguments[0], Storage):
    raise Refused("it has a tensor without a storage")
  storage, offset, shape, strides = arguments[:4]
  if not (_is_count(offset) and _are_counts(shape) and _are_counts(strides) and len(shape) == len(strides)):
    raise Refused("it has a tensor whose shape, strides or offset are no whole numbers of 0 or more")
  tensor = Tensor(storage, offset, shape, strides)
  last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
  if tensor.size and not (last < storage.numel and tensor.size <= storage.numel):
    raise Refused(f"it has a tensor of shape {shape} that reaches beyond its storage of {storage.numel} numbers")
  return tensor


def _is_count(value: Any) -> bool:
  return type(value) is int and 0 <= value < 2**48


def _are_counts(values: Any) -> bool:
  return type(values) is tuple and len(values) <= MOST_DIMENSIONS and all(map(_is_count, values))


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
  if not arguments or not isinstance(arguments[0], Tensor):
    raise Refused("it has a parameter that is no tensor")
  return arguments[0]


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
  if arguments:  # PyTorch fills it by later instructions; to copy a long list again and again would take for ever
    raise Refused("it has an ordered dict that is made of a list")
  return {}


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
  if len(arguments) != 1 or not _are_counts(arguments[0]):
    raise Refused("it has a shape that is not made of whole numbers")
  found: tuple[int, ...] = arguments[0]
  return found


_CALLS: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
  _ORDERED_DICT: _ordered_dict,
  "torch.Size": _size,
  "torch._utils._rebuild_parameter": _parameter,
  "torch._utils._rebuild_parameter_with_state": _parameter,
  "torch._utils._rebuild_tensor": _tensor,
  "torch._utils._rebuild_tensor_v2": _tensor,
}

_NOTHING = frozenset({"PROTO", "FRAME"})
_VALUES = frozenset(
  {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
   "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"}
)  # fmt: skip
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
  "NONE": lambda: None,
  "NEWTRUE": lambda: True,
  "NEWFALSE": lambda: False,
  "EMPTY_DICT": dict,
  "EMPTY_LIST": list,
  "EMPTY_TUPLE": tuple,
  "MARK": lambda: _MARK,
}


def _set_item(machine: _Machine, _: Any) -> None:
  value, key = machine.pop(), machine.pop()
  machine.update([key, value])


def _named(machine: _Machine, argument: Any) -> None:
  module, _, name = argument.partition(" ")  # as `genops` gives the two lines
  machine.global_of(name, module)


def _dict(machine: _Machine, _: Any) -> None:
  items = machine.since_mark()
  machine.stack.append({})
  machine.update(items)


def _drop(machine: _Machine, _: Any) -> None:
  machine.pop()


_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
  "APPEND": lambda machine, _: machine.extend([machine.pop()]),
  "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
  "BINGET": _Machine.get,
  "BINPERSID": lambda machine, _: machine.persistent(),
  "BINPUT": _Machine.put,
  "BUILD": lambda machine, _: machine.build(),
  "DICT": _dict,
  "GLOBAL": _named,
  "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
  "LONG_BINGET": _Machine.get,
  "LONG_BINPUT": _Machine.put,
  "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
  "NEWOBJ": lambda machine, _: machine.call(),
  "POP": _drop,
  "REDUCE": lambda machine, _: machine.call(),
  "SETITEM": _set_item,
  "SETITEMS": lambda machine, _: machine.update(machine.since_mark()),
  "STACK_GLOBAL": lambda machine, _: machine.global_of(machine.pop(), machine.pop()),
  "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
  "TUPLE1": lambda machine, _: machine.tuple_of(1),
  "TUPLE2": lambda machine, _: machine.tuple_of(2),
  "TUPLE3": lambda machine, _: machine.tuple_of(3),
}
