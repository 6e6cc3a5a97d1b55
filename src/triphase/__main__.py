"""``python -m triphase``: the same as ``triphase``."""

import sys

from triphase.cli.main import main

sys.exit(main())
