"""How the responses to a fixed choice of prompts changed over PPO."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from triphase.errors import RunError
from triphase.monitoring.samples import FILE_NAME
from triphase.records.files import read_json_lines
from triphase.settings.phase_names import PPO, VARIANTS, policy_of

PROMPTS, MOMENTS = 6, 6
"""Number of prompts shown, and maximum number of iterations of each."""
COMPARED = 1000
"""Number of words of a response that are compared with the previous one."""


@dataclass(frozen=True, slots=True)
class ResponseAt:
    """One response, and the iteration that sampled it, from 1 as in the curves."""

    iteration: int
    response: str
    finished: bool
    tokens: int
    score: float | None
    gold: float | None
    reference_kl: float | None
    pieces: tuple[tuple[str, bool], ...]
    """The response in pieces, each with whether it is new since the previously shown response."""


@dataclass(frozen=True, slots=True)
class PromptCourse:
    """One prompt, and the responses to it from the first iteration that sampled it to the last."""

    prompt: str
    moments: tuple[ResponseAt, ...]


def courses_of(run: Path) -> dict[str, list[PromptCourse]]:
    """The courses of the main PPO run (`ppo`) and of each variant (`arm:NAME`); those without rollouts are left out.

    Raises:
        RunError: a file of rollouts is damaged.
    """
    phases = {PPO: run / PPO, **{policy_of(path.name): path for path in sorted((run / VARIANTS).glob("*"))}}
    found = {name: _courses(path / FILE_NAME) for name, path in phases.items()}
    return {name: courses for name, courses in found.items() if courses}


def _courses(path: Path) -> list[PromptCourse]:
    try:
        return prompt_courses(read_json_lines(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({type(error).__name__}: {error}); restore the file, or remove it") from None


def prompt_courses(rows: Iterable[Mapping[str, Any]]) -> list[PromptCourse]:
    """The courses of the first prompts that occurred twice, in the order of the hashes of their ids.

    The first response of each iteration; of many iterations an evenly spaced selection with the first and the last.
    """
    asked: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        asked.setdefault(row["prompt_id"], {}).setdefault(row["iteration"], row)
    again = sorted((key for key, of in asked.items() if len(of) > 1), key=_digest)[:PROMPTS]
    return [PromptCourse(asked[key][min(asked[key])]["prompt"], tuple(_moments(asked[key]))) for key in again]


def _moments(asked: Mapping[int, Mapping[str, Any]]) -> Iterator[ResponseAt]:
    before: str | None = None
    for at in _evenly(sorted(asked)):
        yield _moment(asked[at], before)
        before = asked[at]["response"]


def pieces_of(text: str, before: str | None) -> tuple[tuple[str, bool], ...]:
    """``text`` in pieces, each with whether its words are new since ``before``; with None, nothing is new.

    The pieces joined are the text. Words are compared in their order (difflib), white space belongs to the word before
    it; of long responses only the first ``COMPARED`` words, to bound the time.
    """
    if before is None or not text:
        return ((text, False),)
    words = _words(text)
    ours, theirs, rest = words[:COMPARED], _words(before)[:COMPARED], "".join(words[COMPARED:])
    old, new = ([word.strip() for word in side] for side in (theirs, ours))
    found = list[tuple[str, bool]]()
    for kind, _, _, low, high in SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if low < high:
            found.append(("".join(ours[low:high]), kind != "equal"))
    return (*found, (rest, False)) if rest else tuple(found)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*|\s+", text)


def _moment(row: Mapping[str, Any], before: str | None) -> ResponseAt:
    return ResponseAt(
        row["iteration"] + 1,
        row["response"],
        row["finished"],
        row["tokens"],
        row["score"],
        row["gold"],
        row["reference_kl"],
        pieces_of(row["response"], before),
    )


def _evenly(steps: Sequence[int]) -> list[int]:
    if len(steps) <= MOMENTS:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (MOMENTS - 1))] for place in range(MOMENTS)]


def _digest(prompt_id: str) -> bytes:
    return hashlib.sha256(prompt_id.encode("utf-8", "surrogatepass")).digest()
