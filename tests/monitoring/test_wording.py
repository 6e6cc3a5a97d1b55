"""Numbers as people read them."""

from triphase.monitoring.wording import number, percent


def test_numbers() -> None:
    assert [number(value) for value in (1.456, -1.456, -0.001, 0.0, None)] == ["1.46", "−1.46", "0.00", "0.00", "–"]
    assert (number(-0.4, 0), percent(0.744), percent(None), percent(0.744, 1)) == ("0", "74 %", "–", "74.4 %")
