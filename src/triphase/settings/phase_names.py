"""The names of the trained phases, of the PPO runs of variants, and of the policies that they train.

All are on disk in run directories, and stay as the first version wrote them: a variant NAME is the phase `arms/NAME`,
which is also its folder, and its policy is `arm:NAME`.
"""

SFT, REWARD, PPO, VARIANTS = "sft", "reward", "ppo", "arms"
_POLICY = "arm:"


def shown_phase(phase: str) -> str:
    """The phase in a message: as the settings and the commands spell it."""
    return "labeling" if phase == "labelling" else phase


def ppo_phase(variant: str | None) -> str:
    """The phase of a PPO run: the main one, or a variant."""
    return PPO if variant is None else f"{VARIANTS}/{variant}"


def variant_in(phase: str) -> str | None:
    """The variant whose PPO run a phase is; None if it is none of a variant."""
    return phase.removeprefix(f"{VARIANTS}/") if phase.startswith(f"{VARIANTS}/") else None


def section_of(phase: str) -> str:
    """The section of the settings that a trained phase reads; that of a variant is `ppo`, over which it has its own."""
    return phase if variant_in(phase) is None else PPO


def policy_of(variant: str | None) -> str:
    """The policy that a PPO run trains: the main one's, or a variant's."""
    return PPO if variant is None else f"{_POLICY}{variant}"


def variant_of(policy: str) -> str | None:
    """The variant whose policy it is; None for `sft` and `ppo`."""
    return policy.removeprefix(_POLICY) if policy.startswith(_POLICY) else None
