"""Phase 2 of a run: one reward model, several of them, and a witness on the other half of the comparisons."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter

from triphase.errors import RunError
from triphase.models.members import WITNESS, RewardMember
from triphase.models.roles import SharedModel
from triphase.objectives.length import within_group_slope
from triphase.phases.reward import RewardPhase
from triphase.phases.reward_calibration import Calibration, calibrate, join_members, take_length_off
from triphase.phases.reward_member import Member, alone, halves_of, members_of
from triphase.phases.two_heads import TWO_HEADS, TwoHeadPhase
from triphase.records.files import write_json, write_json_lines
from triphase.records.types import Comparison, Pair, RankedGroup
from triphase.rewards.model import score_samples
from triphase.runs.empty_responses import usable_groups
from triphase.runs.loop_options import kept
from triphase.runs.references import reference_samples
from triphase.runs.result_rows import hard_lines, heldout_lines
from triphase.runs.reward_gate import set_refused_aside
from triphase.runs.rounds import BEFORE, earlier_rankings, newest_round
from triphase.runs.session import Run
from triphase.settings.phase_names import REWARD
from triphase.settings.phases import RewardSettings
from triphase.tokens.encoding import Encoded, EncodedGroup, encode_groups
from triphase.training.artifacts import is_usable, place_of
from triphase.training.loop import run_loop
from triphase.training.reward_finals import load_reward_model, save_reward_model

_log = logging.getLogger(__name__)
_GROUPS = TypeAdapter(list[RankedGroup])
_SHOWN = ("reward/loss", "reward/preference_accuracy")


@dataclass(frozen=True, slots=True)
class Rankings:
    """Rankings with their pairs: those that are trained on, and those that are held out."""

    groups: Sequence[EncodedGroup]
    pairs: Sequence[Sequence[Pair]]
    heldout: Sequence[EncodedGroup]
    heldout_pairs: Sequence[Sequence[Pair]]

    def some(self, numbers: Sequence[int]) -> "Rankings":
        """A subset of the training rankings."""
        groups, pairs = [self.groups[number] for number in numbers], [self.pairs[number] for number in numbers]
        return Rankings(groups, pairs, self.heldout, self.heldout_pairs)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rankings of held-out prompts, and each judgment of them."""

    groups: Sequence[RankedGroup]
    votes: Sequence[Comparison]


def run_reward(run: Run) -> None:
    """Phase 2: the reward model on the rankings of training prompts, measured on those of held-out prompts."""
    final, settings = run.artifact(REWARD), run.settings
    set_refused_aside(run)
    if is_usable(final):
        return
    with run.directory.timed("reward"):
        judge_before(run)
        run.share_phase("reward")
        (rankings, held), shared = rankings_of(run), run.model()
        heldout, votes = held.groups, held.votes
        halves = _halves(run, rankings) if settings.reward.witness else (rankings, None)
        told: dict[str, Any] = {"witness": None}
        phase, members = _trained(run, shared, halves[0], told)
        references, limit = reference_samples(run, shared), settings.reward.tokens_at_once
        with run.progress.track("scores for calibration", len(references), unit="responses") as track:
            if len(members) == 1:
                calibration = calibrate(shared, references, max_tokens=limit, on_scored=track.advance)
            else:
                ensemble = settings.reward.ensemble
                calibration = join_members(
                    shared, members, ensemble, references, max_tokens=limit, on_scored=track.advance
                )
        if settings.reward.length == "residual":
            calibration = _without_length(run, phase, references, calibration)
        scores = [found.tolist() for found in phase.scores_of(phase.heldout, shared.scores)]
        phase.close()
        if halves[1] is not None:
            shared.witness = _witness(run, shared, halves[1], told)
            with run.progress.track("scores of the witness", len(references), unit="responses") as track:
                calibrate(shared, references, max_tokens=limit, member=shared.witness, on_scored=track.advance)
        write_json_lines(run.part("reward", "heldout.jsonl"), heldout_lines(heldout, scores, votes))
        write_json_lines(run.part("reward", "hard.jsonl"), hard_lines(heldout, scores, votes))
        write_json(run.part("reward", "head.json"), phase.head_summary())
        write_json(run.part("reward", "calibration.json"), asdict(calibration))
        if shared.witness is not None or len(members) > 1:
            write_json(run.part("reward", "members.json"), told)
        save_reward_model(shared, final, asdict(calibration), run.made_by(REWARD))


def judge_before(run: Run) -> None:
    """In a further round: the previous reward model's scores of the held-out rankings of this one."""
    path = run.part("reward", BEFORE)
    if not run.settings.earlier_rounds or path.is_file():
        return
    (rankings, held), shared = rankings_of(run), run.model()
    load_reward_model(shared, place_of(newest_round(run), REWARD))
    samples = [Encoded(group.prompt, response) for group in rankings.heldout for response in group.responses]
    scores = torch.zeros(0)
    if samples:
        scores = score_samples(shared, samples, max_tokens=run.settings.reward.tokens_at_once)
    each = torch.split(scores, [len(group.responses) for group in rankings.heldout])
    write_json_lines(path, heldout_lines(held.groups, [part.tolist() for part in each], held.votes))
    run.forget_model()  # heads and adapters start again


def follow_reward(run: Run) -> None:
    """The same on a rank other than 0, which only trains."""
    (rankings, _), shared = rankings_of(run), run.model()
    ours, theirs = _halves(run, rankings) if run.settings.reward.witness else (rankings, None)
    told: dict[str, Any] = {}
    phase, _ = _trained(run, shared, ours, told)
    phase.close()
    if theirs is not None:
        _witness(run, shared, theirs, told)


def rankings_of(run: Run) -> tuple[Rankings, HeldOut]:
    """The rankings of a run, encoded; and those of held-out prompts unencoded, with the judgments on rank 0."""
    groups, heldout, votes = _ranked(run)
    shared = run.model()
    groups, heldout = usable_groups(groups, heldout, shared.template)
    return _encoded(run, shared, groups, heldout), HeldOut(heldout, votes)


def _ranked(run: Run) -> tuple[list[RankedGroup], list[RankedGroup], list[Comparison]]:
    """The contents of the store, which may be gaining rankings: rank 0 reads it once, and sends it to the others."""
    votes: list[Comparison] = []
    groups: list[list[RankedGroup]] = []
    if run.strategy.is_lead:
        with run.store() as store:
            groups = [store.ranked_groups("train"), store.ranked_groups("heldout")]
            votes = store.comparisons("heldout")
        groups[0] = [*earlier_rankings(run), *groups[0]]
    if run.strategy.world > 1:
        told = run.strategy.from_lead(lambda: [_GROUPS.dump_python(each, mode="json") for each in groups])
        groups = [_GROUPS.validate_python(each) for each in told]
    return groups[0], groups[1], votes


def _encoded(run: Run, shared: SharedModel, groups: Sequence[RankedGroup], heldout: Sequence[RankedGroup]) -> Rankings:
    limit = run.settings.model.max_length
    return Rankings(
        encode_groups(groups, shared.template, max_length=limit),
        [group.pairs for group in groups],
        encode_groups(heldout, shared.template, max_length=limit),
        [group.pairs for group in heldout],
    )


def _halves(run: Run, rankings: Rankings) -> tuple[Rankings, Rankings]:
    ours, theirs = halves_of([group.prompt for group in rankings.groups], seed=run.settings.seed)
    if not theirs:
        raise RunError(
            "reward.witness: the comparisons are of one prompt, but the witness needs prompts "
            "of its own; rank more prompts, or leave it out"
        )
    return rankings.some(ours), rankings.some(theirs)


def _witness(run: Run, shared: SharedModel, rankings: Rankings, told: dict[str, Any]) -> RewardMember:
    model = RewardMember(WITNESS, shared.fresh_score_head(run.settings.seed, WITNESS))
    phase = phase_of(run, shared, rankings, run.settings.reward, Member(model, apart=(WITNESS,)))
    told["witness"] = train(run, phase, f"reward/{WITNESS}", "witness")
    phase.close()
    return model


def _trained(
    run: Run, shared: SharedModel, rankings: Rankings, told: dict[str, Any]
) -> tuple[RewardPhase, list[RewardMember]]:
    """The phase of the first reward model, whose trunk states serve all, and the trained reward models."""
    settings, count = run.settings.reward, run.settings.reward.ensemble.members
    shared.ensemble = shared.residual = shared.witness = None
    prompts = [group.prompt for group in rankings.groups]
    members = [alone(shared)] if count == 1 else members_of(shared, prompts, count, seed=run.settings.seed)
    first = phase_of(run, shared, rankings, settings, members[0])
    told["members"] = [train(run, first, "reward", "reward model" if count == 1 else f"reward model 1 of {count}")]
    if (head := first.state.values.head) is not None:
        settings = settings.model_copy(update={"head_penalty": head.penalty})  # chosen once
    for number, member in enumerate(members[1:], start=2):
        phase = phase_of(run, shared, rankings, settings, member, like=first)
        told["members"].append(train(run, phase, f"reward/member-{number}", f"reward model {number} of {count}"))
    first.start_features = None
    return first, [member.model for member in members]


def _without_length(
    run: Run, phase: RewardPhase, references: Sequence[Encoded], calibration: Calibration
) -> Calibration:
    """Remove from the score what length explains; returns the conversion to the unit of training."""
    shared = phase.shared
    scores = phase.scores_of(phase.trained, shared.scores)
    lengths = [len(response) for member in phase.trained for response in phase.groups[member].responses]
    numbers: dict[tuple[int, ...], int] = {}
    group = [
        numbers.setdefault(phase.groups[member].prompt, len(numbers))
        for member in phase.trained
        for _ in phase.groups[member].responses
    ]
    slope = within_group_slope(torch.cat(scores), torch.tensor(lengths), torch.tensor(group))
    if slope is None:
        _log.warning("reward.length residual: no prompt has responses of different lengths; nothing is subtracted")
        return calibration
    deviation = take_length_off(shared, slope, references, max_tokens=run.settings.reward.tokens_at_once)
    run.say(f"reward model: each token adds {slope:+.3f} standard deviations within a prompt; subtracted")
    write_json(run.part("reward", "length.json"), {"slope": slope, "deviation_left": deviation})
    return replace(calibration, standard_deviation=calibration.standard_deviation * deviation)


def phase_of(
    run: Run,
    shared: SharedModel,
    rankings: Rankings,
    settings: RewardSettings,
    member: Member,
    like: RewardPhase | None = None,
) -> RewardPhase:
    """The phase of one reward model of a run; see `RewardPhase`."""
    kind = TwoHeadPhase if settings.length == TWO_HEADS else RewardPhase
    return kind(
        shared,
        rankings.groups,
        rankings.pairs,
        rankings.heldout,
        rankings.heldout_pairs,
        settings,
        seed=run.settings.seed,
        member=member,
        like=like,
        strategy=run.strategy,
    )


def train(run: Run, phase: RewardPhase, place: str, title: str) -> dict[str, Any]:
    """Run a phase to its end; returns its metrics on held-out rankings."""
    phase.begin(run.part(*place.split("/")), run.progress)
    with kept(run, place, title, phase.total_steps, shown=_SHOWN) as options:
        run_loop(phase, options)
    figures = phase.heldout_figures() if phase.heldout and run.strategy.is_lead else {}
    return {name.removeprefix("reward/"): value for name, value in figures.items()}
