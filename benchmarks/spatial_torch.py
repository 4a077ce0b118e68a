"""Spatial recurrences in PyTorch: loops over cells, and exact anti-diagonals; forward and autograd.

Only benchmarks need PyTorch. Where it is missing, the module can be imported and `torch` is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
  import torch
except ImportError:  # the benchmark prints the other columns
  torch = None  # type: ignore[assignment]


def plain_loop(x: Any, input_kernel: Any, row_kernel: Any, column_kernel: Any, bias: Any, *, cell: str) -> Any:
  """Visits the cells in order, one direction after another, with three products at each cell."""
  _, rows, columns, _ = x.shape
  zeros = x.new_zeros(len(x), row_kernel.shape[1])
  total: Any = 0
  for i, axes in enumerate(_FLIPS):
    frame = torch.flip(x, axes)
    above = [(zeros, zeros)] * columns
    grid = []
    for r in range(rows):
      left, row = (zeros, zeros), []
      for q in range(columns):
        neighbours = above[q][0] @ row_kernel[i] + left[0] @ column_kernel[i]
        gates = frame[:, r, q] @ input_kernel[i] + bias[i] + neighbours
        left = (torch.relu(gates), zeros) if cell == "srn" else _lstm(gates, [above[q][1], left[1]])
        row.append(left)
      above = row
      grid.append(torch.stack([h for h, _ in row], 1))
    total = total + torch.flip(torch.stack(grid, 1), axes)
  return total


def cell_loop(x: Any, input_kernel: Any, row_kernel: Any, column_kernel: Any, bias: Any, *, cell: str) -> Any:
  """Computes `plain_loop` with one product of all inputs; neighbours outside the grid are not computed.

  The cells' inputs are taken apart once: indexed one by one, each cell's gradient would be a whole map of zeros.
  """
  _, rows, columns, _ = x.shape
  total: Any = 0
  for i, axes in enumerate(_FLIPS):
    pre = torch.flip(x, axes) @ input_kernel[i] + bias[i]
    inputs = [row.unbind(1) for row in pre.unbind(1)]
    h: dict[tuple[int, int], Any] = {}
    c: dict[tuple[int, int], Any] = {}
    for r in range(rows):
      for q in range(columns):
        gates = inputs[r][q]
        if r > 0:
          gates = gates + h[r - 1, q] @ row_kernel[i]
        if q > 0:
          gates = gates + h[r, q - 1] @ column_kernel[i]
        if cell == "srn":
          h[r, q] = torch.relu(gates)
        else:
          h[r, q], c[r, q] = _lstm(gates, [c[n] for n in ((r - 1, q), (r, q - 1)) if n in c])
    grid = torch.stack([torch.stack([h[r, q] for q in range(columns)], 1) for r in range(rows)], 1)
    total = total + torch.flip(grid, axes)
  return total


def diagonals(x: Any, input_kernel: Any, row_kernel: Any, column_kernel: Any, bias: Any, *, cell: str) -> Any:
  """Visits the anti-diagonals in order, at their exact length: one `bmm` for directions, cells and neighbours."""
  batch, rows, columns, channels = x.shape
  order = sorted(((r, q) for r in range(rows) for q in range(columns)), key=sum)
  lengths = [sum(r + q == t for r, q in order) for t in range(rows + columns - 1)]
  frames = torch.stack([torch.flip(x, axes) for axes in _FLIPS])
  numbers = torch.tensor([r * columns + q for r, q in order], device=x.device)
  inputs = frames.permute(0, 2, 3, 1, 4).reshape(4, rows * columns, batch, channels).index_select(1, numbers)
  pre = torch.baddbmm(bias[:, None], inputs.reshape(4, -1, channels), input_kernel)
  kernel = torch.cat([row_kernel, column_kernel], 1)
  width = row_kernel.shape[1]
  outside = x.new_zeros(4, batch, width)
  states, h, c = [], None, None
  for t, gates in enumerate(pre.split([length * batch for length in lengths], 1)):
    if h is not None:
      gates = torch.baddbmm(gates, torch.cat(_neighbours(h, outside, t, rows, columns), -1), kernel)
    if cell == "srn":
      h = torch.relu(gates)
    else:
      h, c = _lstm(gates, [] if c is None else _neighbours(c, outside, t, rows, columns))
    states.append(h)
  grids = torch.cat(states, 1).reshape(4, rows * columns, batch, width).index_select(1, torch.argsort(numbers))
  grids = grids.reshape(4, rows, columns, batch, width).permute(0, 3, 1, 2, 4)
  return sum(torch.flip(grid, axes) for grid, axes in zip(grids.unbind(0), _FLIPS, strict=True))


_FLIPS = ((), (2,), (1,), (1, 2))  # nw, ne, sw, se


def _neighbours(state: Any, outside: Any, t: int, rows: int, columns: int) -> tuple[Any, Any]:
  """Returns the states above and to the left of the cells of diagonal t, `[k r*b d]`, from those of the one before."""
  batch = outside.shape[1]
  above = state[:, :-batch] if t >= rows else state
  left = state[:, batch:] if t >= columns else state
  if t < columns:
    above = torch.cat([outside, above], 1)
  if t < rows:
    left = torch.cat([left, outside], 1)
  return above, left


def _lstm(gates: Any, memories: Any) -> tuple[Any, Any]:
  i, f, o, m = gates.chunk(4, -1)
  c = torch.sigmoid(i) * torch.tanh(m)
  if memories:
    c = c + torch.sigmoid(f) * sum(memories)
  return torch.sigmoid(o) * torch.tanh(c), c


def use_threads(threads: int, precision: str) -> str:
  """Sets PyTorch to JAX's number of threads and float32 precision; returns a description of both."""
  torch.set_num_threads(threads)
  torch.set_float32_matmul_precision({"float32": "highest", "tensorfloat32": "high"}[precision])
  return f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"


def sides(names: list[str], arrays: list[np.ndarray], cell: str, dtype: str, device: str) -> dict[str, Any]:
  """Returns for each name a call `() -> (y, gradients)`, all tensors, which returns when the computation has ended.

  Args:
    names: of `torch_plain`, `torch_loop`, `torch_diagonals` and `torch_compiled`.
    arrays: the cotangent, x, the three kernels and the bias.
    cell: srn or lstm.
    dtype: float32 or bfloat16.
    device: cpu or cuda.
  """
  torch._dynamo.reset()  # it compiles a function for few shapes only
  tensors = [
    torch.tensor(a, device=device).to({"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]) for a in arrays
  ]
  cotangent, inputs = tensors[0], [t.requires_grad_() for t in tensors[1:]]
  recurrences = {
    "torch_plain": plain_loop,
    "torch_loop": cell_loop,
    "torch_diagonals": diagonals,
    "torch_compiled": torch.compile(diagonals, fullgraph=True, dynamic=False),
  }

  def side(recurrence: Callable[..., Any]) -> Callable[[], Any]:
    def call() -> Any:
      y = recurrence(*inputs, cell=cell)
      gradients = torch.autograd.grad(y, inputs, cotangent)
      if device == "cuda":
        torch.cuda.synchronize()
      return y.detach(), gradients

    return call

  return {name: side(recurrences[name]) for name in names}
