"""Images that have changed: rows of the table of `benchmarks/faults.py`."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.damage import Rng, flipped
from benchmarks.small_run import small_run
from hierjax.cli.main import main
from hierjax.data.sources.shapes import write_folders
from hierjax.errors import UserError
from hierjax.evaluation.model_card import FILE as MODEL_CARD
from hierjax.runs.folder import RunFolder
from hierjax.runs.run import Run
from hierjax.training.loop.start import claim

_SPLITS = ("train", "val", "test")
_IMAGES, _SIDE = 62, 16  # of a split; the figures of the tree twice each


def set_of_images(root: Path) -> Path:
  """Makes a folder of images in three splits."""
  for split in _SPLITS:
    write_folders(root / split, _IMAGES, side=_SIDE)
  return root


def _any_image(folder: Path, rng: Rng) -> Path:
  images = sorted(folder.rglob("*.png"))
  return images[int(rng.integers(len(images)))]


def _flip(folder: Path, rng: Rng) -> None:
  file = _any_image(folder, rng)
  file.write_bytes(flipped(file.read_bytes(), rng))


def _replace(folder: Path, rng: Rng) -> None:
  first, second = _any_image(folder, rng), _any_image(folder, rng)
  first.write_bytes(second.read_bytes())


def _remove(folder: Path, rng: Rng) -> None:
  _any_image(folder, rng).unlink()


def _add(folder: Path, rng: Rng) -> None:
  file = _any_image(folder, rng)
  shutil.copy(file, file.with_name(f"new-{file.name}"))


def _rename(folder: Path, rng: Rng) -> None:
  file = _any_image(folder, rng)
  file.rename(file.with_name(f"0{file.name}"))


def _relabel(folder: Path, rng: Rng) -> None:
  file, other = _any_image(folder, rng), _any_image(folder, rng)
  file.rename(other.with_name(file.name))


# Of one image, its name or its label; now and then into what it was. The first may make a file that is no image.
CHANGES: tuple[Callable[[Path, Rng], None], ...] = (_flip, _replace, _remove, _add, _rename, _relabel)


def _contents(folder: Path) -> dict[str, bytes]:
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def since_the_start(folder: Path, rng: Rng) -> Iterator[str]:
  """Changes an image after a run has begun, and goes on with the run."""
  root = set_of_images(folder / "set")
  run_folder = small_run(folder / "run", "data.name=folder", f"data.root={root}", "tree.source=images")
  shutil.copytree(root, folder / "kept")
  while True:
    split = _SPLITS[int(rng.integers(len(_SPLITS)))]
    CHANGES[int(rng.integers(len(CHANGES)))](root / split, rng)
    same = _contents(root) == _contents(folder / "kept")
    said = _going_on(run_folder)
    noticed = {"train": "another set of training images", "val": "the validation images", "test": "the test images"}
    kept = _contents(folder / "kept")
    changed = [root / name for name, data in _contents(root).items() if data != kept.get(name)]
    seen = noticed[split] in said or any(str(file) in said for file in changed)  # a flipped bit may leave no image
    yield ("noticed" if seen else "wrong") if not same else "wrong" if said else "unharmed"
    shutil.rmtree(root)
    shutil.copytree(folder / "kept", root)


def _going_on(folder: RunFolder) -> str:
  """Returns what a run says of its images when it goes on."""
  config, text = folder.config(), io.StringIO()
  try:
    run = Run.from_config(config)
    train = run.source("train")
    assert train is not None
    with contextlib.redirect_stdout(text):
      claim(folder, config, run, train)
  except UserError as error:
    return str(error)
  finally:
    folder.close()
  return text.getvalue()


def numbers_of_others(folder: Path, rng: Rng) -> Iterator[str]:
  """Evaluates and reports a run on other images than its own, whose numbers must stay as they are."""
  root = set_of_images(folder / "set")
  run = small_run(folder / "run", "data.name=folder", f"data.root={root}", "tree.source=images").path
  _quietly("evaluate", run)
  for number in itertools.count():
    other = folder / str(number)
    shutil.copytree(root, other)
    if rng.random() < 0.8:
      CHANGES[int(rng.integers(1, len(CHANGES)))](other / "test", rng)
    same = _contents(other) == _contents(root)
    before, numbers = _contents(run), _numbers(run)
    _quietly(("evaluate", "report")[int(rng.random() < 0.3)], run, "--data-root", other)
    now = _contents(run)
    own = [name for name in before if "-images-" not in name and name != "provenance.json"]
    kept = all(now.get(name) == before[name] for name in own)
    of_others = ["-images-" in name for name in now.keys() - before.keys() - {MODEL_CARD}]
    if same:  # numbers on a copy are the run's own
      yield "unharmed" if _numbers(run) == numbers and not any(of_others) else "wrong"
    else:
      yield "noticed" if kept and all(of_others) else "wrong"
    shutil.rmtree(other)


def _numbers(run: Path) -> dict[str, Any]:
  """Returns what eval/test.json holds, but for the folder of the images."""
  found: dict[str, Any] = json.loads((run / "eval" / "test.json").read_text())
  root = found["data"].pop("root")
  for example in found["examples"]:
    example["image"] = Path(example["image"]).relative_to(root)
  return found


def _quietly(*words: object) -> None:
  with contextlib.redirect_stdout(io.StringIO()):
    status = main(list(map(str, words)))
  if status:
    raise RuntimeError(f"hierjax {' '.join(map(str, words))}: status {status}")


CHANGED_IMAGES: dict[str, Callable[[Path, Rng], Iterator[str]]] = {
  "an image that has changed since the start": since_the_start,
  "numbers on images that are not the run's": numbers_of_others,
}
