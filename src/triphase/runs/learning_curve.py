"""`triphase reward --learning-curve`: reward models on a quarter, half and all of the training prompts.

Each is trained independently, with the settings of the run, in `reward/curve-N`; the run's own is not changed.
The smaller sets of prompts are subsets of the larger ones.
"""

from dataclasses import asdict

from triphase.batches.order import permutation
from triphase.models.members import RewardMember
from triphase.monitoring.wording import percent
from triphase.phases.reward_member import Member
from triphase.records.files import remove_directory, write_json_lines
from triphase.reports.learning_curve import CurvePoint, curve_sentences
from triphase.reports.reward_quality import ScoredPair, accuracy
from triphase.runs.result_rows import heldout_lines
from triphase.runs.reward_training import HeldOut, Rankings, phase_of, rankings_of, train
from triphase.runs.session import Run
from triphase.settings.phases import EnsembleSettings

FILE = "learning-curve.jsonl"
SHARES = (0.25, 0.5, 1.0)
_ADAPTER = "curve"
_FEWEST = 8


def measure_curve(run: Run) -> None:
    """Train on each share of the prompts, write `reward/learning-curve.jsonl`, and report the results."""
    rankings, held = rankings_of(run)
    prompts = list(dict.fromkeys(group.prompt for group in rankings.groups))
    if len(prompts) < _FEWEST or not held.votes:
        run.say(
            f"no learning curve: it needs at least {_FEWEST} training prompts and a held-out judgment; there are "
            f"{len(prompts)} and {len(held.votes)}"
        )
        return
    order = permutation(len(prompts), run.settings.seed, "reward", "curve")
    points = []
    for share in SHARES:
        chosen = {prompts[place] for place in order[: round(share * len(order))]}
        numbers = [number for number, group in enumerate(rankings.groups) if group.prompt in chosen]
        points.append(_point(run, rankings.some(numbers), held, share, len(chosen)))
    for share in SHARES:  # another call may find other rankings, and trains again
        remove_directory(run.part("reward", _folder(share)))
    write_json_lines(run.part("reward", FILE), [asdict(point) for point in points])
    for line in curve_sentences(points):
        run.say(line)


def _folder(share: float) -> str:
    return f"curve-{round(100 * share)}"


def _point(run: Run, rankings: Rankings, held: HeldOut, share: float, prompts: int) -> CurvePoint:
    shared, seed = run.model(), run.settings.seed
    settings = run.settings.reward.model_copy(update={"ensemble": EnsembleSettings(), "witness": False})
    member = Member(RewardMember(_ADAPTER, shared.fresh_score_head(seed)))
    phase = phase_of(run, shared, rankings, settings, member)
    figures = train(run, phase, f"reward/{_folder(share)}", f"reward model on {percent(share)} of the prompts")
    scores = [found.tolist() for found in phase.scores_of(phase.heldout)]
    phase.close()
    shared.adapters.remove(_ADAPTER)
    pairs = [ScoredPair(**line) for line in heldout_lines(held.groups, scores, held.votes)]
    right = accuracy(pairs, seed=seed)
    assert right is not None  # noqa: S101 - there are judgments
    count = sum(map(len, rankings.pairs))
    return CurvePoint(share, prompts, count, right.value, right.low, right.high, figures["heldout_loss"])
