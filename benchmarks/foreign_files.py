"""Files of others, and files that have changed: rows of the table of `benchmarks/faults.py`."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import itertools
import json
import multiprocessing
import operator
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.damage import Rng, flipped_or_damaged
from benchmarks.small_run import small_run
from hierjax.cli.main import main
from hierjax.config import flatten
from hierjax.data.config import DataConfig
from hierjax.data.images.read_image import MAX_PIXELS, BadImageError, read_image
from hierjax.data.sources.tfds import tree_of
from hierjax.errors import UserError
from hierjax.evaluation.console import print_metrics
from hierjax.inference.answers import Row
from hierjax.inference.export import export
from hierjax.inference.exported import ABOUT, MODEL, WEIGHTS, open_export
from hierjax.inference.predictor import write_csv
from hierjax.runs import devices
from hierjax.runs.folder import RunFolder, write_table
from hierjax.runs.run import Run

_SERVER = multiprocessing.get_context("forkserver")
_NOTICED, _UNHARMED, _WRONG = "noticed", "unharmed", "wrong"
_STATUSES = {3: _NOTICED, 0: _UNHARMED}  # of processes
_LONGEST_S = 120

# Images.

_KINDS = (("RGBA", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("CMYK", "TIFF"), ("RGB", "JPEG"))
_MOST_PIXELS = MAX_PIXELS
_OPTIONS: dict[str, dict[str, Any]] = {
  "PNG": {"compress_level": 1},
  "TIFF": {"compression": "tiff_deflate"},
  "JPEG": {"progressive": True},
}
_AT_ONCE, _THREADS = 4, 16
_MOST_BYTES = 2**30


def large_images(folder: Path, rng: Rng) -> Iterator[str]:
  """Reads large images by many threads, whose memory must stay below a GiB; some have more pixels than are allowed."""
  for number in itertools.count():
    mode, kind = _KINDS[int(rng.integers(len(_KINDS)))]
    pixels, ratio = rng.uniform(0.7, 1.1) * _MOST_PIXELS, rng.uniform(0.5, 2)
    size = int((pixels * ratio) ** 0.5), int((pixels / ratio) ** 0.5)
    file = folder / f"{number}.{kind.lower()}"
    Image.new(mode, size).save(file, kind, **_OPTIONS[kind])
    allowed = size[0] * size[1] <= MAX_PIXELS
    wanted = _UNHARMED if allowed else _NOTICED
    yield wanted if _of_process(_read_images, str(file)) == wanted else _WRONG
    file.unlink()


def _read_images(file: str) -> None:
  before, refused = _peak(), []

  def read(_: int) -> None:
    try:
      read_image(file, 224)
    except BadImageError:
      refused.append(file)

  with ThreadPoolExecutor(_THREADS) as pool:
    list(pool.map(read, range(_AT_ONCE)))
  sys.exit(1 if _peak() - before > _MOST_BYTES else 3 if refused else 0)


def _peak() -> int:
  """Returns the most bytes of memory that this process has had."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _of_process(function: Callable[..., None], *arguments: Any) -> str:
  """Returns the outcome that the exit status of a process with a function is."""
  process = _SERVER.Process(target=function, args=arguments)
  process.start()
  process.join(_LONGEST_S)
  process.kill()
  process.join()
  return _STATUSES.get(process.exitcode if process.exitcode is not None else -1, _WRONG)


# Configs.


def sizes_of_configs(folder: Path, rng: Rng) -> Iterator[str]:
  """Opens a run whose config.json has a large number in one place, and reads its weights and a batch."""
  run = small_run(folder / "run")
  config = run.config()
  places = [key for key, value in flatten(config).items() if _is_number(value) or _first_number(value)]
  while True:
    changed = json.loads(json.dumps(config))
    *sections, key = places[int(rng.integers(len(places)))].split(".")
    section = changed
    for name in sections:
      section = section[name]
    section[key] = _large(section[key], rng)
    (run.path / "config.json").write_text(json.dumps(changed))
    yield _opened(run)


def _is_number(value: Any) -> bool:
  return type(value) in (int, float)


def _first_number(value: Any) -> bool:
  return isinstance(value, list | tuple) and bool(value) and _is_number(value[0])


def _large(value: Any, rng: Rng) -> Any:
  if isinstance(value, list):
    return [_large(one, rng) for one in value]
  return type(value)(10 ** int(rng.integers(5, 19)))


def _opened(folder: RunFolder) -> str:
  """Returns the outcome of reading a run's weights and a batch, in 4 GiB of memory at most and some time."""
  mesh = devices.data_mesh()
  in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
  _, hard = resource.getrlimit(resource.RLIMIT_AS)
  usual = signal.signal(signal.SIGALRM, _too_long)
  signal.alarm(_LONGEST_S)
  resource.setrlimit(resource.RLIMIT_AS, (in_use + 4 * _MOST_BYTES, hard))
  try:
    run = Run.from_folder(folder)
    run.restored_variables(folder, mesh)
    source = run.source("test")
    assert source is not None
    next(run.eval_batches(source))
  except UserError:
    return _NOTICED
  except Exception as error:
    print(f"{type(error).__name__}: {error}"[:300], file=sys.stderr)
    return _WRONG
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, usual)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
  return _UNHARMED


def _too_long(number: int, frame: Any) -> None:
  raise TimeoutError(f"after {_LONGEST_S} seconds")


# Numbers of an evaluation.

_OTHERS: tuple[Any, ...] = ("text", 3, 0.5, None, True, [], {}, [1, "a"], {"a": 1}, -1, 10**30)


def types_of_evaluations(folder: Path, rng: Rng) -> Iterator[str]:
  """Puts something else in a place of eval/test.json, and prints what the run takes for an evaluation."""
  run = small_run(folder / "run")
  with contextlib.redirect_stdout(io.StringIO()):
    main(["evaluate", str(run.path)])
  path = run.path / "eval" / "test.json"
  measured = json.loads(path.read_text())
  places = list(_places(measured))
  while True:
    changed, (*outer, last) = json.loads(json.dumps(measured)), places[int(rng.integers(len(places)))]
    within = functools.reduce(operator.getitem, outer, changed)
    within[last] = _OTHERS[int(rng.integers(len(_OTHERS)))]
    path.write_text(json.dumps(changed))
    yield _printed(run)


def _printed(run: RunFolder) -> str:
  found = run.evaluation("test")
  if found is None:
    return _NOTICED
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      print_metrics(run, found, every=True)
  except Exception as error:  # a traceback, for a user
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return _WRONG
  return _UNHARMED


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
  """Yields the keys and numbers that lead to each value within mappings and lists."""
  for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
    yield (*place, key)
    if isinstance(inner, dict | list):
      yield from _places(inner, (*place, key))


# Cells of tables.

_STARTS = ("=", "+", "-", "@", "\t", "\r", "")
_TEXTS = ("1+1", "cmd|' /C calc'!A0", "0.5", "1e3", "a", "", '"x",y', "HYPERLINK(1)")


def cells(folder: Path, rng: Rng) -> Iterator[str]:
  """Writes a table, or answers, with texts that a spreadsheet may take for a formula."""
  while True:
    texts = [_STARTS[int(rng.integers(7))] + _TEXTS[int(rng.integers(8))] for _ in range(4)]
    path = folder / "table.csv"
    if rng.random() < 0.5:
      write_table(path, ["header"] * len(texts), [texts])
    else:
      write_csv(str(path), [Row(texts[0], path=texts[1], error=texts[2])])
      texts[3] = ""
    with path.open(newline="") as file:
      found = [cell for row in list(csv.reader(file))[1:] for cell in row]
    formulas = [cell for cell in found if cell.startswith(_STARTS[:-1]) and not _is_numeral(cell)]
    whole = [text for text in texts if text in found or f"'{text}" in found]
    yield _WRONG if formulas or len(whole) < len(texts) else _UNHARMED if {*texts} <= {*found} else _NOTICED


def _is_numeral(text: str) -> bool:
  with contextlib.suppress(ValueError):
    return np.isfinite(float(text))
  return False


# Exports.


def exports(folder: Path, rng: Rng) -> Iterator[str]:
  """Damages a file of an export, and opens it."""
  run, out = small_run(folder / "run"), folder / "out"
  export(run.path, out)
  whole = open_export(out)
  while True:
    file = out / (ABOUT, MODEL, WEIGHTS)[int(rng.integers(3))]
    data = file.read_bytes()
    file.write_bytes(flipped_or_damaged(data, rng))
    try:
      found = open_export(out)
    except UserError:
      yield _NOTICED
    else:
      same = file.name == ABOUT or file.read_bytes() == data
      yield _UNHARMED if same and (found.about, found.tree) == (whole.about, whole.tree) else _WRONG
    file.write_bytes(data)


# Classes of features.

_IMPORTED = "benchmarks_faults_imported"


def features(folder: Path, rng: Rng) -> Iterator[str]:
  """Names a class of a module of one's own in a features.json of TensorFlow Datasets, which must not be imported."""
  (folder / f"{_IMPORTED}.py").write_text("class Feature: pass\n")
  file = folder / "set" / "1.0.0" / "features.json"
  file.parent.mkdir(parents=True)
  sys.path.append(str(folder))
  try:
    while True:
      file.write_text(json.dumps(_features(rng)))
      try:
        tree_of(DataConfig(name="set", root=str(folder)))
        yield _WRONG
      except UserError as error:
        refused = "no code of a set is run" in str(error) and _IMPORTED not in sys.modules
        yield _NOTICED if refused else _WRONG
      except Exception:  # of TFDS, which has read on
        yield _WRONG
  finally:
    sys.path.remove(str(folder))


def _features(rng: Rng) -> Any:
  """Returns the contents of a features.json, of some depth, with the class of that module in it."""
  key = ("type", "pythonClassName", "python_class_name")[int(rng.integers(3))]
  found: Any = {key: f"{_IMPORTED}.Feature"}
  for _ in range(int(rng.integers(4))):
    kind = {key: "tensorflow_datasets.core.features.features_dict.FeaturesDict"}
    found = ({**kind, "featuresDict": {"features": {"label": found}}}, {**kind, "x": [{}, found]})[int(rng.integers(2))]
  return found


FOREIGN_FILES: dict[str, Callable[[Path, Rng], Iterator[str]]] = {
  "four images of up to 98 megapixels at once": large_images,
  "a large number in a foreign config.json": sizes_of_configs,
  "a value of another kind in eval/test.json": types_of_evaluations,
  "texts of a CSV file that may be formulas": cells,
  "a damaged file of an export": exports,
  "a foreign class in features.json": features,
}
