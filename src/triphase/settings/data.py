"""Settings of the data: which files and hub data sets, and what becomes of records that do not fit."""

from typing import Annotated, Literal

from pydantic import Field

from triphase.settings.base import PositiveFloat, Settings


class SourceSettings(Settings):
    """One file or hub data set of records."""

    path: str
    """A .jsonl, .json, .parquet or .csv file (relative to the configuration file), or a hub id."""
    split: str = "train"
    """The split of a hub data set."""
    kind: str = "instruction"
    """For demonstrations: the kind of data (instruction, domain, safety …) where records do not say it."""
    weight: PositiveFloat = 1.0
    """For demonstrations: the share of this source in the mixture, relative to the others."""


class DataSettings(Settings):
    """What the phases read."""

    demonstrations: tuple[SourceSettings, ...] = ()
    """Supervised data: `prompt`+`completion`, or `messages`; an optional `kind` column."""
    prompts: tuple[SourceSettings, ...] = ()
    """Prompts for sampling and PPO: `prompt` (text or messages); optional `id`, `split` (train or heldout)."""
    preferences: tuple[SourceSettings, ...] = ()
    """Existing comparisons: `chosen`+`rejected` with an explicit or implicit prompt; optional `margin`."""
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the prompts kept for evaluation where records do not say their split; chosen by a hash of the prompt."""
    on_bad_record: Literal["error", "drop"] = "error"
    """A record that cannot be used stops the run with its file and line (`error`), or is left out and counted (`drop`);
    `check` counts the same."""
