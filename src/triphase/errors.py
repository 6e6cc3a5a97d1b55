"""The errors that users can cause and fix: one line, and exit code 2.

Each names the file, line or key, the value found, and the remedy. Anything else that is raised is a defect of the
program and keeps its traceback.
"""

import errno

_MEMORY = (
    *("DefaultCPUAllocator", "out of memory", "allocate memory", "failed to map segment"),
    "_STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN, whose workspaces are not torch's
)


class TriphaseError(Exception):
    """A mistake or a circumstance outside the program: shown as one line, without a traceback."""


class SettingsError(TriphaseError):
    """A setting that is unknown, of the wrong type, or in conflict with another."""


class DataError(TriphaseError):
    """A record, or a file of records, that cannot be used. Names the file and the line."""


class ModelError(TriphaseError):
    """A model or tokenizer that is absent, unsuitable, or incompatible with the division of its layers."""


class StoreError(TriphaseError):
    """The store of prompts, responses and rankings is unreachable, locked, of another version, or was given wrong
    ids."""


class RunError(TriphaseError):
    """A run directory that is damaged, locked by another process, or belongs to another configuration."""


class WaitingForPeople(RunError):
    """Not a mistake: people have not ranked enough yet, and the same command continues when they have. Exit code 3."""


class TrainingError(TriphaseError):
    """Training cannot continue: a tensor that is not finite, a broken invariant, an exceeded budget."""


class UnscoredAnswer(TrainingError):
    """A scorer fails on one response, whatever it is scored with: ``problem``, without the response and a remedy."""

    def __init__(self, message: str, problem: str) -> None:
        super().__init__(message)
        self.problem = problem


class ServerError(TriphaseError):
    """A server used by a run (a remote scorer, a vLLM server) is unreachable, or its response is wrong or too large.

    ``status`` is that of its response, if the response is the problem.
    """

    status: int | None = None


class ServerAway(ServerError):
    """A server that did not respond, or is overloaded, after the last try: another may do its work."""


def first_line_of(error: BaseException, most: int = 200) -> str:
    """The first line of another library's message, or its type if it has none; a long one ends after a whole word."""
    return clipped((str(error).strip().splitlines() or [type(error).__name__])[0], most)


def clipped(text: str, most: int = 200) -> str:
    """A text of at most ``most`` characters, and an ellipsis in place of the words after them."""
    if len(text) <= most:
        return text
    start = text[:most]
    return f"{start if text[most] == ' ' else start.rpartition(' ')[0] or start}…"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library ran out of memory (on a CPU or a GPU), in any of the ways in which they report it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return getattr(error, "errno", None) == errno.ENOMEM or any(text in str(error) for text in _MEMORY)
