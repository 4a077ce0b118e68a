"""Prediction for files and folders: the images and the pixels that training saw."""

import csv
import os

import jax
import numpy as np
import pytest
from PIL import Image

from hierjax.cli.main import main
from hierjax.data.config import DataConfig
from hierjax.data.open_source import open_source
from hierjax.errors import UserError
from hierjax.inference import predictor as module
from hierjax.inference.answers import Answer, paths_of
from hierjax.inference.predictor import Predictor, find_images
from hierjax.runs.devices import data_mesh
from hierjax.runs.run import Run
from hierjax.tree.builders import from_folder
from hierjax.tree.readers import folders


def noise(small_config, channels):
  data = dict(name="noise", examples=186, resize=16, mean=(0.5,) * channels, std=(0.25,) * channels)
  return small_config(data=data, neck=dict(name="none"))


def test_files_are_grey_for_a_run_of_grey_images(make_run, small_config, tmp_path):
  folder = make_run(noise(small_config, 1), sharpness=9.0)
  run = Run.from_folder(folder)
  _, variables = run.restored_variables(folder, data_mesh())
  examples = next(run.eval_batches(run.source("test")))

  answer = jax.jit(lambda x: run.method.predict(variables, run.preprocess(x).inputs, None, run.options).paths[:, 0])
  expected = [run.tree.nodes_text(path[path >= 0].tolist()) for path in np.asarray(answer(examples))[:8]]
  files = [tmp_path / f"{i}.png" for i in range(8)]
  for i, file in enumerate(files):
    Image.fromarray(examples.images[i, ..., 0]).convert("RGB" if i % 2 else "L").save(file)
  assert [row.path for row in Predictor(folder.path)(files)] == expected and len(set(expected)) > 1


def test_files_have_no_more_channels_than_three(make_run, small_config):
  with pytest.raises(UserError, match=r"config\.data\.mean = \(0\.5, .*reads images of 4 channels"):
    Predictor(make_run(noise(small_config, 4)).path)


def test_a_folder_has_the_images_that_training_finds_in_it(tmp_path, monkeypatch, capsys):
  root = tmp_path / "root"
  for file in (
    root / ".thumbs" / "x.png",
    root / "b" / "y.png",
    root / "b" / ".z.png",
    tmp_path / "elsewhere" / "z.png",
  ):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(file)
  (root / "a").symlink_to(tmp_path / "elsewhere")
  trained = open_source(DataConfig(name="folder", root=str(root), validation=0.0), from_folder(root), "train")
  found = [str(file) for file in find_images([str(root)])]
  assert found == [trained.name_of(i) for i in range(len(trained))] == [str(root / "a/z.png"), str(root / "b/y.png")]

  entries = folders._entries

  def locked(path):
    if path.endswith("a"):
      raise PermissionError(13, "Denied")
    return entries(path)

  monkeypatch.setattr(folders, "_entries", locked)
  assert find_images([str(root)]) == [root / "b" / "y.png"]
  assert f"{root / 'a'} cannot be read (Denied)" in capsys.readouterr().err


def test_the_files_that_a_folder_has_beside_its_images_are_counted(tmp_path, capsys):
  for name in ("a.jpg", "b.txt", "c.txt", "sub/d.PNG", "sub/e.mp4", "sub/noext"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  assert find_images([str(tmp_path)]) == [tmp_path / "a.jpg", tmp_path / "sub" / "d.PNG"]
  told = capsys.readouterr().err
  assert "passed over" in told and "2 .txt" in told and "1 .mp4" in told


def test_a_predictor_answers_about_bytes_as_about_files(make_run, small_config, tmp_path):
  folder, rng = make_run(noise(small_config, 3), sharpness=9.0), np.random.default_rng(0)
  files = [tmp_path / f"{i}.png" for i in range(40)]  # more than a batch
  for file in files:
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file)
  files[35].write_bytes(b"no image")
  predictor = Predictor(folder.path, top=2)
  by_file = predictor(files)
  by_bytes = predictor([file.read_bytes() for file in files])
  assert [row[1:-1] for row in by_bytes] == [row[1:-1] for row in by_file] and len(by_file) == 79
  assert {row.image for row in by_bytes} == {f"image {i}" for i in range(40)}
  assert [row.image for row in by_bytes if row.error] == ["image 35"]
  assert by_file == list(predictor.rows(files)) == list(predictor.rows(map(str, files)))


def test_names_that_are_no_text_and_files_that_are_no_images(make_run, small_config, tmp_path, capsys):
  folder = make_run(noise(small_config, 3), sharpness=9.0)
  (tmp_path / "new").mkdir()
  odd = tmp_path / "new" / os.fsdecode(b"\xff.png")
  Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(odd)
  (tmp_path / "new" / "broken.png").write_bytes(b"")
  assert main(["predict", str(folder.path), str(tmp_path / "new"), "--csv", str(tmp_path / "out.csv")]) == 0
  captured = capsys.readouterr()
  assert len(captured.out.splitlines()) == 1 and captured.out.startswith(f"{tmp_path}/new/\\xff.png: ")
  assert captured.err.splitlines()[-1] == "1 of 2 images could not be read" and "broken.png" in captured.err
  rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
  assert [row["image"] for row in rows] == [f"{tmp_path}/new/broken.png", f"{tmp_path}/new/\\xff.png"]
  assert main(["predict", str(folder.path), str(tmp_path / "new" / "broken.png")]) == 1
  assert main(["predict", str(folder.path), str(tmp_path / "none.png")]) == 1


def test_images_are_read_ahead_and_not_all_at_once(make_run, small_config, tmp_path, monkeypatch):
  folder, file = make_run(noise(small_config, 3)), tmp_path / "one.png"
  Image.fromarray(np.full((16, 16, 3), 9, np.uint8)).save(file)
  read, numbers = module._read, []
  monkeypatch.setattr(module, "_read", lambda image, *a: numbers.append(1) or read(image, *a))
  predictor = Predictor(folder.path)
  rows = predictor.rows([file] * 400)
  next(rows)
  assert 32 < len(numbers) <= 32 + module._AHEAD + 1
  assert sum(1 for _ in rows) == 399 and len(numbers) == 400
  rows = predictor.rows([file] * 400)
  next(rows)
  rows.close()
  assert len(numbers) < 600


def test_nodes_off_the_tree_are_named_as_they_were_decoded(toy_tree):
  """Raw decoding may leave the tree; the printed path is not that of the ancestors of its last node."""
  path = np.array([[1, 3, -2]])
  (row,) = paths_of("a.png", toy_tree, Answer(path, np.array([-0.5]), np.full(7, 0.25), path), {})
  assert row.path == "thing/cat"  # a cat is an animal
  assert row.node_probabilities == (0.25, 0.25)
