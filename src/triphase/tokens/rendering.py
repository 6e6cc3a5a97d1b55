"""A chat template comes with a model and is a program: it runs in the sandbox of transformers, for a bounded time.

The sandbox keeps it from Python's inner parts, but not from going round in circles. A thread watches the clock, because
a signal would reach the main thread alone.
"""

import ctypes
import threading
import time
from collections.abc import Sequence
from typing import Any

from triphase.errors import ModelError

SECONDS = 10.0
_LONGEST_TEXT = 50_000_000


class _TooLong(BaseException):
    """Raised by the watch inside a rendering; a template cannot catch it."""


class _Watch:
    """Ends a rendering at its deadline. One thread for all of them, begun with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[int, float] = {}
        self._thread: threading.Thread | None = None

    def begin(self, seconds: float) -> None:
        """The rendering of this thread ends in ``seconds`` at the latest."""
        with self._lock:
            self._deadlines[threading.get_ident()] = time.monotonic() + seconds
            if self._thread is None or not self._thread.is_alive():  # a forked process has none
                self._thread = threading.Thread(target=self._run, daemon=True, name="templates")
                self._thread.start()

    def end(self) -> None:
        """The rendering of this thread is over."""
        with self._lock:
            self._deadlines.pop(threading.get_ident(), None)

    def _run(self) -> None:
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        while True:
            time.sleep(0.1)
            with self._lock:
                for thread, deadline in list(self._deadlines.items()):
                    if time.monotonic() > deadline:
                        del self._deadlines[thread]
                        raise_in(ctypes.c_ulong(thread), ctypes.py_object(_TooLong))


_watch = _Watch()


def render(tokenizer: Any, conversation: Sequence[dict[str, str]], *, open_turn: bool, seconds: float = SECONDS) -> str:
    """The text that the tokenizer's chat template makes of a conversation.

    Raises:
        ModelError: the template refuses the conversation, is wrong, reaches for what the sandbox forbids, or does not
            end within ``seconds``.
    """
    from jinja2.exceptions import SecurityError, TemplateError

    whose = f"the chat template of {tokenizer.name_or_path or 'this tokenizer'}"
    try:
        _watch.begin(seconds)
        try:
            text = tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=open_turn)
        finally:
            _watch.end()
    except _TooLong:
        raise ModelError(f"{whose} did not end within {seconds:g} s; {_REMEDY}") from None
    except SecurityError as error:
        raise ModelError(f"{whose} reaches for what a template must not have ({error}); {_REMEDY}") from None
    except TemplateError as error:
        raise ModelError(f"{whose} refuses a conversation of {_roles(conversation)}: {error}; {_REMEDY}") from None
    except (TypeError, ValueError, KeyError, OverflowError, MemoryError, RecursionError, ZeroDivisionError) as error:
        raise ModelError(f"{whose} fails ({type(error).__name__}: {error}); {_REMEDY}") from None
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise ModelError(f"{whose} makes no text of a usable length; {_REMEDY}")
    return text


_REMEDY = "change chat_template in the model's files, or choose another model"


def _roles(conversation: Sequence[dict[str, str]]) -> str:
    return ", ".join(message["role"] for message in conversation[:6]) + (", …" if len(conversation) > 6 else "")
