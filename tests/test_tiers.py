"""The tests' own machinery: the table of the fast tier, and the folder of compiled programs."""

import re
from importlib.metadata import version

import pytest
from compiled_programs import folder_of_programs
from conftest import FAST, NOT_FAST, TESTS


@pytest.mark.parametrize("path", [*FAST, *NOT_FAST])
def test_every_row_of_the_fast_tier_is_there(path):
  file, _, name = path.partition("::")
  assert (TESTS / file).exists()
  assert not name or re.search(rf"^def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("most_bytes", "kept"), [(10, True), (9, False)])
def test_programs_of_this_version_are_kept_up_to_a_bound_and_of_no_other(tmp_path, most_bytes, kept):
  folder = folder_of_programs(tmp_path, most_bytes)
  assert folder.parent == tmp_path and folder.is_dir() and version("jax") in folder.name
  (folder / "program").write_bytes(b"0123456789")
  (tmp_path / "jax-0.1-0.1").mkdir()
  assert folder_of_programs(tmp_path, most_bytes) == folder and list(tmp_path.iterdir()) == [folder]
  assert (folder / "program").exists() == kept
