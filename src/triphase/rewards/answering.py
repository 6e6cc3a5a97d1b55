"""What a scoring function returns for a request, as plain values, in its own process or in this one."""

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from triphase.rewards.call_conventions import Convention
from triphase.rewards.importing import shown_error
from triphase.rewards.returned_scores import Unusable, columns_of


def answer_of(convention: Convention, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A function's result for a batch, or why it has none; for ``look_for``, the columns that it lacks and leaves."""
    if "look_for" in asked:
        return {"problem": convention.problem(asked["look_for"]), "note": convention.note(asked["look_for"])}
    return _called(convention, asked) if "responses" in asked else {}


def _called(convention: Convention, asked: Mapping[str, Any]) -> dict[str, Any]:
    count = len(asked["responses"])  # before the call, which may change the list
    try:
        given = convention.call(asked)
        if inspect.iscoroutine(given):
            given = asyncio.run(given)
    except BaseException as error:  # sys.exit in it ends neither this process nor the run
        return {"raised": shown_error(error)}
    try:
        return {"columns": columns_of(given, count, as_trl=convention.as_trl, may_abstain=asked["may_abstain"])}
    except Unusable as error:
        return {"problem": str(error), "row": error.row}
    except Exception as error:  # an object of the function's own that raises when it is inspected
        return {"problem": f"returns something that cannot be read ({shown_error(error)})", "row": None}
