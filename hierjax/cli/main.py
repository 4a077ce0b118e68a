"""The command line: the table of commands, help, and exit statuses."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence

from hierjax import __version__
from hierjax.cli import compare, export, predict, push, report, serve, study, train
from hierjax.cli.common import Command, Parser, UsageError, indented
from hierjax.cli.config import list_configs as config_list
from hierjax.cli.config import show as config_show
from hierjax.cli.data import check, clear_cache, demo, features, pack, prepare, pseudo_label, show
from hierjax.cli.evaluate import command as evaluate
from hierjax.cli.plot import adaptation, neighbours, predictions, states, tree
from hierjax.cli.weights import import_weights as weights_import
from hierjax.cli.weights import wrap as weights_wrap
from hierjax.errors import UserError, did_you_mean

COMMANDS: Mapping[str, Command] = {
  "train": train,
  "evaluate": evaluate,
  "predict": predict,
  "report": report,
  "compare": compare,
  "study": study,
  "export": export,
  "serve": serve,
  "push": push,
  "plot predictions": predictions,
  "plot states": states,
  "plot neighbours": neighbours,
  "plot adaptation": adaptation,
  "plot tree": tree,
  "data check": check,
  "data show": show,
  "data demo": demo,
  "data clear-cache": clear_cache,
  "data features": features,
  "data pack": pack,
  "data pseudo-label": pseudo_label,
  "data prepare": prepare,
  "weights import": weights_import,
  "weights wrap": weights_wrap,
  "config show": config_show,
  "config list": config_list,
}

_EPILOG = """
examples:
  hierjax train quickstart
  hierjax evaluate runs/quickstart
  hierjax predict runs/quickstart photos/
  hierjax predict lite0 photos/
  hierjax COMMAND --help

exit status:
  0    the command succeeded
  1    it failed: a file, a label, a setting or the data is wrong; the message on stderr says which
  2    the command line cannot be understood
  130  Ctrl-C ended it
  143  SIGTERM ended it; the same `train` command continues the run (129: SIGHUP, 138: SIGUSR1)
  75   another process of the run was lost; the same `train` command on all processes continues it
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command line and returns the exit status."""
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")  # labels come from files; the terminal may not have their characters
  try:
    return _run(list(sys.argv[1:] if argv is None else argv))
  except UsageError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except BrokenPipeError:  # the reader, `head` for example, has closed the pipe
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (UserError, OSError) as error:
    sys.excepthook = lambda *_: None  # pending reads of a damaged checkpoint would print tracebacks
    print(f"error: {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 130


def _run(words: list[str]) -> int:
  if words and words[0] == "--version":
    print(f"hierjax {__version__}")
    return 0
  name, rest = _split(words)
  if name not in COMMANDS:
    return _help(name, asked_for=bool(rest))
  try:
    args = Parser(name, COMMANDS[name]).parse(rest)
  except SystemExit:  # argparse ends `--help` by this
    return 0
  return COMMANDS[name].run(args)


def _split(words: list[str]) -> tuple[str, list[str]]:
  """Returns a command's name, or the first word of one, or '', and the words that follow.

  Raises:
    UsageError: there is no such command.
  """
  groups = {"", *(name.split()[0] for name in COMMANDS if " " in name)}
  name, rest = "", words
  while rest and name in groups and not rest[0].startswith("-"):
    longer = f"{name} {rest[0]}".strip()
    if longer not in COMMANDS and longer not in groups:
      raise UsageError(f"unknown command {longer!r}{did_you_mean(longer, [*COMMANDS, *groups])}\n{_usage(name)}")
    name, rest = longer, rest[1:]
  if name in groups and rest and rest[0] not in ("-h", "--help"):
    raise UsageError(f"unknown argument {rest[0]}\n{_usage(name)}")
  return name, rest


def _help(group: str, asked_for: bool) -> int:
  """Prints the commands, or those of a group; a command line without a command is an error."""
  text = f"{_usage(group)}\n\n{'' if group else 'Image classification into a tree of labels.' + chr(10) * 2}"
  text += f"commands:\n{_listing(group)}\n{_EPILOG if not group else ''}"
  if not group:
    text += "\noptions:\n  --help     show this text, or that of a command\n  --version  show the version\n"
  print(text.rstrip(), file=sys.stdout if asked_for else sys.stderr)
  return 0 if asked_for else 2


def _usage(group: str) -> str:
  return f"usage: hierjax {group} COMMAND ...".replace("  ", " ")


def _listing(group: str) -> str:
  names = [name for name in COMMANDS if not group or name.startswith(f"{group} ")]
  width = max(map(len, names))
  return indented("\n".join(f"{name:{width}}  {COMMANDS[name].HELP}" for name in names))
