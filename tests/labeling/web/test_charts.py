"""Charts draw their numbers: positions on the axis, heights, shades and intervals."""

import re
from xml.etree import ElementTree

import pytest

from triphase.labeling.quality.agreement import Agreement, Estimate
from triphase.labeling.web.charts import bars, intervals, matrix


def elements(drawn: str, kind: str) -> list[dict[str, str]]:
    """The attributes of the elements of a class, and their text."""
    return [
        {**each.attrib, "text": each.text or ""}
        for each in ElementTree.fromstring(drawn).iter()  # noqa: S314 - made here
        if kind in each.get("class", "").split()
    ]


def number(text: str) -> float:
    return float(text.removesuffix("%"))


def test_a_share_stands_where_the_axis_has_it() -> None:
    rows = [("ann", Estimate(0.25, 0.0, 0.5, 9, 9)), ("bob", None), ("cy", Estimate(0.75, 0.5, 1.0, 9, 9))]
    drawn = str(intervals(rows, "Agreement", mark=0.5))
    axis = {tick["text"]: tick["x"] for tick in elements(drawn, "tick")}
    assert list(axis) == ["0", "25", "50", "75", "100"]
    assert [dot["cx"] for dot in elements(drawn, "dot")] == [axis["25"], axis["75"]]
    assert [(line["x1"], line["x2"]) for line in elements(drawn, "whisker")] == [
        (axis["0"], axis["50"]), (axis["50"], axis["100"]),
    ]  # fmt: skip
    [mark] = elements(drawn, "mark")
    assert mark["x1"] == mark["x2"] == axis["50"]
    assert [value["text"] for value in elements(drawn, "value")] == ["25 %", "75 %"]
    assert "<title>ann: 25 %, 0 to 50 %</title>" in drawn and "bob" not in drawn


def test_bars_are_as_tall_as_their_values_and_stand_on_the_axis() -> None:
    drawn = str(bars([("mon", 10.0), ("tue", 5.0), ("wed", 0.0)], "Answers"))
    heights = [number(bar["height"]) for bar in elements(drawn, "bar")]
    assert heights[0] > 50 and heights[1] == pytest.approx(heights[0] / 2, abs=0.1) and heights[2] == 0
    feet = {number(bar["y"]) + number(bar["height"]) for bar in elements(drawn, "bar")}
    [axis] = elements(drawn, "grid")
    assert max(feet) - min(feet) <= 0.1 and max(feet) == pytest.approx(number(axis["y1"]), abs=1)
    middles = [number(bar["x"]) + number(bar["width"]) / 2 for bar in elements(drawn, "bar")]
    assert middles == pytest.approx([number(value["x"]) for value in elements(drawn, "value")], abs=0.02)


@pytest.mark.parametrize(("share", "shade"), [(0.0, 0), (0.45, 0), (0.47, 1), (0.7, 4), (0.71, 5), (0.95, 9), (1.0, 9)])
def test_a_square_is_darker_for_more_agreement(share: float, shade: int) -> None:
    found = Estimate(share, max(0.0, share - 0.1), min(1.0, share + 0.1), 13, 7)
    drawn = str(matrix({("ann", "bob"): Agreement(found, None)}, "Agreement"))
    assert [cell["class"] for cell in elements(drawn, "cell")] == [f"cell heat{shade}"] * 2
    low, high = f"{100 * found.low:.0f}", f"{100 * found.high:.0f}"
    said = [text["text"] for text in elements(drawn, "incell")]
    assert said == [f"{100 * share:.0f}", f"{low}–{high}", "n 13"] * 2
    assert len(re.findall(f"ann and bob: {100 * share:.0f} %, {low} to {high} %, 13 pairs", drawn)) == 1


def test_one_prompt_has_no_interval() -> None:
    drawn = str(matrix({("ann", "bob"): Agreement(Estimate(0.5, 0.5, 0.5, 2, 1), None)}, "Agreement"))
    assert [text["text"] for text in elements(drawn, "incell")] == ["50", "n 2"] * 2 and "50 %, one prompt" in drawn
