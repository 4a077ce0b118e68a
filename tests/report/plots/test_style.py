"""Formats, colours and scales that all pictures share."""

import itertools
import xml.etree.ElementTree

import numpy as np
import pytest
from report_pages import wide_tree

from hierjax.evaluation.several_runs.ensembles import Errors
from hierjax.report.plots.adaptation import band
from hierjax.report.plots.canvas import Page
from hierjax.report.plots.style import RECALL, node_colours, recall_colour


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_page_is_saved_in_every_format_and_the_same_each_time(tmp_path, kind):
  found = []
  for number in range(2):
    page = Page(2.0, 1.0)
    page.text(0.1, 0.1, "<script> & $x^2$", width=1.8)
    found.append(page.save(tmp_path / f"{number}.{kind}").read_bytes())
  assert found[0] == found[1]
  assert found[0].startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
  if kind == "svg":
    tags = {element.tag for element in xml.etree.ElementTree.fromstring(found[0]).iter()}
    assert not any("script" in tag for tag in tags)


def test_near_nodes_have_near_hues_and_siblings_differ():
  tree = wide_tree(4, 5)
  colours = node_colours(tree)
  assert colours.shape == (24, 3) and (colours >= 0).all() and (colours <= 1).all()
  for a, b in itertools.combinations(tree.children(0), 2):
    assert np.abs(colours[a] - colours[b]).max() > 0.02
  hue = lambda node: np.argmax(colours[node])  # noqa: E731
  assert len({hue(node) for node in range(4)}) > 1


def test_recalls_have_six_colours():
  shares = [0.1, 0.3, 0.6, 0.8, 0.9, 1.0]
  assert [recall_colour(share) for share in shares] == list(RECALL)
  assert recall_colour(None) not in RECALL and recall_colour(0.25) == RECALL[1]


def test_bands_are_deviations_of_several_and_intervals_of_one():
  wrong = np.array([[[20], [10]], [[30], [10]], [[22], [9]]])
  errors = Errors((0.0, 1.0), ((0,), (1,), (0, 1)), wrong, np.array([100]), ("level 1",))
  low, high = band(errors, 1)
  np.testing.assert_allclose(high - low, 2 * errors.deviation(1))
  low, high = band(errors, 2)
  z, p, n = 1.959964, 0.22, 100
  middle = (p + z * z / (2 * n)) / (1 + z * z / n)
  spread = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
  np.testing.assert_allclose([low[0, 0], high[0, 0]], [middle - spread, middle + spread])
