"""Each prompt once: the same id is the same conversation on the same side, in every file of a run."""

from triphase.errors import DataError
from triphase.records.types import Prompt


class PromptRegistry:
    """The prompts of several files, in the order of first occurrence, with their locations.

    Equal prompts without ids have equal ids (a hash of the conversation), so they are one prompt. The first of them
    determines the kind; if it has none, the next that has one does, until the registry is settled.

    Attributes:
        settled: known prompts no longer change, since others use them already.
    """

    def __init__(self) -> None:
        self.settled = False
        self._known: dict[str, tuple[Prompt, str]] = {}

    @property
    def prompts(self) -> list[Prompt]:
        return [prompt for prompt, _ in self._known.values()]

    def __getitem__(self, name: str) -> Prompt:
        return self._known[name][0]

    def add(self, prompt: Prompt, where: str) -> None:
        """Add a prompt located at ``where``.

        Raises:
            DataError: its id is used for another conversation, or it is held out here and trained on there.
        """
        known, place = self._known.get(prompt.id, (prompt, where))
        if known.messages != prompt.messages:
            raise DataError(
                f"{where}: the prompt id {prompt.id[:60]!r} is already used by another prompt at "
                f"{place}; all files of a run share one set of ids: give each prompt an id of its own, or none"
            )
        if known.split != prompt.split:
            raise DataError(
                f"{where}: this prompt is {prompt.split} here and {known.split} at {place}; write one split"
            )
        better = prompt.kind and not known.kind and not self.settled
        self._known[prompt.id] = (prompt if better else known, place)
