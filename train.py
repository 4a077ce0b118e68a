r"""Trains the model of a config, or goes on where its folder was left.

python train.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

import re
import sys
import traceback
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/, and its variant: FILE.py:VARIANT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; default runs/CONFIG-VARIANT.")
_MULTIHOST = flags.DEFINE_string("multihost", "", "auto, or ADDRESS,N,I: join a run of several processes.")


def default_workdir() -> str:
  """Returns runs/CONFIG-VARIANT."""
  file, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  return "-".join([f"runs/{Path(file).stem}", *(word for word in variant.split(",") if word)])


def parse_flags(argv: list[str]) -> list[str]:
  """Reads the flags; a config, variant or key that is not there ends in one sentence."""
  try:
    rest = flags.FLAGS(argv)
    if _CONFIG.value is None:
      sys.exit("error: name a config: --config=configs/quickstart.py")
    _CONFIG.value.to_dict()  # a file that could not be read raises here
    return rest
  except AttributeError as error:  # so ml_collections says that there is no such key, and that a file is no config
    sys.exit(f"error: {_no_such_key(str(error), argv)}")
  except (flags.Error, OSError, TypeError, ValueError) as error:
    text = str(error).strip().splitlines()
    sys.exit(f"error: {text[-1].strip() if text else type(error).__name__} (in the flags, or the config they name)")


def _no_such_key(text: str, argv: list[str]) -> str:
  if "'get_config'" in text:
    file = next((a.partition("=")[2] for a in argv if a.startswith("--config=")), "that file")
    return f"{file} is not a config: it has no function get_config; name another file of configs/"
  named = re.search(r"'(\w+)", text)
  key = named[1] if named else text
  keys = (a.lstrip("-").partition("=")[0] for a in argv if a.startswith("--config."))
  full = next((k for k in keys if key in k.split(".")), key)
  meant = re.search(r'Did you mean "(\w+)"', text)
  hint = f"; did you mean {meant[1]!r}?" if meant else " (the keys of a part come with it: see the config's variants)"
  return f"{full}: the config has no key {key!r}{hint}"


def main(argv: list[str]) -> None:
  """Reads the flags and trains."""
  if len(argv) > 1:
    raise app.UsageError(f"what is {' '.join(argv[1:])}? Flags are written --name=value")
  logging.set_verbosity(logging.WARNING)
  from hierjax.errors import UserError
  from hierjax.runs import devices
  from hierjax.training import loop

  try:
    devices.join(_MULTIHOST.value)
    devices.use_compilation_cache()
    devices.prepare_cpu()
    loop.train_and_evaluate(_CONFIG.value.to_dict(), _WORKDIR.value or default_workdir())
  except (UserError, OSError) as error:
    sys.excepthook = lambda *_: None  # reads of a damaged checkpoint that are still under way complain here
    devices.fail(f"error: {error}")
  except KeyboardInterrupt:
    sys.exit(130)
  except loop.Stopped as stopped:
    print(stopped)
    sys.exit(128 + stopped.signal)
  except Exception:
    if not _MULTIHOST.value:
      raise
    devices.fail(traceback.format_exc())


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
