"""Known vulnerabilities of the pinned packages, by pip-audit: `python -m tests.audit`, a part of `make check`.

A known vulnerability fails. If no advisory database can be reached, or it knows none of the packages,
nothing was audited: that is said, and fails nothing, so that `make check` works without a network.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
# Said by pip-audit (or by what it stands on) where there is no network.
AWAY = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ServiceError", "ProxyError", "SSLError", "HTTPError")


def judge(found: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Exit code and lines for what pip-audit reports as JSON."""
    packages = found["dependencies"]
    skipped = [package["name"] for package in packages if package.get("skip_reason")]
    lines = [
        f"vulnerable: {package['name']} {package['version']}: {flaw['id']}"
        + (f" (mended in {', '.join(flaw['fix_versions'])})" if flaw.get("fix_versions") else "")
        for package in packages
        for flaw in package.get("vulns", [])
    ]
    if len(skipped) == len(packages):
        return 0, ["NOTICE: nothing was audited: the database of advisories knows none of the packages, or is away"]
    if skipped:
        lines.append(f"NOTICE: {len(skipped)} of {len(packages)} packages were not audited: {', '.join(skipped[:5])} …")
    vulnerable = any(line.startswith("vulnerable") for line in lines)
    return int(vulnerable), lines or [f"{len(packages)} packages audited, none with a known vulnerability"]


def judge_failure(message: str) -> tuple[int, list[str]]:
    """Exit code and lines where pip-audit gave no report."""
    last = (message.strip().splitlines() or ["no message"])[-1]
    if any(word in message for word in AWAY):
        return 0, [f"NOTICE: nothing was audited: no database of advisories can be reached ({last[:160]})"]
    return 1, [f"pip-audit failed: {last}"]


def main() -> int:
    """Audit, print, and return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    try:
        code, lines = judge(json.loads(done.stdout))
    except ValueError:
        code, lines = judge_failure(done.stderr)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
