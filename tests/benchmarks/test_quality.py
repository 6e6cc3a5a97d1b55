"""Time to quality: TRL gets our settings under its names; cached results are reused for the same key only."""

from pathlib import Path

import pytest
from benchmarks.quality import _kept, peer_settings

from triphase.settings.schema import RunSettings


def settings(**ppo: object) -> RunSettings:
    return RunSettings.model_validate({"name": "x", "model": {"name": "y"}, "data": {}, "ppo": ppo})


def test_the_peer_takes_as_many_optimizer_steps() -> None:
    ours = settings(batch_size=32, minibatch_size=8, epochs=3)
    theirs = peer_settings(ours, None)
    # A microbatch is all of a minibatch, since the batch is the microbatch's bound and it accumulates over none.
    assert theirs["per_device_train_batch_size"] == 32
    assert theirs["num_mini_batches"] * theirs["num_ppo_epochs"] == 4 * 3


def test_the_peer_has_our_rates_and_prices() -> None:
    ours = settings(kl_coefficient=0.07, missing_eos_penalty=0.5, optimizer={"learning_rate": 0.002})
    theirs = peer_settings(ours, None)
    found = [theirs[name] for name in ("kl_coef", "missing_eos_penalty", "learning_rate", "max_grad_norm")]
    assert found == [0.07, 0.5, 0.002, ours.ppo.optimizer.max_gradient_norm]
    assert peer_settings(ours, 0.001)["learning_rate"] == 0.001


def test_what_was_kept_is_not_made_again_nor_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert _kept(path, {"seed": 0, "ids": (1, 2)}, lambda: {"gold": 1.0}) == {"gold": 1.0}
    assert _kept(path, {"seed": 0, "ids": (1, 2)}, lambda: {"gold": 2.0}) == {"gold": 1.0}
    with pytest.raises(SystemExit, match="seed"):
        _kept(path, {"seed": 1, "ids": (1, 2)}, lambda: {"gold": 2.0})
