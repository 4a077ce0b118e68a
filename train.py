r"""Training of a config's model, or continuation of the run in its folder: the same as `hierjax train`.

python train.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

import sys

from hierjax.cli.main import main

if __name__ == "__main__":
  sys.exit(main(["train", *sys.argv[1:]]))
