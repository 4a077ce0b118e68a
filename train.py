r"""Trains the model of a config, or continues the run in its folder: the same as `hierjax train`.

python train.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

import sys

from hierjax.cli.main import main

if __name__ == "__main__":
  sys.exit(main(["train", *sys.argv[1:]]))
