"""The argument parser of a command, the arguments that several commands share, and JSON on stdout."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

from hierjax.data.split_names import split_name
from hierjax.errors import UserError, did_you_mean

if TYPE_CHECKING:
  from hierjax.inference.purpose import Purpose


@runtime_checkable
class Command(Protocol):
  """A module that is one command.

  Attributes:
    HELP: one sentence for the list of commands.
    EXAMPLES: command lines, one a line, that `--help` shows.
  """

  HELP: str
  EXAMPLES: str

  def add_arguments(self, parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""

  def run(self, args: argparse.Namespace) -> int:
    """Runs the command and returns the exit status."""


class UsageError(Exception):
  """The command line cannot be understood; the message says what is wrong and shows the usage."""


class Parser(argparse.ArgumentParser):
  """A parser that raises UsageError, suggests similar options and never accepts abbreviations."""

  def __init__(self, name: str, command: Command):
    super().__init__(
      prog=f"hierjax {name}",
      description=command.HELP,
      epilog=f"examples:\n{indented(command.EXAMPLES)}",
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    command.add_arguments(self)

  def parse(self, words: Sequence[str]) -> argparse.Namespace:
    """Parses the words after the command's name; `--config.KEY=VALUE` goes to `overrides`, unread.

    Raises:
      UsageError: an argument is unknown, missing or of another kind.
    """
    overrides = [word for word in words if _is_override(word)]  # argparse takes one with a space for a file's name
    args, unknown = self.parse_known_args([word for word in words if not _is_override(word)])
    if overrides and "overrides" in args:
      args.overrides = overrides
    elif overrides:
      unknown = [*unknown, *overrides]
    if unknown:
      hint = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
      self.error(f"unknown argument {unknown[0]}{hint}")
    return args

  def error(self, message: str) -> NoReturn:
    """Raises UsageError."""
    raise UsageError(f"{message}\n{self.format_usage().strip()}\n{self.prog} --help shows examples")


def _is_override(word: str) -> bool:
  return word.lstrip("-").removeprefix("no").startswith("config.") and word.startswith("-")


def indented(lines: str) -> str:
  """Returns text with two spaces before each line."""
  return "\n".join(f"  {line}" for line in lines.strip().splitlines())


def quoted(path: Any) -> str:
  """Returns a path as a shell reads it."""
  return shlex.quote(str(path))


def add_workdir(parser: argparse.ArgumentParser, about: str = "the run's folder") -> None:
  """Adds the positional argument WORKDIR."""
  parser.add_argument("workdir", metavar="WORKDIR", help=about)


def add_data_root(parser: argparse.ArgumentParser) -> None:
  """Adds `--data-root`."""
  parser.add_argument(
    "--data-root", default="", metavar="FOLDER", help="where the data set is now, if not where config.json says"
  )


def add_devices(parser: argparse.ArgumentParser) -> None:
  """Adds `--devices`."""
  about = "CPU devices that share each batch (default: one a core, 8 at most)"
  parser.add_argument("--devices", type=at_least_1, default=0, metavar="N", help=about)


def add_format(parser: argparse.ArgumentParser) -> None:
  """Adds `--format`."""
  parser.add_argument("--format", default="png", choices=("png", "svg", "pdf"), help="of the picture (default png)")


def add_split(parser: argparse.ArgumentParser) -> None:
  """Adds `--split`."""
  about = (
    "train, validation (or val), calibration or test (default: test, or validation where the set has no test split)"
  )
  parser.add_argument("--split", type=split, default="", metavar="SPLIT", help=about)


def split(text: str) -> str:
  """Returns the name of a split; the type of an argument."""
  try:
    return split_name(text) if text else ""
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from None


def add_seed(parser: argparse.ArgumentParser) -> None:
  """Adds `--seed`."""
  parser.add_argument("--seed", type=int, default=0, help="seed of the random choice of images (default 0)")


def add_decoding(parser: argparse.ArgumentParser) -> None:
  """Adds what `predict` and `export` share: `--top`, `--alpha`, `--threshold`, and the purpose of the answers."""
  parser.add_argument("--top", type=at_least_1, default=1, metavar="K", help="paths an image, best first (default 1)")
  parser.add_argument(
    "--alpha", default="", metavar="A", help="strength of classifier adaptation, 0 to 2; or `chosen`, by a sweep"
  )
  parser.add_argument(
    "--threshold", default="", metavar="P",
    help="confidence threshold, 0 to 1: the answer is the deepest node of a probability of at least P; or `chosen`, by "
    "a sweep, or `certified`, by `evaluate --certify`",
  )  # fmt: skip
  add_purpose(parser)


def add_purpose(parser: argparse.ArgumentParser) -> None:
  """Adds `--minimise`, `--level`, `--rank` and `--only`."""
  parser.add_argument(
    "--minimise", default="", metavar="COST",
    help="answer with the node, of any level, of the smallest expected cost: edges, height, hf0.5, hf1 or hf2",
  )  # fmt: skip
  parser.add_argument("--level", type=at_least_1, default=0, metavar="N", help="answer with the best node of level N")
  parser.add_argument("--rank", default="", metavar="NAME", help="the same by the level's name")
  parser.add_argument(
    "--only", default="", metavar="FILE", help="answer with the nodes of this file alone: a name or a path a line"
  )


def purpose_of(args: argparse.Namespace) -> Purpose:
  """Returns what these arguments say; raises UserError where they do not go together."""
  from hierjax.inference.purpose import Purpose

  return Purpose(args.minimise, args.level, args.rank, args.only)


def at_least_1(text: str) -> int:
  """Returns a whole number of at least 1; the type of an argument."""
  try:
    number = int(text)
  except ValueError:
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
  if number < 1:
    raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
  return number


def add_json(parser: argparse.ArgumentParser) -> None:
  """Adds `--json`."""
  parser.add_argument(
    "--json", action="store_true", help="print one JSON object on stdout; everything else goes to stderr"
  )


@contextlib.contextmanager
def output(as_json: bool) -> Iterator[Callable[[Any], None]]:
  """Yields a function that prints a result as JSON; then nothing else of the block reaches stdout.

  Args:
    as_json: whether `--json` was given; if not, the function does nothing and stdout stays as it is.
  """
  if not as_json:
    yield lambda result: None
    return
  stdout = sys.stdout
  with contextlib.redirect_stdout(sys.stderr):
    yield lambda result: print(json.dumps(result, ensure_ascii=False, allow_nan=False), file=stdout)
