"""A function by its name `package.module:function`, through Python's own import."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from triphase.errors import SettingsError
from triphase.records.visible import visible


def imported(name: str, setting: str) -> Callable[..., Any]:
    """The function that a setting names.

    Raises:
        SettingsError: there is no such module or function, or importing the module raises.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        missing = f"module {error.name}"
        raise SettingsError(
            f"{setting}: {name}: {missing} cannot be found; install its package, or name its folder in PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as error:
        text = " ".join(visible(str(error)).split())[:200]
        raise SettingsError(
            f"{setting}: {name}: importing {module} raised {type(error).__name__}: {text}; mend the module"
        ) from None
    if not callable(found):
        problem = "is no function" if found is not None else "is not in it"
        raise SettingsError(f"{setting}: {name}: {attribute} {problem}; name a function of {module}")
    function: Callable[..., Any] = found
    return function


def source_of(name: str) -> Path | None:
    """The file of the module that has the function; None where there is none, or it cannot be told."""
    try:
        found = importlib.util.find_spec(name.partition(":")[0])
    except (Exception, SystemExit):  # a package around it that cannot be imported; `imported` says so
        return None
    path = None if found is None or found.origin is None else Path(found.origin)
    return path if path is not None and path.is_file() else None
