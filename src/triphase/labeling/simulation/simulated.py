"""Labelers that behave like people: they rank by a gold score, with noise, biases, lapses and ties.

The utility of a response is its standardized gold score, plus 0.15 for every 10 words (length bias), plus 0.1 if it is
shown first (position bias), plus Gumbel noise: ranking by it is Plackett–Luce. Neighbors closer than 0.2 are tied.
Every tenth ranking is a lapse (random); half of the last labeler's are. Left out: learning, fatigue, and individual
opinions; real labelers also disagree for reasons, these only by chance.

All random numbers depend on the seed, the labeler, the texts and the round, never on the order of calls or the clock.
So the same seed gives the same rankings, and over HTTP, where ids are hidden, the same noise.
"""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev

from triphase.records.types import Prompt, Ranking, Response
from triphase.store import Store
from triphase.store.identity import ranking_id

Gold = Callable[[str, str, bool], float]
"""(prompt text, response text, finished) → score: known to the labelers and the evaluation only."""

NOISE_SCALE = 0.4
"""Scale of the Gumbel noise in standard deviations of the gold score.

Derived by simulation with gold ~ N(0, 1) and equal lengths (repeated in tests/labeling/simulation/test_simulated.py):
pairs that both of two labelers order agree in 73 % with four labelers, one of them careless; careful labelers with each
other in about 80 %. People reach 70–77 % (InstructGPT 72.6 and 77.3, summarization 73–77).
"""
LENGTH_BIAS = 0.15
POSITION_BIAS = 0.1
TIE_WIDTH = 0.2
LAPSE_SHARE = 0.1
CARELESS_SHARE = 0.5
EPOCH = 1_750_000_000.0
"""The start time of the simulated labeling (2025-06-15), so that equal seeds give equal times."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A simulated labeler's answer: places by response id, and the time it took."""

    places: dict[str, int]
    seconds: float


class SimulatedLabelers:
    """``count`` labelers named ``simulated-1`` …; the last one is careless.

    Args:
        gold: the score they (roughly) rank by.
        seed: seed of all random numbers.
        count: number of labelers.
        noise_scale: Gumbel scale, in standard deviations of the gold score.
        lapse_share: share of rankings made at random.
        careless_share: the same for the last labeler; equal to ``lapse_share`` for none careless.
    """

    def __init__(
        self,
        gold: Gold,
        seed: int,
        count: int = 4,
        *,
        noise_scale: float = NOISE_SCALE,
        lapse_share: float = LAPSE_SHARE,
        careless_share: float = CARELESS_SHARE,
    ) -> None:
        if count < 1:
            raise ValueError(f"count is {count}; at least one labeler is needed")
        self.gold = gold
        self.seed = seed
        self.names = tuple(f"simulated-{number}" for number in range(1, count + 1))
        self.noise_scale = noise_scale
        self._lapses = dict.fromkeys(self.names, lapse_share)
        if count > 1:
            self._lapses[self.names[-1]] = careless_share
        self._mean, self._deviation = 0.0, 1.0
        self._known: dict[tuple[str, str, bool], float] = {}

    def standardize(self, shown: Sequence[tuple[Prompt, Response]]) -> None:
        """Set mean and standard deviation of the gold score from these responses (default 0 and 1)."""
        values = [self._gold_of(prompt, response) for prompt, response in shown]
        if len(values) > 1:
            self._mean, self._deviation = fmean(values), pstdev(values) or 1.0

    def choose(self, prompt: Prompt, shown: Sequence[Response], labeler: str, round_: int = 0) -> Choice:
        """The answer of ``labeler`` to these responses in the order in which they are shown.

        ``round_`` distinguishes a repetition (for self-consistency) from the first time.
        """
        draw = self._generator("choice", prompt.text, labeler, round_)
        noise = {response.id: self.noise_scale * _gumbel(draw) for response in sorted(shown, key=_text_of)}
        lapses = draw.random() < self._lapses.get(labeler, LAPSE_SHARE)
        random_utility = {response.id: draw.gauss(0.0, 1.0) for response in sorted(shown, key=_text_of)}
        words = sum(len(response.text.split()) for response in shown)
        seconds = round((4.0 + 0.3 * words) * math.exp(draw.gauss(0.0, 0.3)) * (0.4 if lapses else 1.0), 1)
        if lapses:
            return Choice(_places(random_utility), seconds)
        utility = {response.id: self._utility(prompt, response) + noise[response.id] for response in shown}
        utility[shown[0].id] += POSITION_BIAS
        return Choice(_places(utility), seconds)

    def rank(
        self, prompt: Prompt, responses: Sequence[Response], labeler: str, *, submitted_at: float = EPOCH
    ) -> Ranking:
        """One ranking, shown in an order that is drawn for this labeler and stored in the record."""
        shown = sorted(responses, key=_text_of)
        self._generator("order", prompt.text, labeler, 0).shuffle(shown)
        choice = self.choose(prompt, shown, labeler)
        return Ranking(
            id=ranking_id(prompt.id, labeler, 0, self.seed),
            prompt_id=prompt.id,
            labeler=labeler,
            places=choice.places,
            order_shown=tuple(response.id for response in shown),
            submitted_at=submitted_at,
            seconds=choice.seconds,
        )

    def _utility(self, prompt: Prompt, response: Response) -> float:
        gold = self._gold_of(prompt, response)
        return (gold - self._mean) / self._deviation + LENGTH_BIAS * len(response.text.split()) / 10.0

    def _gold_of(self, prompt: Prompt, response: Response) -> float:
        key = (prompt.text, response.text, response.finished)
        if key not in self._known:
            self._known[key] = self.gold(*key)
        return self._known[key]

    def _generator(self, *parts: object) -> random.Random:
        digest = hashlib.sha256(repr((self.seed, *parts)).encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big"))  # noqa: S311 (simulation, not secrets)


def simulate_rankings(
    store: Store, labelers: SimulatedLabelers, *, overlap_share: float, seed: int, rankings_per_prompt: int = 1
) -> int:
    """Rank every prompt that has two or more responses and no ranking by anyone else; return how many were new.

    A share of the prompts gets one labeler more than ``rankings_per_prompt``, so that agreement can be measured. The
    plan depends on the seed and the prompts alone: an interrupted run continues where it stopped.
    """
    answers = store.responses()
    by_prompt: dict[str, list[Response]] = {}
    for response in answers:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    taken = {ranking.prompt_id for ranking in store.rankings() if ranking.labeler not in labelers.names}
    wanted = [prompt for prompt in store.prompts() if prompt.id not in taken and len(by_prompt.get(prompt.id, ())) > 1]
    labelers.standardize([(prompt, response) for prompt in wanted for response in by_prompt[prompt.id]])
    made: list[Ranking] = []
    clock = dict.fromkeys(labelers.names, EPOCH)
    for prompt, names in _plan(wanted, labelers.names, overlap_share, rankings_per_prompt, seed):
        for name in names:
            ranking = labelers.rank(prompt, by_prompt[prompt.id], name)
            clock[name] += (ranking.seconds or 0.0) + 1.0
            made.append(replace(ranking, submitted_at=round(clock[name], 1)))
    return store.add_rankings(made)


def _plan(
    wanted: Sequence[Prompt], names: Sequence[str], overlap_share: float, per_prompt: int, seed: int
) -> list[tuple[Prompt, list[str]]]:
    """The assignment of prompts: everyone equally often, the overlap spread over all pairs of labelers."""
    draw = random.Random(f"plan {seed}")  # noqa: S311 (simulation, not secrets)
    order = list(wanted)
    draw.shuffle(order)
    doubled = {prompt.id for prompt in order[: round(overlap_share * len(order))]}
    load = dict.fromkeys(names, 0)
    together: dict[tuple[str, str], int] = {}
    chosen: dict[str, list[str]] = {}
    for prompt in order:
        picked: list[str] = []
        for _ in range(min(per_prompt + (prompt.id in doubled), len(names))):
            free = [name for name in names if name not in picked]
            name = min(free, key=lambda one: (sum(together.get(_key(one, other), 0) for other in picked), load[one]))
            for other in picked:
                together[_key(name, other)] = together.get(_key(name, other), 0) + 1
            picked.append(name)
            load[name] += 1
        chosen[prompt.id] = picked
    return [(prompt, chosen[prompt.id]) for prompt in wanted]


def _key(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _gumbel(draw: random.Random) -> float:
    return -math.log(-math.log(draw.random() or 0.5))  # random() may be 0, whose logarithm is not finite


def _text_of(response: Response) -> tuple[str, bool]:
    return response.text, response.finished


def _places(utility: dict[str, float]) -> dict[str, int]:
    """Places in descending order of utility; those within the tie width of the best of their group share its place."""
    places: dict[str, int] = {}
    best, place = math.inf, 0
    for position, id_ in enumerate(sorted(utility, key=lambda one: (-utility[one], one)), start=1):
        if best - utility[id_] >= TIE_WIDTH:
            best, place = utility[id_], position
        places[id_] = place
    return places
