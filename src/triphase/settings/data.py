"""Settings of the data: which files and hub data sets, and how unusable records are handled."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from triphase.settings.base import Positive, PositiveFloat, Settings

OURS = ("prompt", "messages", "conversations", "instruction", "input", "question", "context", "system", "history",
        "completion", "response", "output", "answer", "chosen", "rejected", "chosen_finished", "rejected_finished",
        "margin", "labeler", "id", "prompt_id", "kind", "split", "responses", "places", "response_a", "response_b",
        "winner", "rating")  # fmt: skip
"""The columns that a file's own may be renamed to."""


class SourceSettings(Settings):
    """One source of records: files, or a hub data set."""

    path: str
    """A file (.jsonl, .ndjson, .json, .csv, .tsv, .parquet or .arrow; .gz or .zst may follow), a pattern
    (`data/*.jsonl`), a directory of such files or one of `save_to_disk` (relative to the configuration file), or a hub
    id."""
    config: str | None = None
    """The configuration of a hub data set, if it has several, or a folder of it (`harmless-base`)."""
    split: str = "train"
    """The split of a hub data set, or of one of `save_to_disk`."""
    revision: str | None = None
    """The revision of a hub data set (branch, tag or commit)."""
    streaming: bool = False
    """Stream a hub data set while it is read, and store nothing of it on the disk."""
    columns: dict[str, str] = {}  # noqa: RUF012
    """Columns under our names, if yours are named differently: `{prompt: ask, completion: reply}`."""
    max_records: Positive | None = None
    """Use at most this many records, the first ones unless `shuffle` is set."""
    shuffle: bool = False
    """Select the `max_records` by a hash of each record, instead of taking the first ones. (The order of training is
    random by `seed` in any case.)"""
    kind: str = "instruction"
    """For demonstrations: the kind of data (instruction, domain, safety …) if records do not say it."""
    weight: PositiveFloat = 1.0
    """For demonstrations: the share of this source in the mixture, relative to the others."""

    @model_validator(mode="after")
    def _fits(self) -> "SourceSettings":
        unknown = [name for name in self.columns if name not in OURS]
        if unknown:
            raise ValueError(f"columns: {unknown[0]!r} is not a known column; the names on the left must be among "
                             f"{', '.join(OURS[:13])} … (docs/data.md)")  # fmt: skip
        if not self.path.strip():
            raise ValueError("path is empty; give a file, a directory, a pattern or a hub id")
        if self.shuffle and self.max_records is None:
            raise ValueError("shuffle chooses which max_records are taken; set max_records (training is in random "
                             "order in any case)")  # fmt: skip
        return self


class DataSettings(Settings):
    """The data of the phases."""

    demonstrations: tuple[SourceSettings, ...] = ()
    """Supervised data: `prompt`+`completion`, or `messages`; an optional `kind` column."""
    prompts: tuple[SourceSettings, ...] = ()
    """Prompts for sampling and PPO: `prompt` (text or messages); optional `id`, `split` (train or heldout)."""
    preferences: tuple[SourceSettings, ...] = ()
    """Existing comparisons: `chosen`+`rejected` with an explicit or implicit prompt; optional `margin`."""
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the prompts kept for evaluation if records do not say their split; chosen by a hash of the prompt."""
    on_bad_record: Literal["error", "drop"] = "error"
    """A record that cannot be used stops the run with its file and line (`error`), or is left out and counted (`drop`);
    `check` counts the same."""
    too_long: Literal["error", "drop", "truncate-prompt"] = "error"
    """A record longer than `model.max_length` stops the run (`error`), is left out (`drop`), or loses the beginning of
    its prompt (`truncate-prompt`: the oldest turns, then the beginning of the last; never part of an answer; both sides
    of a comparison have the same prompt). Both are counted."""
    near_duplicates: Literal["keep", "report", "drop"] = "keep"
    """Detect training records that nearly repeat earlier ones, or whose prompt is nearly a held-out one: count them
    (`report`) or leave them out (`drop`); `keep` does not check. Needs `triphase[dedup]`."""
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Two texts are near-duplicates if the Jaccard similarity of their word trigrams is at least this."""
