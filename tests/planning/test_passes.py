"""`microbatch_tokens: auto` is the largest pass that the plan has room for, and changes rounding at most."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from tests.planning.test_footprint import OPTIMIZER, PROMPT, RESPONSE, model, planner, run_settings
from tests.resolved import resolved_yaml
from tests.runs.small_run import settings as small_settings
from tests.runs.small_run import write_data

from triphase.cli.main import main
from triphase.footprints.work import Shape
from triphase.footprints.workload import Lengths, Workload
from triphase.phases.sft_footprint import sft_footprint
from triphase.planning import passes
from triphase.planning import plan as planning
from triphase.planning.passes import ROOM, _footprints, _planned, asks, sized

AUTO = {
    "sft": {"batch_size": 64, "microbatch_tokens": "auto", "optimizer": OPTIMIZER},
    "reward": {"batch_size": 24, "microbatch_tokens": "auto", "epochs": 2, "optimizer": OPTIMIZER},
    "ppo": {"batch_size": 64, "minibatch_size": 64, "max_response_tokens": RESPONSE, "microbatch_tokens": "auto"},
}
WHOLE = 50_000
"""Tokens of a minibatch: larger passes are the same."""


class Planned:
    """A cost model of phases that need 1000 bytes and one for each token of a pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, floor: float = 0.0, **changes: Any) -> None:
        """``floor``: what another moment of each phase needs, which is no pass."""
        self.settings, self.floor = run_settings(**AUTO, **changes), floor
        some, none = Lengths([(4, 4)], 1), Lengths()
        self.load = Workload(some, none, 2, some, none, some)
        self.asked: list[tuple[str, int]] = []
        monkeypatch.setattr(passes, "_planned", self.planned)

    def planned(self, cost: Any, name: str, tokens: int) -> tuple[float, list[object]]:
        self.asked.append((name, tokens))
        return max(self.floor, 1000.0 + min(tokens, WHOLE)), [min(tokens, WHOLE)]

    def chosen(self, allowed: float, *, on_card: bool) -> int:
        settings, lines = sized(cast(Any, self), allowed / ROOM, on_card=on_card)
        assert not asks(settings) and len(lines) == 3
        (found,) = {getattr(settings, name).microbatch_tokens for name in ("sft", "reward", "ppo")}
        for name, line in zip(("sft", "reward", "ppo"), lines, strict=True):
            assert line.startswith(f"{name}.microbatch_tokens: auto is {found} (planned ")
            assert ("more than the" in line) == (max(self.floor, 1000 + min(found, WHOLE)) > allowed)
        return int(found)


@pytest.mark.parametrize(
    ("allowed", "card", "processor"),
    [
        (1e12, 65536, 512),  # 32768 does not hold a whole minibatch, 65536 does
        (1000 + 32768, 32768, 512),
        (1000 + 32767, 16384, 512),
        (1000 + 4096, 4096, 512),
        (1000 + 4095, 2048, 512),
        (1000 + 511, 256, 256),
        (1000 + 128, 128, 128),
        (1.0, 128, 128),  # nothing fits
    ],
)
def test_it_is_the_largest_that_fits(
    allowed: float, card: int, processor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the powers of two from 128 on; on a processor more than the usual are no faster."""
    planned = Planned(monkeypatch)
    assert planned.chosen(allowed, on_card=True) == card
    assert planned.chosen(allowed, on_card=False) == processor
    assert len(planned.asked) <= 2 * 3 * 7  # each costs a second on a model of some size


@pytest.mark.parametrize(("floor", "card", "processor"), [(3000.0, 1024, 512), (1300.0, 256, 256), (9e9, 4096, 512)])
def test_it_is_not_reduced_for_what_is_no_pass(
    floor: float, card: int, processor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampling may not fit either: then smaller passes are slower and help nothing."""
    planned = Planned(monkeypatch, floor=floor)
    assert planned.chosen(1200.0, on_card=True) == card
    assert planned.chosen(1200.0, on_card=False) == processor


def test_a_variant_has_passes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = {"long": {"max_response_tokens": 8 * RESPONSE}, "set": {"microbatch_tokens": 300}}
    found, lines = sized(cast(Any, Planned(monkeypatch, variants=variants)), 1e12, on_card=False)
    assert found.ppo_of("long").microbatch_tokens == 512 and found.ppo_of("set").microbatch_tokens == 300
    assert [line.split(":")[0] for line in lines][-1] == "variants.long.microbatch_tokens" and len(lines) == 4


def test_the_plan_is_asked_for_the_phase_with_its_passes() -> None:
    """And PPO's for the evaluation too, whose passes are those of PPO."""
    cost = planner(run_settings(**AUTO), model())
    peaks = {tokens: _planned(cost, "sft", tokens) for tokens in (256, 4096)}
    for tokens, (peak, shapes) in peaks.items():
        tried = planner(run_settings(**{**AUTO, "sft": {**AUTO["sft"], "microbatch_tokens": tokens}}), model())
        assert sft_footprint(tried).peak.total == peak
        assert max(shape.tokens for shape in cast(list[Shape], shapes)) == min(tokens, 64 * (PROMPT + RESPONSE))
    assert cost.settings.sft.microbatch_tokens == "auto"  # as it was
    kinds = [each.phase for each in (made(cost) for made in _footprints(cost, "ppo"))]
    assert kinds == ["ppo", "evaluation"]


def test_without_auto_nothing_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "opened", lambda settings: pytest.fail("the model was opened"))
    settings = run_settings()
    assert planning.sized_settings(settings, None) == (settings, [])


def small(tmp_path: Path, tokens: Any, name: str) -> Path:
    write_data(tmp_path)
    path = tmp_path / f"{name}.yaml"
    made = small_settings(tmp_path, method="lora", adapters={"layers": 1, "rank": 4})
    changed = {
        part: getattr(made, part).model_copy(update={"microbatch_tokens": tokens}) for part in ("sft", "reward", "ppo")
    }
    path.write_text(resolved_yaml(made.model_copy(update={"name": name, **changed})))
    return path


@pytest.mark.slow
def test_plan_and_check_say_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small(tmp_path, "auto", "auto")
    assert main(["plan", str(path), "--json", str(tmp_path / "plan.json")]) == 0
    shown, plan = capsys.readouterr().out, json.loads((tmp_path / "plan.json").read_text())
    assert len(plan["notes"]) == 3 and all(note in shown for note in plan["notes"])
    assert main(["plan", str(path), "--gpus", "1", "--memory", "80GB", "--card", "h100"]) == 0
    assert "sft.microbatch_tokens: auto is" in capsys.readouterr().out
    assert main(["check", str(path)]) == 0


@pytest.mark.slow
def test_a_run_logs_it_and_ends_as_with_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triphase.batches.order._MOST_TOKENS", 64)
    ends = []
    for tokens, name in (("auto", "one"), (64, "two")):
        assert main(["sft", str(small(tmp_path, tokens, name))]) == 0
        ends.append((tmp_path / "runs" / name / "sft" / "metrics.jsonl").read_text())
    log = (tmp_path / "runs" / "one" / "log.jsonl").read_text()
    assert log.count("sft.microbatch_tokens: auto is 64 (planned") == 1
    one, two = (
        [
            {key: value for key, value in json.loads(line).items() if "second" not in key and key != "time"}
            for line in each.splitlines()
        ]
        for each in ends
    )
    assert one == two
    assert "microbatch_tokens: auto" in (tmp_path / "runs" / "one" / "config.yaml").read_text()
