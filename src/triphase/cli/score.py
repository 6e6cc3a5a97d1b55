"""``score``: scores by the reward of a run for the prompts and responses in a file."""

import json
import math
import os
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from triphase.cli import deferred
from triphase.cli.arguments import RunPath, require_run
from triphase.errors import RunError
from triphase.monitoring.wording import counted, percent
from triphase.records.files import atomic_file, disk_errors
from triphase.records.visible import visible_json


def score(
    run: RunPath,
    file: Annotated[
        str,
        Parameter(help="Rows of prompt and response, or of prompt, chosen and rejected, in any supported form."),
    ],
    /,
    *,
    variant: Annotated[str | None, Parameter(help="A variant of the run with its own reward.")] = None,
    to: Annotated[Path | None, Parameter(help="File to create for the scores (JSONL); printed by default.")] = None,
) -> None:
    """Score a file of prompts and responses with a run's reward."""
    require_run(run)
    if to is not None and os.path.lexists(to):  # False for a name that is too long
        raise RunError(f"{to}: already exists; give a new file with --to")
    found = deferred.FileScores()
    rows = deferred.score_rows(run, file, variant, found)
    if to is None:
        plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        for row in rows:
            line = _in_json(row)
            text = json.dumps(line, default=str) if plain else visible_json(line, default=str)
            sys.stdout.write(text + "\n")
    else:
        with disk_errors(to), atomic_file(to) as out:
            for row in rows:
                out.write(visible_json(_in_json(row), default=str).encode() + b"\n")
    accuracy = found.accuracy
    if accuracy is not None:
        bounds = (
            "" if accuracy.low is None else f" (95 % interval {100 * accuracy.low:.0f} to {percent(accuracy.high)})"
        )
        scored = counted(found.comparisons, "comparison")
        print(f"{scored}; correct on {percent(accuracy.value)}{bounds}", file=sys.stderr)
    if found.scores:
        scored, mean = counted(len(found.scores), "response"), statistics.fmean(found.scores)
        print(f"{scored}; mean score {mean:.3f}", file=sys.stderr)
    if found.replaced:
        same = ", ".join(sorted(found.replaced))
        print(f"note: the file has columns with the names of results, which replace them: {same}", file=sys.stderr)
    if found.unscored:
        without = counted(found.unscored, "row")
        print(f"{without} {'has' if found.unscored == 1 else 'have'} no score; `problem` says why", file=sys.stderr)


def _in_json(value: Any) -> Any:
    """``value`` with null for NaN and infinities, which JSON cannot represent."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _in_json(inner) for name, inner in value.items()}
    return [_in_json(inner) for inner in value] if isinstance(value, list | tuple) else value
