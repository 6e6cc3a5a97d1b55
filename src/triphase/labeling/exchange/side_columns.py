"""The other columns of a row with ``chosen`` and ``rejected``, as in our own export of comparisons."""

from dataclasses import dataclass

from triphase.labeling.exchange.formats import IMPORTED
from triphase.labeling.exchange.ranked import PURPOSES
from triphase.records import cells
from triphase.records.cells import absent
from triphase.records.lines import Row
from triphase.store.answers import Purpose


@dataclass(frozen=True, slots=True)
class Side:
    """The model of one of the two responses, and the ranking that they come from."""

    model: str = IMPORTED
    purpose: Purpose = "label"
    strength: int | None = None
    submitted_at: float = 0.0
    campaign: str = ""


def side_of(row: Row) -> tuple[Side, Side]:
    """The data of a row about chosen and about rejected."""
    values = row.values
    said = "label" if absent(values.get("purpose")) else cells.one_of(row, "purpose", values["purpose"], PURPOSES)
    purpose = next(known for known in PURPOSES if known == said)
    at, strength = values.get("submitted_at"), values.get("strength")
    of = cells.campaign(row, "campaign", values.get("campaign"))
    moment = 0.0 if absent(at) else cells.moment(row, "submitted_at", at)
    strong = None if absent(strength) else cells.whole(row, "strength", strength, 1, 4)
    sides = []
    for name in ("chosen", "rejected"):
        model = values.get(f"{name}_model")
        sides.append(
            Side(
                IMPORTED if absent(model) else cells.word(row, f"{name}_model", model, cells.LONGEST_MODEL),
                purpose, strong, moment, of,
            )
        )  # fmt: skip
    return sides[0], sides[1]
