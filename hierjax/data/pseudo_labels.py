"""Files of pseudo-labels: a run's predictions for training images with partial labels, for another run to train on.

An .npz file of plain arrays, m images, in the order of the set:

    rows         i64[m]  which images of the set's training split
    known        i32[m]  the node that each label ends at as far as it is known
    nodes        i32[m]  the node that the pseudo-label ends at; `known` where there is none
    probability  f32[m]  of `nodes`, given what was known
    tree, fine   the checksums of the label tree, and of the images with whole labels that the run could learn from
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from hierjax.data.source import View, checked_nodes
from hierjax.errors import UserError
from hierjax.tree.label_tree import LabelTree

_KINDS = {"rows": "i", "known": "i", "nodes": "i", "probability": "f", "tree": "U", "fine": "U"}


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
  """The contents of a file of pseudo-labels, see above.

  Attributes:
    rows: `i64[m]`, rising.
    known: `i32[m]`.
    nodes: `i32[m]`.
    probability: `f32[m]`, 0 to 1.
    tree: `LabelTree.checksum`.
    fine: `PartialLabels.fine_checksum`.
    file: the name of the labels in messages.
  """

  rows: Int[np.ndarray, "m"]
  known: Int[np.ndarray, "m"]
  nodes: Int[np.ndarray, "m"]
  probability: Float[np.ndarray, "m"]
  tree: str
  fine: str
  file: str

  def to_bytes(self) -> bytes:
    """Returns the content of the file."""
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **{key: np.asarray(getattr(self, key)) for key in _KINDS})
    return out.getvalue()

  @classmethod
  def load(cls, file: str) -> PseudoLabels:
    """Reads the result of `to_bytes`; raises UserError where the file holds something else."""
    try:
      with np.load(Path(file).expanduser(), allow_pickle=False) as arrays:
        found = {key: arrays[key] for key in _KINDS}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
      found = {}
    whole = found and all(found[key].dtype.kind == kind for key, kind in _KINDS.items())
    if not whole or len({found[key].shape for key in ("rows", "known", "nodes", "probability")}) != 1:
      raise UserError(
        f"config.data.pseudo_labels = {file!r}: must be a file that `hierjax data pseudo-label RUN` wrote, for RUN a "
        "run that trained on whole labels"
      )
    return cls(
      rows=found["rows"].astype(np.int64),
      known=found["known"],
      nodes=found["nodes"],
      probability=found["probability"].astype(np.float32),
      tree=str(found["tree"]),
      fine=str(found["fine"]),
      file=file,
    )

  def nodes_of(self, coarse: View, tree: LabelTree, fine: str) -> Int[np.ndarray, "n"]:
    """Returns the nodes that the pseudo-labels of images end at; there may be labels of more images than these.

    Args:
      coarse: images of the set's training split, with their labels as far as they are known.
      tree: the tree of those labels.
      fine: the checksum of the images with whole labels.

    Raises:
      UserError: the labels are of another tree, or an image has none, or knew another label, or it was learnt from
        other images with whole labels.
    """
    if self.tree != tree.checksum:
      raise UserError(
        f"config.data.pseudo_labels = {self.file!r}: these labels are of another tree than the one that config.tree "
        "names; write them anew, with a run on this one"
      )
    place = np.minimum(np.searchsorted(self.rows, coarse.indices), max(len(self.rows) - 1, 0))
    same = fine == self.fine and (len(self.rows) > 0 or len(coarse) == 0)
    if not same or (self.rows[place] != coarse.indices).any() or (self.known[place] != coarse.nodes[:, 0]).any():
      raise UserError(
        f"config.data.pseudo_labels = {self.file!r}: these labels are of other training images; write them anew, with "
        "a run whose config.data has the same images, validation, split_seed, fine, fine_per_label and coarse_level, "
        "and no smaller coarse"
      )
    return checked_nodes(self.nodes[place], tree.num_nodes, f"config.data.pseudo_labels = {self.file!r}")[:, 0]
