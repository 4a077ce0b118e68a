from benchmarks import lstm
from benchmarks.spatial import check_agreement
from benchmarks.spatial_torch import torch


def test_all_sides_are_the_same_function():
  weights = lstm.Weights(nodes=5, width=4, steps=3, batch=2)
  sides = {"hierjax": lstm.ours(weights), "nn.RNN": lstm.flax_rnn(weights)}
  if torch is not None:
    sides |= lstm.torch_sides(weights, "cpu")
  check_agreement({name: lstm.first_parts(side) for name, side in sides.items()}, 1e-5, lstm.PARTS)
