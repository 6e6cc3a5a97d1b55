"""What must not change while PPO trains: a change of one number in any of it is detected and named."""

from collections.abc import Callable

import pytest
import torch
from tests.small import shared_model, stir

from triphase.models.members import Combination, Ensemble, RewardMember, member_adapter
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.objectives.invariants import InvariantError
from triphase.phases.frozen import FrozenWeights

WITNESS, SECOND = "witness", member_adapter(REWARD, 1)


def roles() -> SharedModel:
    """A policy, its reference, two reward models and a witness."""
    shared = shared_model()
    for adapter in (POLICY, REFERENCE, REWARD, SECOND, WITNESS):
        stir(shared, adapter)
    members = (RewardMember(REWARD, shared.score_head), RewardMember(SECOND, shared.fresh_score_head(1)))
    shared.ensemble = Ensemble(members, Combination("mean", 0.0))
    shared.witness = RewardMember(WITNESS, shared.fresh_score_head(2))
    return shared


def adapter(name: str) -> Callable[[SharedModel], torch.Tensor]:
    return lambda shared: next(iter(shared.adapters.parameters(name).values()))


def witness_head(shared: SharedModel) -> torch.Tensor:
    assert shared.witness is not None
    return shared.witness.head.linear.weight


MOVED: dict[str, Callable[[SharedModel], torch.Tensor]] = {
    "the frozen base": lambda shared: next(iter(shared.backbone.base_tensors().values())),
    "the reference": adapter(REFERENCE),
    "the reward model": adapter(REWARD),
    SECOND: adapter(SECOND),
    WITNESS: adapter(WITNESS),
    "the head of the reward model": lambda shared: shared.score_head.linear.weight,
    f"the head of {SECOND}": lambda shared: shared.reward_members[1].head.linear.bias,
    "the head of witness": witness_head,
}


@pytest.mark.parametrize("name", MOVED)
def test_a_frozen_role_that_moved_is_found_and_named(name: str) -> None:
    shared = roles()
    frozen = FrozenWeights(shared)
    with torch.no_grad():
        MOVED[name](shared).view(-1)[0] += 1e-3
    with pytest.raises(InvariantError, match=f"^{name} has changed since the phase started"):
        frozen.require_unchanged()
    assert FrozenWeights(shared).digest != frozen.digest


def test_the_policy_and_the_value_head_may_move() -> None:
    shared = roles()
    frozen = FrozenWeights(shared)
    with torch.no_grad():
        adapter(POLICY)(shared).add_(1)
        shared.value_head.linear.weight.add_(1)
    frozen.require_unchanged()
