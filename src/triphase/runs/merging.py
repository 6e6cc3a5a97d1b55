"""A run's policy as an ordinary checkpoint: adapters merged, nothing of Triphase left in it."""

from pathlib import Path

from triphase.runs.opening import open_policy
from triphase.training.finals import save_whole_model


def merge_policy(run: Path, to: Path, checkpoint: int | None = None) -> None:
    """Write the policy of a run to ``to`` as a Hugging Face checkpoint; ``checkpoint`` names an iteration of PPO.

    The update B·A is added to each weight in float32 and rounded once to the base's dtype.
    """
    shared, adapter, _ = open_policy(run, checkpoint)
    if adapter is not None:
        shared.adapters.merge(adapter)
    save_whole_model(shared, to)
