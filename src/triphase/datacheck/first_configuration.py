"""The commented configuration that `triphase init` writes: from the kind of data, and from five choices."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from triphase.datacheck.first_look import FirstLook
from triphase.records.paths import is_file_name
from triphase.records.visible import visible

_MOST_TOKENS, _LEAST_TOKENS, _STEP = 2048, 128, 64
_ANSWER_STEP, _MOST_ANSWER, _LEAST_ANSWER = 16, 256, 32
_NUMBERS = {"demonstrations": "what people wrote", "prompts": "what is asked", "preferences": "what people preferred"}


@dataclass(frozen=True, slots=True)
class RunChoices:
    """The user's choices for the run.

    Attributes:
        name: of the run.
        model: a directory, a hub id, or an embedded model.
        max_length: maximum tokens of prompt and answer.
        response_tokens: maximum tokens of a sampled answer.
        people: whether people rank responses.
    """

    name: str
    model: str
    max_length: int
    response_tokens: int
    people: bool


def suggested_length(looks: Sequence[FirstLook]) -> int:
    """A maximum length that 99 % of the records do not exceed, rounded up, and feasible on small machines."""
    longest = max((look.longest for look in looks), default=0)
    return min(_MOST_TOKENS, max(_LEAST_TOKENS, _STEP * math.ceil(longest / _STEP)))


def suggested_response(looks: Sequence[FirstLook], max_length: int) -> int:
    """A maximum length of sampled answers: that of the data's, and at most half of the total length."""
    longest = max((look.longest_answer for look in looks), default=0) or _LEAST_ANSWER
    rounded = _ANSWER_STEP * math.ceil(longest / _ANSWER_STEP)
    return max(1, min(_MOST_ANSWER, rounded, max_length // 2))


def needs_people(looks: Sequence[FirstLook]) -> bool:
    """Whether no preferences exist yet: there are prompts, and no preferences."""
    roles = {look.role for look in looks}
    return "prompts" in roles and "preferences" not in roles


def written(looks: Sequence[FirstLook], answers: RunChoices, at: Path) -> str:
    """The text of the configuration, to be saved at ``at``."""
    return "\n".join(_lines(looks, answers, at)) + "\n"


def _lines(looks: Sequence[FirstLook], answers: RunChoices, at: Path) -> Iterator[str]:
    roles = {look.role for look in looks}
    named = " ".join(visible(shlex.quote(str(at))).split("\n"))
    yield f"# {_what(roles, people=answers.people)}"
    yield f"#   triphase check {named}        checks every record; loads no model"
    yield f"#   triphase plan {named}         memory and time of each phase, before anything runs"
    yield f"#   triphase run {named}          every step; Ctrl-C stops it, the same command continues"
    yield "# Any setting can follow the file: --ppo.kl-coefficient 0.02. `triphase settings KEY` explains one."
    yield ""
    yield f"name: {_quoted(answers.name)}    # the run directory is runs/{answers.name}"
    yield ""
    yield "model:"
    yield f"  name: {_quoted(answers.model)}    # a directory, a hub id of an instruct model, or embedded:smollm2"
    yield f"  max_length: {answers.max_length}    # longest prompt plus response, in tokens"
    yield "  # chat_template: chatml    # for base models, whose tokenizers have none (or: plain, or a file)"
    yield ""
    yield "adapters:"
    yield "  layers: 10    # so many of the top layers are trained by LoRA; all trains every layer"
    yield "  rank: 16"
    yield ""
    yield "data:"
    for role in ("demonstrations", "prompts", "preferences"):
        if role in roles:
            yield f"  {role}:    # {_NUMBERS[role]}"
            yield from (line for look in looks if look.role == role for line in _source(look, at))
    yield "  heldout_share: 0.2    # of the prompts, for measuring; a hash of each decides"
    yield "  too_long: drop    # longer records are left out and counted; or truncate-prompt, error"
    yield "  on_bad_record: error    # or drop: records that cannot be used are left out and counted"
    yield ""
    yield from _phases(roles, answers)


def _source(look: FirstLook, at: Path) -> Iterator[str]:
    path = look.source.path
    local = Path(path).expanduser()
    if is_file_name(path, Path()) and not local.is_absolute():
        path = _beside(local, at)
    yield f"    - path: {_quoted(path)}    # {look.form}"
    if look.source.config is not None:
        yield f"      config: {_quoted(look.source.config)}"
    if look.source.split != "train":
        yield f"      split: {_quoted(look.source.split)}"
    if look.source.columns:
        pairs = ", ".join(f"{ours}: {_quoted(theirs)}" for ours, theirs in look.source.columns.items())
        yield f"      columns: {{{pairs}}}"


def _beside(path: Path, at: Path) -> str:
    """``path`` relative to the directory of the configuration."""
    folder, whole = at.absolute().parent, path.absolute()
    return str(whole.relative_to(folder)) if whole.is_relative_to(folder) else str(whole)


def _phases(roles: set[str], answers: RunChoices) -> Iterator[str]:
    if "demonstrations" in roles:
        yield "sft:"
        yield "  method: lora    # full trains every weight"
        yield "  epochs: 2"
        yield ""
    if roles == {"demonstrations"}:
        return
    if answers.people:
        yield "sampling:"
        yield "  responses_per_prompt: 4    # for people to rank"
        yield f"  max_response_tokens: {answers.response_tokens}"
        yield ""
    yield "labeling:"
    yield f"  source: {'people' if answers.people else 'none'}    # " + (
        "they rank on a page: triphase label serve (docs/labeling.md); then the same run command continues"
        if answers.people
        else "train on the preferences alone; people: rank more on a page"
    )
    yield ""
    yield "reward:"
    yield "  epochs: 1    # more than one pass overfits quickly"
    yield ""
    yield "ppo:"
    yield "  iterations: 20"
    yield "  batch_size: 32    # responses in a rollout"
    yield "  minibatch_size: 16    # responses for each optimizer step; divides batch_size"
    yield f"  max_response_tokens: {answers.response_tokens}"
    yield "  kl_coefficient: 0.05    # how dearly the policy pays for leaving where it started"


def _what(roles: set[str], *, people: bool) -> str:
    steps = ["supervised fine-tuning"] if "demonstrations" in roles else []
    if roles == {"demonstrations"}:
        return "Supervised fine-tuning alone: add prompts or preferences for the other phases."
    if people:
        steps.append("people rank sampled responses")
    steps.append("a reward model")
    if roles == {"preferences"} and not people:
        return (
            "A reward model. `triphase ppo` continues from it, on the prompts of the preferences; or name data.prompts."
        )
    steps.append("PPO")
    return ", ".join(steps)[:1].upper() + ", ".join(steps)[1:] + "."


def _quoted(text: str) -> str:
    """A text quoted so that YAML parses it as that text."""
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    signs = (sign if sign.isprintable() and sign not in '"\\' else f"\\U{ord(sign):08x}" for sign in text)
    return f'"{"".join(signs)}"'
