"""The folder of a run: the contract between training, evaluation and prediction.

    workdir/config.json      the resolved config        workdir/tree.json        the label tree with its checksum
    workdir/checkpoints/     orbax, see checkpoint.py   workdir/metrics.jsonl    a JSON object a line, with "step"
    workdir/eval/SPLIT.json  every metric by name       workdir/tensorboard/     the same metrics as events
                             (SPLIT-knownN.json: N upper levels of the labels were given; SPLIT-alphaA.json: classifier
                             adaptation; SPLIT-threshold.json: answers that abstain below a confidence threshold;
                             certificate.json; NAME-images-XXXX.json: of other images than those of the run);
                             SPLIT-classes.csv, a row a node
    workdir/data.json        the format of the folder, and the checksums of the images: their labels, names and contents
    workdir/pictures/        what plot, compare and the sweeps draw: PNG, SVG or PDF, and CSV; NAME-images-XXXX as above
    workdir/provenance.json  the commands, versions and minutes of training; see provenance.py
    workdir/report.html      what the run can do and where it errs; with it, eval/SPLIT-nodes.csv, SPLIT-confusions.csv,
                             SPLIT-calibration.csv and SPLIT-images.csv
    workdir/choices.json     the values chosen on validation: alpha, threshold, thresholds; see choices.py

The files of an ensemble of runs go into a folder of its own, whose eval/, pictures/ and choices.json are as here.

Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import shlex
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from hierjax.config import flatten, frozen, read_json
from hierjax.data.source import what_changed
from hierjax.disk import said_where_full, sync_one
from hierjax.errors import UserError
from hierjax.runs.evaluation_kinds import is_evaluation, is_of_images
from hierjax.tree.label_tree import LabelTree

FORMAT = "hierjax run 4"
_FREE = ("sharding", "remat")  # of a config: a run goes on with others, which change no weight but by rounding
_MEASURED = ("split", "step", "views", "num_examples", "level_names", "level_sizes")


def write_whole(path: Path, content: str | bytes) -> None:
  """Writes a file, text as UTF-8, such that a reader, or a crash at any moment, meets the old file or the new one.

  Names of files that are not UTF-8 are written byte for byte.
  """
  data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
  with said_where_full(path, len(data)):
    _write_whole(path, data)


def _write_whole(path: Path, data: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    with temporary.open("wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
    sync_one(path.parent)  # the name too outlives a power cut
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def is_checkpoint(folder: Path) -> bool:
  """Returns whether a folder is a checkpoint, whole or damaged, by its name and by what is in it."""
  is_step = folder.name.isdigit() and str(int(folder.name)) == folder.name
  return is_step and ((folder / "model").exists() or (folder / "_CHECKPOINT_METADATA").exists())


def is_run_config(config: Mapping[str, Any]) -> bool:
  """Returns whether a JSON object is the config of a run, and not another program's config.json."""
  return {"tree", "data", "backbone", "head"} <= config.keys()


def check_new_folder(path: Path) -> None:
  """Raises UserError where there is something by that name, but for an empty folder."""
  if path.exists() and not (path.is_dir() and not any(path.iterdir())):
    raise UserError(f"{path} is there already: name a new folder")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
  """Yields a new folder to fill, which becomes `path` in the end; it is removed where an error is raised."""
  path = path.absolute()
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
    unfinished = Path(temporary) / path.name  # of the usual mode, and not for the owner's eyes alone as the other is
    unfinished.mkdir()
    yield unfinished
    unfinished.replace(path)


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
  """Writes a CSV file, whole or not at all.

  A text that a spreadsheet would take for a formula, as it begins with = + - @ and is no number, gets an apostrophe.
  """
  write_whole(path, "".join(map(_line, [header, *([_cell(value) for value in row] for row in rows)])))


def _line(cells: Sequence[object]) -> str:
  line = io.StringIO()
  csv.writer(line).writerow(cells)  # with another end of lines, Python 3.11 and 3.12 leave \r within a cell unquoted
  return line.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: object) -> object:
  if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
    return value
  try:
    float(value)
  except ValueError:
    return f"'{value}"
  return value


class NotWritten(UserError):
  """The metrics could not be written to a file; they are in `metrics`."""

  def __init__(self, message: str, metrics: Mapping[str, Any]):
    super().__init__(message)
    self.metrics = metrics


class RunFolder:
  """The files of one run, by name."""

  def __init__(self, workdir: str | Path):
    self.path = Path(workdir).expanduser().absolute()
    self.checkpoints = self.path / "checkpoints"
    self.metrics = self.path / "metrics.jsonl"
    self.tensorboard = self.path / "tensorboard"
    self._lock: TextIO | None = None

  def begin(
    self, config: Mapping[str, Any], tree: LabelTree, data_checksum: str, judged_on: Mapping[str, str] | None = None
  ) -> list[str]:
    """Writes config, tree and data checksum to a new folder, or checks that they are those of this folder.

    In a folder without a checkpoint, tree and data checksum are written again: a crash may have left them out.

    Args:
      config: the resolved config.
      tree: the label tree.
      data_checksum: of the training images, see `hierjax.data.source.data_checksum`.
      judged_on: the same of the images of the other splits, by split.

    Returns:
      A line about each of these splits whose images have changed since the run began.

    Raises:
      UserError: the folder holds a run of another config, tree or data, or no run at all; differing keys are listed.
    """
    self._check_is_folder()
    saved_config = self.path / "config.json"
    visible = [p for p in self.path.glob("*") if not p.name.startswith(".")]  # hidden files: left by a crash
    if visible and not saved_config.exists():
      raise UserError(f"{self.path} holds files but no config.json: choose an empty folder for --workdir")
    if not saved_config.exists():
      write_whole(saved_config, json.dumps(config, indent=2) + "\n")
    ours, theirs = flatten(json.loads(json.dumps(config))), flatten(self.config())
    differing = [
      f"  config.{key}: {theirs.get(key, '(absent)')!r} in the folder, {ours.get(key, '(absent)')!r} now"
      for key in sorted(ours.keys() | theirs.keys())
      if key.partition(".")[0] not in _FREE and (key not in ours or key not in theirs or ours[key] != theirs[key])
    ]
    other = f"{self.path} is the folder of a run with another"
    if differing:
      changed = {key: ours[key] for key in ours if key not in theirs or ours[key] != theirs[key]}
      raise UserError(f"{other} config; {self._remedy(changed)}.\n" + "\n".join(differing))
    if not self.has_checkpoint():
      write_whole(self.path / "tree.json", tree.to_json())
      about = {"format": FORMAT, "sha256": data_checksum, "judged_on": dict(judged_on or {})}
      write_whole(self.path / "data.json", json.dumps(about) + "\n")
      return []
    if self.tree() != tree:
      raise UserError(f"{other} label tree: it has changed since; {self._remedy({})}")
    if not (self.path / "data.json").exists():
      raise UserError(f"{self.path} is not a complete run folder: it has no data.json")
    if changed_part := what_changed(self.data_checksum(), data_checksum):
      raise UserError(
        f"{other} set of training images: it has changed since (their {changed_part}); {self._remedy({})}"
      )
    return [
      f"warning: the {split} images have changed since the run began (their {part})"
      for split, now in (judged_on or {}).items()
      if (before := self._judged_on(split)) and (part := what_changed(before, now))
    ]

  def _remedy(self, changed: Mapping[str, Any]) -> str:
    """Returns what trains the weights of this folder on, with other values of keys."""
    run = shlex.quote(str(self.path))
    if not self.has_checkpoint():
      return "it has no weights yet: remove it, or choose another --workdir"
    if any(key.partition(".")[0] in ("backbone", "neck", "head", "merged") for key in changed):
      return f"give this one another --workdir, where --config.init.run={run} starts from its weights"
    texts = {key: value if isinstance(value, str) else repr(frozen(value)) for key, value in changed.items()}
    kept = [(key, shlex.quote(text)) for key, text in sorted(texts.items()) if not key.startswith("init.")]
    values = "".join(f" --config.{key}={text}" for key, text in kept)
    return f"its weights go on in a new run with `hierjax train --extend {run}{values}`"

  def has_checkpoint(self) -> bool:
    """Returns whether a run goes on here, instead of starting."""
    return any(map(is_checkpoint, self.checkpoints.glob("*")))

  def newest_step(self) -> int | None:
    """Returns the step of the newest checkpoint, whole or damaged; None where there is none."""
    return max((int(p.name) for p in self.checkpoints.glob("*") if is_checkpoint(p)), default=None)

  def _check_is_folder(self) -> None:
    if self.path.exists() and not self.path.is_dir():
      raise UserError(f"{self.path} is a file: choose a folder for --workdir")

  def lock(self) -> None:
    """Keeps other processes from training in this folder until `close`.

    Raises:
      UserError: one does already, or there is a file of this name.
    """
    self._check_is_folder()
    self.path.mkdir(parents=True, exist_ok=True)
    lock = (self.path / ".lock").open("w")
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      lock.close()
      raise UserError(f"another process is training in {self.path}") from None
    self._lock = lock

  def close(self) -> None:
    """Releases the lock, if there is one; so does the end of the process."""
    if self._lock is not None:
      self._lock.close()

  def config(self) -> dict[str, Any]:
    """Returns the resolved config; raises UserError where the folder has none."""
    path = self.path / "config.json"
    try:
      config = read_json(path, "the config of a hierjax run")
    except FileNotFoundError:
      reason = "it has no config.json" if self.path.is_dir() else "there is no such folder"
      raise UserError(f"{self.path} is not a run folder: {reason}") from None
    if not is_run_config(config):
      raise UserError(f"{path} is not the config of a hierjax run")
    self._check_format()
    return config

  def _check_format(self) -> None:
    """Raises UserError for a folder that another version of hierjax wrote in another format."""
    try:
      found = read_json(self.path / "data.json", "the checksum of training images").get("format", "none")
    except FileNotFoundError:
      return  # a crash left the folder so; reading anything else of it is refused
    if found != FORMAT:
      raise UserError(
        f"{self.path} has the format {found!r}, and this version of hierjax reads {FORMAT!r}: train it anew, or use "
        "the version that wrote it"
      )

  def tree(self) -> LabelTree:
    """Returns the label tree; raises UserError where it is missing or damaged."""
    path = self.path / "tree.json"
    if not path.exists():
      raise UserError(f"{self.path} is not a complete run folder: it has no tree.json")
    return LabelTree.load(path)

  def data_checksum(self) -> str:
    """Returns the checksum of the training images; '' where it is missing; UserError where it is damaged."""
    path = self.path / "data.json"
    try:
      checksum = read_json(path, "the checksum of training images").get("sha256")
    except FileNotFoundError:
      return ""
    if not isinstance(checksum, str):
      raise UserError(f"{path} is damaged: it has no 'sha256'")
    return checksum

  def _judged_on(self, split: str) -> str:
    """Returns the checksum of the images of a split when the run began; '' where it is not known."""
    try:
      kept = read_json(self.path / "data.json", "the checksum of training images")
    except FileNotFoundError:
      return ""
    own = {"train": kept.get("sha256"), **(kept.get("judged_on") or {})}
    return own[split] if isinstance(own.get(split), str) else ""

  def evaluation_name(self, name: str, split: str, images: Mapping[str, str] | None) -> str:
    """Returns the name of a file in eval/ without its suffix: NAME, or NAME-images-XXXX for images not of the run.

    Those of the run are the images of the split that it began with, or else those that NAME.json is of.

    Args:
      name: of the file, such as the split's.
      split: the split that it is about.
      images: `Run.images_of` of the split; None where the numbers do not depend on them.
    """
    data = self._written(name).get("data", {})
    before = data["checksum"] if is_of_images(data) else ""
    return name if images is None else name + self.suffix_of(split, images["checksum"], before)

  def suffix_of(self, split: str, checksum: str, before: str = "") -> str:
    """Returns the end of names of files about a split: '', or -images-XXXX for images not of the run.

    Those of the run are the images that it began with, or else those with the checksum `before`.
    """
    own = self._judged_on(split) or before
    return f"-images-{hashlib.sha256(checksum.encode()).hexdigest()[:8]}" if own and what_changed(own, checksum) else ""

  def write_evaluation(self, name: str, metrics: Mapping[str, Any]) -> Path:
    """Writes eval/NAME.json, see `evaluation_name`, and returns its path.

    Raises:
      UserError: a metric is not finite, which no JSON is.
      NotWritten: the file cannot be written.
    """
    file = self.evaluation_name(name, metrics.get("split", ""), metrics.get("data"))
    path = self.path / "eval" / f"{file}.json"
    for key, value in metrics.items():
      try:
        json.dumps(value, allow_nan=False)
      except ValueError:
        step = f" of step {metrics['step']}" if "step" in metrics else ""
        raise UserError(f"the {key} of {name} is {value}: the weights{step} do not give finite numbers") from None
    try:
      write_whole(path, json.dumps(metrics, indent=2) + "\n")
    except (OSError, UserError) as error:
      raise NotWritten(f"{path} could not be written ({error})", metrics) from None
    if file != name:
      print(f"these are not the {metrics['split']} images of the run: the numbers are in {path}", flush=True)
    return path

  def selective_evaluation(self, split: str, images: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Returns the contents of eval/SPLIT-threshold.json of images, as `evaluation` does."""
    return self.evaluation(
      self.evaluation_name(f"{split}-threshold", split, images),
      ("members", "threshold", "coverage", "selective_accuracy", "level_coverage", "level_accuracy"),
    )

  def evaluation(self, split: str, keys: Collection[str] = _MEASURED) -> dict[str, Any] | None:
    """Returns the contents of eval/SPLIT.json; None where no file has these keys, and values of their types."""
    found = self._written(split)
    return found if set(keys) <= found.keys() and is_evaluation(found) else None

  def _written(self, name: str) -> dict[str, Any]:
    """Returns the contents of eval/NAME.json, of any types; {} where there are none."""
    try:
      return read_json(self.path / "eval" / f"{name}.json", "what `evaluate` writes")
    except (FileNotFoundError, UserError):
      return {}

  def cut_metrics(self, last_step: int) -> None:
    """Drops the lines of metrics.jsonl that lie after `last_step`, and a line torn by a crash."""
    if self.metrics.exists():
      kept = [line for line in self.metric_lines() if json.loads(line)["step"] <= last_step]
      write_whole(self.metrics, "".join(line + "\n" for line in kept))

  def metric_lines(self) -> Iterable[str]:
    """Yields the lines of metrics.jsonl that are whole; none where there is no such file."""
    if not self.metrics.exists():
      return
    for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
      try:
        whole = type(json.loads(line)["step"]) is int
      except (ValueError, KeyError, TypeError, RecursionError):
        continue
      if whole:
        yield line
