"""``python -m triphase``: the same as ``triphase``."""

import sys

from triphase.cli.main import main
from triphase.cli.program import end

if __name__ == "__main__":
    end(main(sys.argv[1:]))
