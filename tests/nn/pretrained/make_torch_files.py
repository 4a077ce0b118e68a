"""Writes the files of test_torch_files.py: small tensors as PyTorch saves them, and what they hold, as numpy.

  PYTHONPATH=tests python tests/nn/pretrained/make_torch_files.py

Only this file needs PyTorch (made with torch 2.13 on a CPU).
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).with_name("torch_files")


def tensors():
  torch.manual_seed(0)
  base = torch.randn(4, 6)
  layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
  state = layer.state_dict()  # an OrderedDict with `_metadata`, and a counter of whole numbers
  state |= {
    "half": torch.randn(3).half(),
    "bfloat": torch.randn(3).bfloat16(),
    "double": torch.randn(3).double(),
    "transposed": base.T,
    "part": base[1:3, ::2],
    "column": base[:, 5],
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "parameter": nn.Parameter(torch.randn(2, 2)),
    "tied": base,
  }
  return state


def main():
  FOLDER.mkdir(exist_ok=True)
  state = tensors()
  arrays = {name: tensor.detach().double().numpy() for name, tensor in state.items() if "tracked" not in name}
  np.savez_compressed(FOLDER / "expected.npz", **arrays)
  one, two = OrderedDict(a=torch.ones(2)), OrderedDict(a=torch.zeros(2))
  optimizer = {"state": {0: {"step": 3, "momentum": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
  contents = {
    "plain": state,
    "checkpoint": {"epoch": 3, "arch": "mlp", "best": 0.5, "state_dict": state, "optimizer": optimizer},
    "several": {"teacher": one, "student": two},
    "nothing": {"epoch": 3, "names": ["a", "b"]},
    "module": nn.Linear(2, 2),
  }
  for name, content in contents.items():
    torch.save(content, FOLDER / f"{name}.pth")
    torch.save(content, FOLDER / f"{name}_older.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
  main()
