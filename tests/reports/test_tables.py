"""Numbers and names as people read them."""

from triphase.monitoring.wording import number
from triphase.reports.tables import clock, flattened, policy_name


def test_numbers() -> None:
    assert [number(value) for value in (1.234, -0.5, None)] == ["1.23", "−0.50", "–"]
    assert [clock(value) for value in (None, 41.2, 692, 11_100)] == ["–", "41 s", "11 min 32 s", "3 h 05 min"]
    assert clock(59.7) == "1 min 00 s"


def test_names() -> None:
    assert [policy_name(name) for name in ("sft", "ppo", "arm:no-penalty")] == ["SFT", "PPO", "no-penalty"]


def test_settings_are_flattened_in_order() -> None:
    values = {"b": {"c": 1, "d": None}, "a": [1, 2], "e": [{"f": True}], "g": {}, "h": []}
    assert flattened(values) == [
        ("b.c", "1"), ("b.d", "none"), ("a", "1, 2"), ("e.0.f", "yes"), ("g", "none"), ("h", "none"),
    ]  # fmt: skip
