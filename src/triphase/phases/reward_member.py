"""Which rankings each of several reward models is trained on, and how often each counts."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from triphase.batches.order import generator, permutation
from triphase.models.members import RewardMember, member_adapter
from triphase.models.roles import REWARD, SharedModel


@dataclass(frozen=True, slots=True)
class Member:
    """One reward model of a phase.

    Attributes:
        model: its adapter and head.
        counts: how often each training ranking counts; None if each counts once.
        apart: separates its random seeds from those of the others; empty for a single reward model.
        of: how many reward models of the phase use the same rankings.
    """

    model: RewardMember
    counts: tuple[int, ...] | None = None
    apart: tuple[str | int, ...] = ()
    of: int = 1

    def counts_of(self, members: Sequence[int]) -> list[int] | None:
        """The counts of the rankings with these numbers; None if each counts once."""
        return None if self.counts is None else [self.counts[member] for member in members]

    def repeated(self, members: Sequence[int]) -> list[int]:
        """The same rankings, each repeated by its count."""
        counts = self.counts
        return list(members) if counts is None else [member for member in members for _ in range(counts[member])]


def alone(shared: SharedModel) -> Member:
    """A reward model that is the only one."""
    return Member(RewardMember(REWARD, shared.score_head))


def members_of(
    shared: SharedModel, prompts: Sequence[Hashable], count: int, *, seed: int, adapter: str = REWARD
) -> list[Member]:
    """The members of an ensemble: each gets as many prompts as there are, drawn with replacement.

    A prompt that is drawn twice counts twice; its rankings are computed once. About 63 % of the prompts are in each
    member.

    Args:
        prompts: identifies the prompt of each training ranking.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), by clusters.
    """
    found = []
    for number in range(count):
        head = shared.score_head if number == 0 else shared.fresh_score_head(seed, number)
        model = RewardMember(member_adapter(adapter, number), head)
        found.append(Member(model, bootstrap_counts(prompts, seed, number), ("member", number), count))
    return found


def bootstrap_counts(prompts: Sequence[Hashable], seed: int, number: int) -> tuple[int, ...]:
    """How often the prompt of each ranking was drawn for the member with this number."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    random = generator(seed, "reward", "bootstrap", number)
    drawn = torch.bincount(torch.randint(len(places), (len(places),), generator=random), minlength=len(places))
    counts = drawn.tolist()
    return tuple(int(counts[places[prompt]]) for prompt in prompts)


def halves_of(prompts: Sequence[Hashable], *, seed: int) -> tuple[list[int], list[int]]:
    """The rankings of two halves of the prompts, drawn at random; of an odd number the first half has one more."""
    distinct = list(dict.fromkeys(prompts))
    order = permutation(len(distinct), seed, "reward", "halves")
    first = {distinct[place] for place in order[: (len(order) + 1) // 2]}
    sides: tuple[list[int], list[int]] = ([], [])
    for number, prompt in enumerate(prompts):
        sides[prompt not in first].append(number)
    return sides


def order_of(count: int, epochs: float, seed: int, member: Member) -> list[int]:
    """The rankings in training order: of a member, those with a count above 0."""
    order: list[int] = []
    for epoch in range(math.ceil(epochs)):
        order += permutation(count, seed, "reward", "order", *member.apart, epoch)
    order = order if member.counts is None else [number for number in order if member.counts[number]]
    return order[: drawn_of(len(order) / math.ceil(epochs), epochs)]


def drawn_of(count: float, epochs: float) -> int:
    """The number of rankings that this many epochs visit."""
    return max(1, round(count * epochs))
