"""Checks that the base, the reference and the reward model do not change while PPO trains, byte for byte."""

from triphase.models.roles import REFERENCE, REWARD, SharedModel
from triphase.objectives.invariants import InvariantError
from triphase.training.digests import digest_of

_NAMES = {"base": "the frozen base", REFERENCE: "the reference", REWARD: "the reward model"}


class FrozenWeights:
    """The checksums of the frozen roles at the start of a phase."""

    def __init__(self, shared: SharedModel) -> None:
        self._shared = shared
        self._before = self._digests()

    @property
    def digest(self) -> str:
        """One checksum of them all, to compare processes; each process has other parts of a sharded base."""
        sharded = self._shared.backbone.sharded
        return " ".join(value for role, value in self._before.items() if not (sharded and role == "base"))

    def require_unchanged(self) -> None:
        """Check that each is unchanged.

        Raises:
            InvariantError: naming the role whose weights have changed.
        """
        now = self._digests()
        for role, before in self._before.items():
            if now.get(role) != before:
                raise InvariantError(
                    f"{_named(role)} has changed since the phase started, although it is frozen; "
                    f"likely causes: an optimizer was given its weights, or an operation modified them in place"
                )

    def _digests(self) -> dict[str, str]:
        adapters, witness = self._shared.adapters, self._shared.witness
        scoring = (*self._shared.reward_members, *([witness] if witness is not None else []))
        found = {"base": digest_of(self._shared.backbone.base_tensors())}
        for name in (REFERENCE, *(member.adapter for member in scoring)):
            if adapters.has(name):
                found[name] = digest_of(adapters.parameters(name))
        heads = {f"the head of {_named(member.adapter)}": digest_of(member.head.state_dict()) for member in scoring}
        return found | heads


def _named(role: str) -> str:
    return _NAMES.get(role, role)
