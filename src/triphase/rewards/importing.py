"""A function by its name `package.module:function` or `file.py:function`, through Python's own import."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from triphase.errors import SettingsError
from triphase.records.visible import visible

_LONGEST = 200


def imported(name: str, setting: str) -> Callable[..., Any]:
    """The function in a setting. Importing it runs its module's code: call this where that is safe.

    Raises:
        SettingsError: there is no such file, module or function, or importing the module raises.
    """
    require_file(name, setting)
    place, attribute = parts_of(name)
    try:
        module = _from_file(Path(place)) if is_file(place) else importlib.import_module(place)
    except ModuleNotFoundError as error:
        remedy = "put its file next to it" if is_file(place) else "add its folder to PYTHONPATH"
        raise SettingsError(
            f"{setting}: {name}: module {error.name} cannot be found; install its package, or {remedy}"
        ) from None
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{setting}: {name}: importing {place} raised {shown_error(error)}; fix it") from None
    if not hasattr(module, attribute):
        near = get_close_matches(attribute, dir(module), n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else f"choose a function of {place}"
        raise SettingsError(f"{setting}: {name}: {attribute} is not in it; {hint}")
    function: Callable[..., Any] = getattr(module, attribute)
    if not callable(function):
        raise SettingsError(f"{setting}: {name}: {attribute} is not a function; choose a function of {place}")
    return function


def require_file(name: str, setting: str) -> None:
    """Require the file of a function, if it names one; a module is only found by importing it.

    Raises:
        SettingsError: there is no such file.
    """
    place, _ = parts_of(name)
    if is_file(place) and not os.path.exists(place):  # False for a name that is too long
        raise SettingsError(
            f"{setting}: {name}: the file {place} does not exist; give its path from the directory of the settings "
            "file, or on the command line for a run from the working directory"
        )


def parts_of(name: str) -> tuple[str, str]:
    """The file or module, and the function in it."""
    place, _, attribute = name.rpartition(":")
    return place, attribute


def is_file(place: str) -> bool:
    """Whether it is the path of a file, and not a module's name."""
    return place.endswith(".py")


def source_of(name: str) -> Path | None:
    """The file of the module that contains the function; None if there is none. Nothing is imported."""
    place, _ = parts_of(name)
    if is_file(place):
        return Path(place) if Path(place).is_file() else None
    found, where = None, sys.path
    for part in place.split("."):
        try:  # by its last name: a package without __init__.py would be searched in its parent, which is not imported
            found = PathFinder.find_spec(part, where)
        except (ImportError, ValueError):
            return None
        if found is None:
            return None
        where = list(found.submodule_search_locations or [])
    origin = None if found is None or found.origin is None else Path(found.origin)
    return origin if origin is not None and origin.is_file() else None


def shown_error(error: BaseException) -> str:
    """An exception in one line."""
    try:
        text = " ".join(visible(str(error)).split())[:_LONGEST]
    except Exception:  # a class of the function's own that cannot be printed
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(path)
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
