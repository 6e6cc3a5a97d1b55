"""The errors that users can cause and fix: one line, and exit code 2.

Each names the file, line or key, the value found, and the remedy. Anything else that is raised is a defect of the
program and keeps its traceback.
"""

import errno

_MEMORY = ("DefaultCPUAllocator", "out of memory", "allocate memory", "failed to map segment")


class TriphaseError(Exception):
    """A mistake or a circumstance outside the program: shown as one line, without a traceback."""


class SettingsError(TriphaseError):
    """A setting that is unknown, of the wrong type, or at odds with another."""


class DataError(TriphaseError):
    """A record, or a file of records, that cannot be used. Names the file and the line."""


class ModelError(TriphaseError):
    """A model or tokenizer that is absent, unsuitable, or does not do what the split of its layers needs."""


class StoreError(TriphaseError):
    """The store of prompts, responses and rankings is away, locked, of another version, or was given wrong ids."""


class RunError(TriphaseError):
    """A run directory that is damaged, held by another process, or belongs to another configuration."""


class WaitingForPeople(RunError):
    """No mistake: people have not ranked enough yet, and the same command continues when they have. Exit code 3."""


class TrainingError(TriphaseError):
    """Training cannot go on: a tensor that is not finite, a broken invariant, a budget exceeded."""


class ServerError(TriphaseError):
    """A server that a run asks (a remote scorer, a vLLM server) is away, answers wrongly, or answers too much.

    ``status`` is that of its answer, where the answer is what is wrong.
    """

    status: int | None = None


class ServerAway(ServerError):
    """A server that gave no answer, or is overloaded, after the last try: another may do its work."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library had no memory left (on a processor or a card), in whichever of their ways it says so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return getattr(error, "errno", None) == errno.ENOMEM or any(text in str(error) for text in _MEMORY)
