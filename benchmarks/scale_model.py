"""Model of the time of a PPO iteration on N cards, from sizes and measured utilization.

All times are seconds. With P parameters, E episodes of p + r tokens, N cards, and for each of t cards that hold one
model a batch of b = E·t/N rows:

    generation  = prefill + r_max · max(layers·c₁ + c₂·b,  (2P/t + cache(b)/t) / (bandwidth·s_b))
    scoring     = models · 2P·E(p+r) / (N·rate·s_u)  +  passes · c₃
    update      = epochs · (k·P·E(p+r) / (N·rate·s_u)  +  passes · c₃)
    network     = exchanged gradients, gathered shards and weights that are sent to generation, over the link

Adapters (``full=False``): one base for all models, k = 4, gradients of adapters alone are exchanged. Full weights: a
model for each role, policy and critic are trained, k = 2·8 with recomputed activations, and all weights are exchanged.
"""

from dataclasses import dataclass, replace
from math import ceil

from triphase.planning.machine import Card

NODE = 8
"""Cards that NVLink joins."""
BETWEEN_NODES = 50e9
"""Bytes per second and card between nodes in one direction: 400 Gbit/s InfiniBand, one adapter a card."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder: parameters, layers, hidden size, and the width of its keys."""

    parameters: float
    layers: int
    hidden: int
    keys: int


SHAPES = {
    "1B": Shape(1.24e9, 16, 2048, 512),
    "7B": Shape(6.7e9, 32, 4096, 4096),
    "8B": Shape(8.0e9, 32, 4096, 1024),
    "13B": Shape(13.0e9, 40, 5120, 5120),
    "34B": Shape(33.7e9, 48, 8192, 1024),
    "70B": Shape(70.6e9, 80, 8192, 1024),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One iteration: episodes of so many tokens, in so many minibatches and epochs.

    ``tensor`` is how many cards compute one row together in training, as other systems do; sharding has 1.
    """

    episodes: int = 1024
    prompt: int = 512
    response: int = 512
    longest: int = 1024
    epochs: int = 1
    minibatches: int = 4
    microbatch_tokens: int = 16384
    rank: int = 16
    tensor: int = 1
    full: bool = False


@dataclass(frozen=True, slots=True)
class Shares:
    """What was measured. Of the data sheet: ``update`` of the rate, ``decode`` of the bandwidth; the rest in seconds.

    `MEASURED` is fitted on one H200 with the shape of Llama 1B (docs/performance.md): with the 0.3 s before its first
    token, a token takes 3.8, 4.9 and 8.0 ms at 8, 64 and 256 rows; an update of 32,768 tokens takes 1.0 s in eight
    microbatches and 0.64 s in two.
    """

    update: float
    decode: float
    layer: float
    row: float
    call: float
    microbatch: float


MEASURED = Shares(update=0.316, decode=0.6, layer=1.4e-3 / 16, row=17e-6, call=0.3, microbatch=0.06)
"""``decode`` was not reached where it was measured, since the launches of kernels take longer there; 0.6 is assumed."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """Seconds by part. ``together`` is how many cards hold one model in generation."""

    generation: float
    scoring: float
    update: float
    network: float
    together: int

    @property
    def total(self) -> float:
        """One after the other."""
        return self.generation + self.scoring + self.update + self.network


def cards_for(shape: Shape, card: Card) -> int:
    """The fewest cards (a power of 2) whose halves hold the weights in bfloat16; the other halves are for the cache."""
    together = 1
    while 2 * shape.parameters / together > 0.5 * card.memory:
        together *= 2
    return together


def iteration(shape: Shape, job: Job, card: Card, gpus: int, shares: Shares = MEASURED) -> Iteration:
    """One synchronous iteration on ``gpus`` cards that do one thing after the other."""
    return Iteration(
        _generation(shape, job, card, gpus, shares),
        *_training(shape, job, card, gpus, shares),
        together=cards_for(shape, card),
    )


def one_ahead(shape: Shape, job: Job, card: Card, gpus: int, shares: Shares = MEASURED) -> tuple[float, int]:
    """Seconds where some cards sample iteration i + 1 while the others train on i; and how many do so, at best."""
    together = cards_for(shape, card)

    def slower(sampling: int) -> float:
        rest = gpus - sampling
        return max(_generation(shape, job, card, sampling, shares), sum(_training(shape, job, card, rest, shares)))

    divisions = [part for part in range(together, gpus, together) if gpus - part >= 1]
    if not divisions:
        return float("inf"), 0
    best = min(divisions, key=slower)
    return slower(best), best


def _generation(shape: Shape, job: Job, card: Card, gpus: int, shares: Shares) -> float:
    together = min(cards_for(shape, card), gpus)
    replicas = gpus // together
    rows = ceil(job.episodes / replicas)
    cached = 4.0 * shape.layers * shape.keys * (job.prompt + job.response)  # keys and values in bfloat16, of one row
    room = max(1, int((card.memory * 0.9 * together - 2 * shape.parameters) / cached))
    waves = ceil(rows / room)
    side_by_side = ceil(rows / waves)
    read = (2 * shape.parameters + side_by_side * cached) / together
    launched = shape.layers * shares.layer + shares.row * side_by_side
    # Each layer's result is summed over the cards that share it, twice.
    shared = 0.0 if together == 1 else 4 * shape.layers * side_by_side * 2 * shape.hidden / _link(card, together)
    step = max(launched, read / (card.bandwidth * shares.decode)) + shared
    prefill = 2 * shape.parameters * side_by_side * job.prompt / (together * card.flops * shares.update)
    return waves * (shares.call + prefill + job.longest * step)


def _training(shape: Shape, job: Job, card: Card, gpus: int, shares: Shares) -> tuple[float, float, float]:
    """Scoring, update and network."""
    tokens = job.episodes * (job.prompt + job.response)
    rate = gpus * card.flops * shares.update
    # A rank has at least one row of every minibatch; cards without one wait.
    ranks = max(1, gpus // job.tensor)
    rows = ceil(job.episodes / job.minibatches / ranks)
    wasted = rows * ranks * job.minibatches / job.episodes
    passes = job.minibatches * ceil(rows * (job.prompt + job.response) / job.microbatch_tokens)
    through = 2 * shape.parameters * tokens * wasted / rate
    trained = 8 * shape.parameters * 2 if job.full else 4 * shape.parameters
    # Policy, reference and reward model, whose critic is a head on the policy; or four models.
    scoring = (4 if job.full else 3) * through + passes * shares.microbatch
    update = job.epochs * (trained * tokens * wasted / rate + passes * shares.microbatch)
    return scoring, update, _network(shape, job, card, gpus, passes)


def _network(shape: Shape, job: Job, card: Card, gpus: int, passes: int) -> float:
    if gpus == 1:
        return 0.0
    link, others = _link(card, gpus), (gpus - 1) / gpus
    adapter = 14 * job.rank * shape.hidden * shape.layers * 1.7  # seven maps; the wider ones of the MLP count more
    trained = 2 * shape.parameters if job.full else adapter
    width = 2.0 if job.full else 4.0
    exchanged = job.epochs * job.minibatches * 2 * width * trained * others
    sharded = job.full or 2 * shape.parameters > 0.6 * card.memory
    # A gather for each forward pass, and one more for each backward pass; policy and critic where both are.
    gathers = 4 + 4 * job.epochs if job.full else 3 + 2 * job.epochs
    gathered = passes * gathers * 2 * shape.parameters * others if sharded else 0.0
    sent = 2 * shape.parameters if job.full else width * adapter
    return (exchanged + gathered + sent) / link


def _link(card: Card, gpus: int) -> float:
    """Between nodes, the cards of a node share what comes in over all of their adapters."""
    return card.link if gpus <= NODE else min(card.link, NODE * BETWEEN_NODES)


def fitted(shares: Shares, factor: float) -> Shares:
    """Shares of the data sheet ``factor`` times smaller; launches take as long as before."""
    return replace(shares, update=shares.update / factor, decode=shares.decode / factor)
