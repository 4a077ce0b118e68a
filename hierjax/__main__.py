"""`python -m hierjax`, the same as the command `hierjax`."""

import sys

from hierjax.cli.main import main

if __name__ == "__main__":
  sys.exit(main())
