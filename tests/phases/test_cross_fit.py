"""In training a ranking is scored by a head that has not seen its prompt: losses, a resume, a single prompt."""

from pathlib import Path

import pytest
import torch
from tests.phases.test_reward import groups_of, pairs_of, settings
from tests.phases.test_two_heads import uneven
from tests.small import shared_model, stir

from triphase.models.roles import REFERENCE, SharedModel
from triphase.monitoring.progress import SilentProgress
from triphase.phases.reward import RewardPhase
from triphase.phases.reward_member import Member, members_of
from triphase.phases.reward_state import RewardState
from triphase.phases.two_heads import TwoHeadPhase
from triphase.settings.phases import OptimizerSettings
from triphase.tokens.encoding import EncodedGroup
from triphase.training import head_fit

STILL = OptimizerSettings(learning_rate=1e-12, head_learning_rate=1e-12, schedule="constant")


def fitted(
    kind: type[RewardPhase] = RewardPhase,
    *,
    groups: list[EncodedGroup] | None = None,
    member: bool = False,
    **values: object,
) -> RewardPhase:
    """A phase whose head is fitted; the same prompt has two of its rankings."""
    shared = shared_model()
    stir(shared, REFERENCE)
    groups = groups or [*uneven(19), EncodedGroup(uneven(1)[0].prompt, uneven(1, seed=5)[0].responses)]
    chosen = settings(head_penalty="auto", optimizer=STILL, batch_size=5, **values)
    which = _second_member(shared, groups) if member else None
    subject = kind(shared, groups, [pairs_of(group) for group in groups], [], [], chosen, seed=3, member=which)
    subject.fit_head(SilentProgress())
    return subject


def _second_member(shared: SharedModel, groups: list[EncodedGroup]) -> Member:
    return members_of(shared, [group.prompt for group in groups], 2, seed=3)[1]


@pytest.fixture(autouse=True)
def _few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_fit, "PENALTIES", (0.3, 0.1))


@pytest.mark.parametrize("case", ["plain", "two heads", "member", "rows of their own"])
def test_a_pass_without_learning_has_the_cross_validated_loss(case: str) -> None:
    subject = fitted(
        TwoHeadPhase if case == "two heads" else RewardPhase,
        member=case == "member",
        **({"length": "two-heads"} if case == "two heads" else {}),
        **({"microbatch_tokens": 1} if case == "rows of their own" else {}),
    )
    head = subject.state.values.head
    losses, counts = [], []
    for step in range(subject.total_steps):
        counts.append(len(subject.member.repeated(subject._rankings_of(step))))
        losses.append(subject.advance(step)["reward/loss"])
    mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert head.loss == pytest.approx(mean, abs=2e-4)  # the fits of cross-validation start where others ended
    # and it is another loss than that of the head itself, which has seen all of them
    seen = torch.cat(subject.scores_of(subject.trained))
    assert len(head.cross_fits) == 5 and len(head.cross_fits[0]) == subject.shared.backbone.hidden_size + 1
    assert _loss_of(subject, seen) < mean - 0.02


def _loss_of(subject: RewardPhase, scores: torch.Tensor) -> float:
    rows = torch.split(scores, subject.sizes)
    each = []
    for pairs, row in zip(subject.pairs, rows, strict=True):
        signs = torch.tensor([1.0 if pair.target else -1.0 for pair in pairs])
        apart = torch.stack([row[pair.first] - row[pair.second] for pair in pairs])
        each.append(float(torch.nn.functional.softplus(-signs * apart).mean()))
    return sum(each) / len(each)


def test_a_resumed_phase_trains_by_the_same_heads() -> None:
    first = fitted()
    state = first.state.values
    again = RewardState.from_json(state.as_json())
    assert again == state
    assert "cross_fits" not in first.head_summary()  # a file for people
    second = fitted()
    second.state.values = again
    assert second.advance(0) == first.advance(0)
    older = state.as_json()
    del older["head"]["cross_fits"]  # a checkpoint of a version that had none goes on as it began
    assert RewardState.from_json(older).head.cross_fits is None


def test_the_head_learns_and_the_other_fits_do_not() -> None:
    subject = fitted()
    subject.state.updater.step = lambda: None  # type: ignore[method-assign]
    found = subject._loss(list(range(5)), 5)
    fold = head_fit.folds_of([group.prompt for group in subject.groups], seed=3)[subject.groups[0].prompt]
    *weight, bias = subject.state.values.head.cross_fits[fold]
    rows, head = slice(0, subject.sizes[0]), subject.head.linear
    expected = subject._like.start_features[rows] @ (torch.tensor(weight) + head.weight[0]) + bias + head.bias
    assert torch.allclose(found.scores[rows], expected, atol=1e-4) and bias
    found.objective.backward()
    assert subject.head.linear.weight.grad.norm() > 0
    assert not subject._cross_fit._fits.requires_grad


def test_one_prompt_alone_has_no_other_heads(tmp_path: Path) -> None:
    group = groups_of(1)[0]
    subject = fitted(groups=[group, EncodedGroup(group.prompt, groups_of(1, seed=5)[0].responses)])
    assert subject.state.values.head.cross_fits == []
    assert subject.advance(0)["reward/loss"] == pytest.approx(
        _loss_of(subject, torch.cat(subject.scores_of(subject.trained))), abs=1e-4
    )
