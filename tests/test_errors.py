import pytest

from hierjax.errors import did_you_mean, few


@pytest.mark.parametrize(
  ("texts", "shown"),
  [([], ""), (["a"], "a"), (["a", "b", "c"], "a, b, c"), (["a", "b", "c", "d"], "a, b, c, ...")],
)
def test_the_first_of_many_are_shown(texts, shown):
  assert few(texts, 3) == shown
  assert few(texts, 3, "; ") == shown.replace(", ", "; ")


def test_a_near_word_is_suggested():
  assert did_you_mean("flatt", ["flat", "path_rnn"]) == "; did you mean 'flat'?"
  assert did_you_mean("xyz", ["flat", "path_rnn"]) == ""
