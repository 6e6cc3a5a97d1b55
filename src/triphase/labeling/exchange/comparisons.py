"""Converts comparisons from data files to the records of the store: responses, and rankings of them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from triphase.labeling.exchange import formats
from triphase.labeling.exchange.formats import Records
from triphase.labeling.exchange.side_columns import Side
from triphase.records.types import Comparison, Ranking, Response
from triphase.store.answers import StoredAnswer
from triphase.store.identity import ranking_id, response_id


def records_of_comparisons(
    comparisons: Iterable[Comparison], sides: Sequence[tuple[Side, Side]] | None = None
) -> Records:
    """Each comparison as two responses and a ranking of them; equal texts of a prompt are one response.

    Comparisons that were taken from one ranking become that ranking again, without responses missing from all of them.

    ``sides`` contains for each comparison the file's further data about its two responses.
    """
    records, seen = Records(), dict[object, int]()
    listed = list(comparisons)
    whole: dict[tuple[int, str], list[Comparison]] = defaultdict(list)
    for comparison, (first, second) in zip(listed, sides or [(Side(), Side())] * len(listed), strict=True):
        if comparison.ranking is not None:
            whole[id(comparison.ranking), comparison.prompt.id].append(comparison)
            continue
        prompt, labeler = comparison.prompt, comparison.labeler or formats.IMPORTED
        ends = (comparison.chosen_finished, comparison.rejected_finished)
        pair = [
            # A truncated text is another response than the same text with its end.
            Response(
                response_id(prompt.id, side.model, int(end is False), text), prompt.id, text, side.model,
                end is not False,
            )
            for text, side, end in zip((comparison.chosen, comparison.rejected), (first, second), ends, strict=True)
        ]  # fmt: skip
        key = (prompt.id, labeler, pair[0].id, pair[1].id, comparison.margin)
        seen[key] = seen.get(key, -1) + 1
        ranking = Ranking(
            id=ranking_id(prompt.id, labeler, seen[key], list(key[2:])),
            prompt_id=prompt.id,
            labeler=labeler,
            places={pair[0].id: 1, pair[1].id: 2},
            order_shown=(),
            submitted_at=first.submitted_at,
        )
        records.prompts.append(prompt)
        records.responses += pair
        records.assumed |= {one.id for one, end in zip(pair, ends, strict=True) if end is None}
        records.answers.append(StoredAnswer(
                ranking, first.purpose, strength=first.strength, margin=comparison.margin, campaign=first.campaign
            )
        )  # fmt: skip
    for pairs in whole.values():
        _add_ranking(records, pairs, seen)
    return records


def _add_ranking(records: Records, pairs: Sequence[Comparison], seen: dict[object, int]) -> None:
    """Add the ranking that these pairs come from, restricted to the texts in them."""
    prompt, labeler, answers = pairs[0].prompt, pairs[0].labeler or formats.IMPORTED, pairs[0].ranking
    assert answers is not None  # noqa: S101 - these have one
    there = {text for pair in pairs for text in (pair.chosen, pair.rejected)}
    places: dict[str, int] = {}
    for text, place in zip(answers.texts, answers.places, strict=True):
        if text in there:
            id_ = response_id(prompt.id, formats.IMPORTED, 0, text)
            records.responses.append(Response(id_, prompt.id, text, formats.IMPORTED, True))
            records.assumed.add(id_)
            places[id_] = place
    key = (prompt.id, labeler, tuple(sorted(places.items())), pairs[0].margin)
    seen[key] = seen.get(key, -1) + 1
    id_ = ranking_id(prompt.id, labeler, seen[key], list(key[2:]))
    records.prompts.append(prompt)
    records.answers.append(
        StoredAnswer(Ranking(id_, prompt.id, labeler, places, (), 0.0), "label", margin=pairs[0].margin)
    )
