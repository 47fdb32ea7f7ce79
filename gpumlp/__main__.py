"""``python -m gpumlp``: the command line."""

import sys

from gpumlp.cli import main

sys.exit(main())
