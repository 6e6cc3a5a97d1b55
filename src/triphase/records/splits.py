"""The split that a record names: train or heldout, which other data sets call validation or test."""

from triphase.records.lines import Row
from triphase.records.types import Split

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(
        ("heldout", "held-out", "held_out", "validation", "valid", "val", "dev", "eval", "test"), "heldout"
    ),
}


def split_called(row: Row, name: str) -> Split:
    """The split of this name. A name that is not ours is remarked on.

    Raises:
        DataError: it is not known.
    """
    plain = name.strip().lower()
    found = _SPLITS.get(plain)
    if found is None:
        row.refuse(f"split is {name[:40]!r}; write train or heldout, or leave it out")
    if plain != found:
        row.remarks.add(f"the split {plain!r} counts as {found}")
    return found
