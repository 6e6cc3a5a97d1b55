"""``python -m triphase``: the same as ``triphase``."""

import sys

from triphase.commands.main import main

sys.exit(main())
