"""A function by its name `package.module:function`, through Python's own import."""

import importlib
from collections.abc import Callable
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
    except Exception as error:
        text = " ".join(visible(str(error)).split())[:200]
        raise SettingsError(
            f"{setting}: {name}: importing {module} raised {type(error).__name__}: {text}; mend the module"
        ) from None
    if not callable(found):
        problem = "is no function" if found is not None else "is not in it"
        raise SettingsError(f"{setting}: {name}: {attribute} {problem}; name a function of {module}")
    function: Callable[..., Any] = found
    return function
