"""The values that figures show under the pointer, and where."""

import re
import warnings

import pytest
from matplotlib.figure import Figure

from triphase.reports.drawing import drawing, percents, whole_steps
from triphase.reports.figure_readouts import MOST_COLUMNS, Frame, Line, Readout, columns, evenly, overlay, reading

FRAME = Frame(left=50, right=250, top=10, bottom=150, width=258, height=190)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (-12.34, "−12.3"), (123.4, "123"), (1e-9, "0.00000")],
)
def test_three_digits_count(value: float, text: str) -> None:
    assert reading(value) == text


def test_columns_share_the_width_and_leave_no_gap() -> None:
    said = columns("step", {"": ("", [1, 2, 4], [5.0, 6.0, 7.0])})
    svg = overlay([(each, place, None) for each, place in zip(said, (60.0, 100.0, 240.0), strict=True)], FRAME)
    targets = re.findall(r'<g class="at"><rect x="([\d.]+)" y="10.0" width="([\d.]+)"', svg)
    edges = [(float(left), float(left) + float(width)) for left, width in targets]
    assert edges == [(50, 80), (80, 170), (170, 250)]
    assert ">step 4<" in svg and ">7.00<" in svg


def test_a_box_never_leaves_the_figure() -> None:
    for x, y in ((0.0, None), (257.0, None), (257.0, 0.0), (3.0, 189.0)):
        said = Readout(1, y, "a title that is long, and then some more", (Line("blue", "x" * 60),) * 3)
        svg = overlay([(said, x, y)], FRAME)
        found = re.search(r'<rect x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)" rx', svg)
        assert found
        left, top, width, height = map(float, found.groups())
        assert left >= 0 and top >= 0 and left + width <= FRAME.width + 0.1 and top + height <= FRAME.height + 0.1


def test_names_are_inert_and_short() -> None:
    said = columns("step", {"<b>\u202e" + "long" * 20: ("blue", [1, 2], [0.5, 0.5])})
    svg = overlay([(each, 100.0, None) for each in said], FRAME)
    assert "<b>" not in svg and "&lt;b&gt;⟦U+202E⟧" in svg and "longlonglonglonglong" not in svg


def test_long_curves_have_a_bounded_number_of_columns_with_both_ends() -> None:
    steps = list(range(1, 1001))
    said = columns("iteration", {"": ("", steps, steps)})
    assert len(said) == MOST_COLUMNS and (said[0].x, said[-1].x) == (1, 1000)
    assert evenly([3, 4], 5) == [3, 4]


def test_the_overlay_lies_where_the_curve_does() -> None:
    with drawing("probe", "A probe", width=400, height=200) as canvas:
        canvas.axes.plot([0, 10], [0, 1], marker="o")
        canvas.readouts = [Readout(10, 1.0, "end", ())]
    circle = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', canvas.svg)
    ends = re.findall(r'<path d="M [\d.]+ [\d.]+ \nL ([\d.]+) ([\d.]+) \n" clip-path', canvas.svg)
    assert circle
    at = [float(each) for each in circle.groups()]
    assert any([float(each) for each in end] == pytest.approx(at, abs=0.1) for end in ends)


@pytest.mark.parametrize("limits", [(0, 1), (0, 0.03), (0.0031, 0.0039), (0.985, 1.0)])
def test_ticks_of_shares_do_not_repeat(limits: tuple[float, float]) -> None:
    axes = Figure().add_subplot()
    axes.set_ylim(*limits)
    percents(axes.yaxis)
    labels = axes.yaxis.get_major_formatter().format_ticks(axes.get_yticks())
    assert len(set(labels)) == len(labels) >= 3


def test_steps_are_whole_even_of_one_iteration() -> None:
    axes = Figure().add_subplot()
    axes.plot([1], [0.5], marker="o")
    whole_steps(axes, "iteration")
    assert all(tick == round(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324])
def test_a_figure_of_a_damaged_file_is_drawn_without_a_warning(value: float) -> None:
    with warnings.catch_warnings(), drawing("damaged", "One value too large") as canvas:
        warnings.simplefilter("error")
        canvas.axes.plot([1, 2, 3], [0.5, value, 0.25])
        canvas.axes.legend(["score"])
    assert canvas.svg.startswith("<svg")
