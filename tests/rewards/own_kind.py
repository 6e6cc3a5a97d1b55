"""A scorer of a kind of its own: the length of a response."""

from collections.abc import Sequence

from triphase.rewards.types import Answer, Scorer, ScorerContext, Scores


class Lengths(Scorer):
    name = "own"

    def score(self, answers: Sequence[Answer]) -> Scores:
        return Scores(tuple(float(len(answer.response)) for answer in answers))


def open_scorer(context: ScorerContext) -> Lengths:
    return Lengths()
