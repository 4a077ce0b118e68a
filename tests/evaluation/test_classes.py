"""The CSV file of classes: counts and confusions against loops, and cells that no spreadsheet takes for a formula."""

import csv
import dataclasses

from metric_oracle import made

from hierjax.evaluation.classes import HEADER, class_summary, write_classes


def test_each_class_has_its_counts_and_its_most_frequent_confusions(tmp_path):
  facts, images = made("unknown", 2, count=200)
  tree = facts.table.tree
  path = write_classes(tmp_path / "eval" / "test.json", facts)
  assert path == tmp_path / "eval" / "test-classes.csv"
  with path.open(encoding="utf-8", newline="") as file:
    rows = {row["class"]: row for row in csv.DictReader(file)}
  some = 0
  for node in range(tree.num_nodes):
    own = [image for image in images if node in image.known]
    said = [image for image in images if image.counted and node in image.said]
    if not own and not said:
      assert tree.path_text(node) not in rows
      continue
    row, right = rows[tree.path_text(node)], sum(node in image.said for image in own)
    assert [int(row[key]) for key in ("images", "predicted", "right")] == [len(own), len(said), right]
    for key, of in (("recall", own), ("precision", said)):
      assert row[key] == (f"{right / len(of):.6g}" if of else "")
    wrong = [i.said[-1] if i.said else -1 for i in images if i.counted and i.end == node and not i.right]
    counts = sorted((wrong.count(v) for v in set(wrong)), reverse=True)[:3]
    assert [int(c) for c in (row["confused_images"], row["confused_images_2"], row["confused_images_3"]) if c] == counts
    if wrong:
      some += 1
      names = {tree.path_text(v) if v >= 0 else "(no path)": wrong.count(v) for v in set(wrong)}
      assert names[row["confused_with"]] == counts[0]
  assert some > 3 and list(next(iter(rows.values()))) == list(HEADER)


def test_names_are_no_formulas(tmp_path):
  facts, _ = made("stop", 1)
  tree = facts.table.tree
  names = type(tree.names)([f"={name}" for name in tree.names])
  table = dataclasses.replace(facts.table, tree=type(tree)(names, tree.child_offsets))
  path = write_classes(tmp_path / "eval" / "test.json", dataclasses.replace(facts, table=table))
  header, *rows = csv.reader(path.read_text().splitlines())
  cells = [cell for row in rows for cell in row]
  assert any(cell.startswith("'=") for cell in cells) and not any(cell.startswith("=") for cell in cells)
  assert header == list(HEADER) and {len(row) for row in rows} == {len(HEADER)}


def test_the_summary_has_the_classes_of_lowest_recall_and_the_most_frequent_confusions():
  facts, images = made("unknown", 2, count=200)
  tree, found = facts.table.tree, class_summary(facts)
  counted = [image for image in images if image.counted]
  recalls = []
  for node in {image.end for image in counted}:
    own = [image for image in images if node in image.known]
    recalls.append((sum(node in image.said for image in own) / len(own), -len(own), tree.path_text(node)))
  assert [(c["recall"], -c["images"]) for c in found["lowest_recall"]] == [r[:2] for r in sorted(recalls)[:5]]
  assert {(c["recall"], -c["images"], c["class"]) for c in found["lowest_recall"]} <= set(recalls)
  wrong = [(i.end, i.said[-1] if i.said else -1) for i in counted if not i.right]
  counts = sorted((wrong.count(pair) for pair in set(wrong)), reverse=True)[:5]
  assert [pair["images"] for pair in found["confusions"]] == counts
  for pair in found["confusions"]:
    label = next(v for v in range(tree.num_nodes) if tree.path_text(v) == pair["label"])
    assert pair["share"] == pair["images"] / sum(image.end == label for image in counted)
