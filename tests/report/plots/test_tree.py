"""The picture of the label tree: all nodes with images, in their places, with their recall."""

import csv
import shutil

import numpy as np
import pytest
from commands import run_command
from report_pages import made_up, wide_tree

from hierjax.errors import UserError
from hierjax.evaluation.scores import NodeScores
from hierjax.report.plots import tree as module
from hierjax.report.plots.tree import ScoredTree, draw_tree, narrowed
from hierjax.runs.folder import RunFolder


@pytest.fixture
def scored():
  found = made_up(wide_tree(4, 5))
  return ScoredTree.of("run", "test", found.predictions, found.tree)


def test_the_picture_and_the_table_have_every_node(scored, tmp_path, monkeypatch):
  drawn = []
  name = module._name
  monkeypatch.setattr(
    module, "_name", lambda axes, found, place, node: drawn.append(node) or name(axes, found, place, node)
  )
  path = draw_tree(RunFolder(tmp_path), narrowed(scored), "svg")
  assert path.name == "tree.svg" and sorted(drawn) == list(range(-1, 24))
  rows = list(csv.DictReader(path.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
  assert len(rows) == 24 and all(row["drawn"] == "1" for row in rows)
  for node, row in enumerate(rows):
    assert (row["node"], int(row["images"])) == (scored.tree.path_text(node), scored.scores.labelled[node])
    assert float(row["recall"]) == pytest.approx(scored.scores.recall(node), abs=1e-6)


def test_inner_nodes_stand_in_the_middle_and_no_two_leaves_in_one_row(scored):
  places = module._places(narrowed(scored))
  leaves = [places[node][1] for node in range(4, 24)]
  assert sorted(leaves) == list(range(20))
  for node in range(4):
    below = [places[child][1] for child in scored.tree.children(node)]
    assert places[node] == (1, (min(below) + max(below)) / 2)


def test_levels_nodes_and_what_has_no_room(scored):
  assert set(module._places(narrowed(scored, levels=1))) == {-1, 0, 1, 2, 3}
  assert set(module._places(narrowed(scored, inside=2))) == {2, *scored.tree.children(2)}
  wide = wide_tree(30, 30)
  counts = np.ones(wide.num_nodes, np.int64)
  large = ScoredTree("run", "test", wide, NodeScores(counts, counts, counts), 900, wide.depth)
  assert narrowed(large).levels == 1
  with pytest.raises(UserError, match="--levels 2: 900 rows, and 400 have room"):
    narrowed(large, levels=2)


def test_the_command_draws_a_run(context_run, capsys):
  run_command("plot tree", context_run.path, format="pdf")
  assert capsys.readouterr().out.strip() == str(context_run.path / "pictures" / "tree.pdf")
  assert (context_run.path / "pictures" / "tree.pdf").read_bytes().startswith(b"%PDF")
  shutil.rmtree(context_run.path / "pictures")  # other tests use this run too
