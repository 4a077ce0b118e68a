import pytest

from benchmarks import mutants

TOY = '''"""A module."""


def larger(a: int, b: int) -> int:
  """Returns the larger of two."""
  return a if a > b else b


def untested(a: int) -> int:
  return a + 1
'''
TEST = """from hierjax.data.toy import larger


def test_larger():
  assert [larger(1, 2), larger(2, 1), larger(1, 1)] == [2, 2, 1]
"""


@pytest.fixture
def toy(tmp_path):
  for name, text in (("hierjax/__init__.py", ""), ("hierjax/data/toy.py", TOY), ("tests/data/test_toy.py", TEST)):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
  (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\nmarkers = ["slow"]\n')
  return tmp_path


@pytest.fixture
def run_tests(monkeypatch):
  """Runs the tests of a toy in a process of its own, without JAX, and counts the runs."""
  runs, real = [], mutants.run_tests

  def counted(tests, root, seconds):
    runs.append(tests)
    return real(tests, root, seconds)

  monkeypatch.setattr(mutants, "PRELOADED", ("pytest",))
  monkeypatch.setattr(mutants, "run_tests", counted)
  return runs


def scored(toy, table=None, seed=0):
  return mutants.score(mutants.Trial(toy, 60.0), mutants.sample(toy, seed, ["data"]), 5.0, mutants.Table(table))


def test_what_a_test_notices_is_caught_and_a_second_run_repeats_the_rest(toy, run_tests, capsys):
  table = toy / "table.csv"
  assert scored(toy, table) == {"caught": 2, "survived": 3}
  verdicts = dict(reversed(line.split(": ", 1)) for line in capsys.readouterr().out.splitlines())
  assert verdicts == {
    'data/toy.py:4 """Returns the larger of two.""" -> return None': "caught",
    "data/toy.py:6 return a if a > b else b -> return a if not a > b else b": "caught",
    "data/toy.py:6 return a if a > b else b -> return a if a >= b else b": "survived",  # the same function
    "data/toy.py:10 return a + 1 -> return a - 1": "survived",
    "data/toy.py:10 return a + 1 -> return a + 0": "survived",
  }
  assert (toy / "hierjax/data/toy.py").read_text() == TOY
  assert len(run_tests) == 5 + 1  # the test that fails is run once without a mutation

  text = table.read_text()
  same = next(line for line in text.splitlines() if "a >= b" in line)
  table.write_text(text.replace(same, same.replace("survived", "equivalent")))
  (toy / "tests/data/test_toy.py").write_text(
    f"{TEST}  assert untested(1) == 2\n".replace("larger\n", "larger, untested\n", 1)
  )
  assert scored(toy, table) == {"caught": 4, "equivalent": 1}
  assert len(run_tests) == 6 + 2 + 1 and table.read_text().count("caught") == 4


def test_a_seed_names_an_order_that_a_change_elsewhere_leaves_as_it_is(toy):
  first, again, other = (list(mutants.sample(toy, seed, ["data"])) for seed in (0, 0, 1))
  assert first == again and [m.text for m in first] != [m.text for m in other]
  assert len({m.text for m in first}) == len(first) == 5
  assert sorted(m.text for m in first) == sorted(m.text for m in other)
  (toy / "hierjax/data/toy.py").write_text(TOY.replace("def larger", "LIMIT = 8\n\n\ndef larger"))
  now = list(mutants.sample(toy, 0, ["data"]))
  assert [m.name for m in now if "LIMIT" not in m.change] == [m.name for m in first] and len(now) == 6


def test_a_file_whose_tests_fail_by_themselves_is_left_out(toy, run_tests):
  (toy / "tests/data/test_toy.py").write_text(TEST.replace("[2, 2, 1]", "[2, 2, 2]"))
  assert scored(toy) == {"left out": 5}


def test_tests_that_do_not_end_are_slow(toy, run_tests):
  (toy / "tests/data/test_toy.py").write_text("def test_it():\n  while True:\n    pass\n")
  tests = mutants.tests_of("data/toy.py", toy)
  assert mutants.run_tests(tests, toy, 3.0) == "slow"


def test_the_tests_of_a_file_are_those_of_its_name_and_those_that_import_it_the_nearest_first(toy):
  for name in ("data/test_user.py", "tree/test_far.py"):
    (toy / "tests" / name).parent.mkdir(exist_ok=True)
    (toy / "tests" / name).write_text("from hierjax.data import toy\n")
  (toy / "hierjax/data/through.py").write_text("from hierjax.data.toy import larger\n")
  (toy / "tests/data/test_other.py").write_text("from hierjax.data.through import larger\n")
  found = [test.removeprefix(f"{toy}/tests/") for test in mutants.tests_of("data/toy.py", toy)]
  assert found == ["data/test_toy.py", "data/test_user.py", "tree/test_far.py", "data/test_other.py"]
