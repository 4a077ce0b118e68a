"""The commands of hierjax as functions of tests, on one device, which compiles faster than four."""

from unittest import mock

import jax
import numpy as np
from jax.sharding import Mesh

from hierjax.cli.common import Parser
from hierjax.cli.main import COMMANDS

MESH = Mesh(np.array(jax.devices()[:1]), ("data",))


def run_command(name, *words, **flags):
  """Runs a command; its errors are raised, and a list is the value of a flag with several words.

  `run_command("evaluate", folder, alpha="1", against=[a, b])` is `hierjax evaluate FOLDER --alpha 1 --against A B`.
  """
  words = [str(word) for word in words]
  for flag, value in flags.items():
    words += [f"--{flag.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
  with mock.patch("hierjax.runs.devices.data_mesh", lambda: MESH):
    return COMMANDS[name].run(Parser(name, COMMANDS[name]).parse(words))


def evaluate(*workdirs, **flags):
  """Runs `hierjax evaluate`."""
  run_command("evaluate", *workdirs, **flags)
