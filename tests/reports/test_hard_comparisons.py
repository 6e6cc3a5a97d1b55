"""The judgments that the reward model contradicts most, and those that it cannot decide."""

from triphase.reports.hard_comparisons import MOST, HardComparison, hardest


def judgment(number: int, margin: float, labeler: str = "a", *, turned: bool = False) -> HardComparison:
    better, worse = ("no", "yes") if turned else ("yes", "no")
    return HardComparison("", f"p{number}", "?", better, worse, labeler, margin)


def test_the_worst_come_first_and_the_rest_by_how_close_they_are() -> None:
    found = hardest([judgment(1, -2.0), judgment(2, 0.1), judgment(3, 3.0), judgment(4, -0.5), judgment(5, -3.0)])
    assert [(each.kind, each.prompt_id) for each in found] == [
        ("contradicted", "p5"),
        ("contradicted", "p1"),
        ("contradicted", "p4"),
        ("undecided", "p2"),
        ("undecided", "p3"),
    ]


def test_two_labelers_of_one_pair_are_shown_once_by_the_one_who_is_contradicted() -> None:
    found = hardest([judgment(1, 2.0, "a"), judgment(1, -2.0, "b", turned=True)])
    assert [(each.labeler, each.margin) for each in found] == [("b", -2.0)]


def test_there_are_so_many_of_each_kind_and_none_twice() -> None:
    found = hardest([judgment(number, number - 20.5) for number in range(41)])
    kinds = [each.kind for each in found]
    assert kinds == ["contradicted"] * MOST + ["undecided"] * MOST
    assert len({each.prompt_id for each in found}) == 2 * MOST
