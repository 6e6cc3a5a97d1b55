"""`make bench`: lists the benchmarks and runs a quick one that needs no peer.

python -m benchmarks [--list]
"""

import argparse
import ast
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
QUICK = ("benchmarks.generate", "--batch", "8", "--rounds", "1")


def commands() -> dict[str, str]:
    """The modules that a person runs, with their first line; the sides are run by these."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        meaning = ast.get_docstring(ast.parse(text)) or ""
        if (
            path.stem != "__main__"
            and not path.stem.startswith(("ours_", "peer_"))
            and 'if __name__ == "__main__"' in text
        ):
            found[f"benchmarks.{path.stem}"] = meaning.splitlines()[0]
    return found


def main() -> int:
    """Print the list; run the quick one and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="only the list")
    options = parser.parse_args()
    for name, meaning in commands().items():
        print(f"python -m {name}\n    {meaning}")
    if options.list:
        return 0
    print(f"\nThe quick one: python -m {' '.join(QUICK)}", flush=True)
    return subprocess.run([sys.executable, "-m", *QUICK], cwd=HERE.parent).returncode


if __name__ == "__main__":
    sys.exit(main())
