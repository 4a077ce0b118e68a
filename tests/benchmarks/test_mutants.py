import ast

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
def toy(tmp_path, monkeypatch):
  monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a second each
  for name, text in (("hierjax/data/toy.py", TOY), ("tests/data/test_toy.py", TEST)):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
  (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
  return tmp_path


def test_what_a_test_notices_is_caught_and_nothing_else(toy, capsys):
  found = mutants.score(toy, mutants.sample(toy, 0, ["data"]), minutes=5.0, limit=60.0)
  verdicts = dict(reversed(line.split(" ", 1)) for line in capsys.readouterr().out.splitlines())
  assert verdicts == {
    'hierjax/data/toy.py:4 """Returns the larger of two.""" -> return None': "caught",
    "hierjax/data/toy.py:6 return a if a > b else b -> return a if not a > b else b": "caught",
    "hierjax/data/toy.py:6 return a if a > b else b -> return a if a >= b else b": "MISSED",  # the same function
    "hierjax/data/toy.py:10 return a + 1 -> return a - 1": "MISSED",
    "hierjax/data/toy.py:10 return a + 1 -> return a + 0": "MISSED",
  }
  assert sorted(found) == [False] * 3 + [True] * 2
  assert (toy / "hierjax/data/toy.py").read_text() == TOY


def test_a_seed_names_a_sample_and_each_mutation_is_one(toy):
  first, again, other = (list(mutants.sample(toy, seed, ["data"])) for seed in (0, 0, 1))
  assert first == again and first != other and sorted(first) == sorted(other)
  texts = [text for _, _, text in first]
  assert len(set(texts)) == len(texts) == 5 and ast.unparse(ast.parse(TOY)) not in texts


def test_a_file_whose_tests_fail_by_themselves_is_left_out(toy, capsys):
  (toy / "tests/data/test_toy.py").write_text(TEST.replace("[2, 2, 1]", "[2, 2, 2]"))
  assert mutants.score(toy, mutants.sample(toy, 0, ["data"]), minutes=5.0, limit=60.0) == []
  assert capsys.readouterr().out.count("left out: hierjax/data/toy.py") == 1
