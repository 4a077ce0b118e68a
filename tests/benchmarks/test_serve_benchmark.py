from serving import model_of, picture, serving

from benchmarks.serve import load, table


def test_every_request_is_counted_as_answered_or_lost(toy_tree):
  images = [picture(0), picture(1), b"no image"]
  with serving(model_of(toy_tree)) as server:
    found = load(server.address, images, requests=60, at_once=8)
  assert len(found.seconds) == 40 and found.others == [422] * 20
  assert 0 < found.seconds.max() <= found.whole < found.seconds.sum()


def test_its_table_of_a_run(make_run, small_config):
  folder = make_run(small_config(head=dict(name="flat"), neck=dict(name="none"))).path
  *_, one, eight = table(str(folder), [picture(0)], 40, [1, 8])
  cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (one, eight)]
  assert [row[:3] for row in cells] == [["1", "40", "0"], ["8", "40", "0"]]
  assert float(cells[0][-1]) == 1.0 <= float(cells[1][-1])
