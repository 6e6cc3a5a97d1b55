"""The rounds of a run in its report: a row for each, the effect of a refit, and the round of the verdict."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.reports.synthetic import write_run

from triphase.errors import RunError
from triphase.reports.intervals import Interval
from triphase.reports.live import LiveReport
from triphase.reports.page import write_report
from triphase.reports.rounds import RoundRow, newest_place, round_after, round_rows, rounds_before, rounds_caption
from triphase.reports.summary_file import keep_summary

WORDS = {"words_first": 9, "words_second": 7}
WINS = {"gold_win_rate": 0.7, "gold_win_rate_low": 0.6, "gold_win_rate_high": 0.8}


def further(run: Path, number: int, before: list[float], after: list[float], **summary: Any) -> Path:
    """A round of one held-out judgment a prompt; positive margins are right."""
    place = run / "rounds" / str(number)
    (place / "reward").mkdir(parents=True)
    for name, margins in (("before.jsonl", before), ("heldout.jsonl", after)):
        rows = [
            {"prompt_id": f"p{n}", "score_first": margin, "score_second": 0.0, "target": 1.0, **WORDS}
            for n, margin in enumerate(margins)
        ]
        (place / "reward" / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    keep_summary(place / "summary.json", {"ppo": summary})
    return place


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def test_a_report_has_a_row_for_every_round_and_says_which_one_the_verdict_is_on(run: Path) -> None:
    further(run, 2, [1, -1, -1, -1], [1, 1, 1, -1], **WINS, reference_kl=6.25, gold_mean=1.5)
    place = further(run, 3, [1, 1, -1, -1], [1, -1, -1, -1], gold_win_rate=0.4, gold_win_rate_high=0.45)
    (place / "report.html").write_text("a page of its own")
    page = write_report(run).read_text()
    assert "Round by round" in page and '<a href="rounds/3/report.html">round 3</a>' in page
    assert "This verdict is about round 1. The newest policy is that of round 3: preferred in 40" in page
    caption = "better after 1 of 2 refits: 25 % before the first, 25 % after the last"
    assert caption.replace(" %", "\u202f%") in page or caption in page.replace("\xa0", " ").replace("\u202f", " ")
    rows = [line for line in page.splitlines() if line.strip().startswith(("<tr><td>2</td>", "<tr><td>3</td>"))]
    assert len(rows) == 2 and "1.50" in rows[0] and ">6.2<" in rows[0] and "no report" not in rows[0]


def test_a_run_of_one_round_has_no_such_section(run: Path) -> None:
    page = write_report(run).read_text()
    assert "Round by round" not in page and "This verdict is about round" not in page


def test_a_further_round_is_called_after_its_run_and_leads_back(run: Path) -> None:
    page = write_report(write_run(run / "rounds" / "2")).read_text()
    assert "<h1>run, round 2</h1>" in page and "<title>run, round 2 · Triphase report</title>" in page
    assert '<a href="../../report.html">' in page and "<span>whole run" not in page and "<span>this round" in page
    first = write_report(run).read_text()
    assert "../../report.html" not in first and "<span>this round" not in first


def test_a_round_without_held_out_rankings_and_without_an_end(tmp_path: Path) -> None:
    place = further(tmp_path, 2, [], [])
    (place / "summary.json").unlink()
    (row,) = round_rows(tmp_path, 0)
    assert row == RoundRow(2, None, None, {}, None) and row.win_rate is None
    assert row.sentence.endswith("round 2: not evaluated yet.")
    assert "is unknown" in rounds_caption([row])


def test_the_caption_counts_refits_that_made_it_better() -> None:
    def row(number: int, before: float, after: float) -> RoundRow:
        return RoundRow(number, Interval(before, None, None, 1), Interval(after, None, None, 1), {}, None)

    worse = rounds_caption([row(2, 0.6, 0.5)])
    assert "better after 0 of 1 refit:" in worse.replace("\xa0", " ")
    assert "better after 2 of 2 refits:" in rounds_caption([row(2, 0.5, 0.6), row(3, 0.55, 0.7)])


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "is damaged"), ("[]", "is damaged"), ('{"ppo": {"reference_kl": 3}}', "has no checksum"),
     ("{}", "has no checksum"), ('{"ppo": 3, "sha256": "0"}', "was changed after it was written")],
)  # fmt: skip
def test_a_damaged_summary_of_a_round_is_named(run: Path, text: str, problem: str) -> None:
    place = further(run, 2, [1], [1])
    (place / "summary.json").write_text(text)
    with pytest.raises(RunError, match=rf"rounds/2/summary\.json {problem}"):
        write_report(run)


def test_a_served_report_is_on_the_newest_round_and_links_to_no_file(run: Path) -> None:
    now = [0.0]
    report = LiveReport(run, is_worked_on=lambda: True, clock=lambda: now[0])
    assert "Round by round" not in report.page()
    place = further(run, 2, [1, -1], [1, 1], **WINS)
    (place / "report.html").write_text("a page")
    (place / "ppo").mkdir()
    (place / "ppo" / "metrics.jsonl").write_text('{"step": 4, "ppo/proxy_score": 0.5}\n')
    assert newest_place(run) == place
    now[0] = 1e6
    page = report.page()
    assert "Round by round" in page and 'href="rounds/' not in page
    assert "round 2, PPO iteration 4" in json.loads(report.state())["says"]


def test_only_directories_with_the_number_of_a_further_round_are_rounds(run: Path) -> None:
    place = further(run, 2, [1], [1])
    for name in ("02", "0", "1", "2-old", "3\u0663", "9" * 100):
        place.rename(run / "rounds" / name)
        assert round_rows(run, 0) == [] and newest_place(run) == run, name
        (run / "rounds" / name).rename(place)
    (run / "rounds" / "3").write_text("a file")
    (run / "rounds" / "4").symlink_to("..")
    assert [row.number for row in round_rows(run, 0)] == [2] and newest_place(run) == place


def test_a_run_that_is_called_like_a_round_has_none_before_it(tmp_path: Path) -> None:
    first, second, third = tmp_path / "r", tmp_path / "r" / "rounds" / "2", tmp_path / "r" / "rounds" / "3"
    for place in (second, third):
        place.mkdir(parents=True)
    assert rounds_before(third) == [first, second] and round_after(second) == third
    assert rounds_before(third.with_name("20261127")) == [] == rounds_before(third.with_name("123456"))
    for text, before in (
        ("settings: {earlier_rounds: [/r, /r/rounds/2]}", [first, second]),
        ("settings: {name: '3'}", []),
        ("settings: {earlier_rounds: []}", []),
        ("settings: [", [first, second]),
    ):
        (third / "config.yaml").write_text(text)
        assert rounds_before(third) == before, text
