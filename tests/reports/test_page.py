"""report.html: complete, self-contained, inert, and plain about what is missing."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from triphase.errors import RunError
from triphase.monitoring.alarms import Alarm
from triphase.reports.contents import RunContents
from triphase.reports.figure_readouts import percent_reading, reading
from triphase.reports.findings import Findings, find
from triphase.reports.layout import TEMPLATES
from triphase.reports.page import PANELS, write_report

HOSTILE = (
    "</div></article><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}{% raw %}"
    '"onmouseover="alert(3) \u202egnp.exe\u202c \u200b\x1b[31m\x00\x07 \U000e0041 \ud800 ]]>'
)
VOID = {"meta", "br", "path", "use", "input"}
OF_SEVERAL = ("ppo/witness_score", "ppo/reward_disagreement")
"""What a run with one reward model has no figure of."""


class Page(HTMLParser):
    """The tags, attributes and text of a page; every tag must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.wide_tables = 0
        self._classes: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)
            self._classes.append(dict(attrs).get("class") or "")
            scrolls = any("scroll" in classes.split() for classes in self._classes)
            self.wide_tables += tag == "table" and not scrolls

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()
            self._classes.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag
            self._classes.pop()

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self._open[-1:] != ["style"]:
            self.text += data


def page_of(directory: Path) -> Page:
    return Page(write_report(directory).read_text(encoding="utf-8"))


def sections(page: Page) -> str:
    return " ".join(page.text.split())


def rewrite_samples(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "evaluation" / "samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_finished_run_shows_everything(run_directory: Path) -> None:
    page = page_of(run_directory)
    text = sections(page)
    for expected in (
        "PPO's responses are preferred: they win 93 % of the comparisons",
        "Reward hacking: none seen",
        "data_fingerprints.prompts.jsonl",
        "proxy-without-gold",
        "On 240 held-out judgments",
        "simulated labelers",
        "All settings (",
        "ppo.kl_coefficient",
        "transformers",
        "11 min 32 s",
        "cut at the length limit",
        "instruction",
        *(title for metric, title, _ in PANELS if metric not in OF_SEVERAL),
    ):
        assert expected in text
    assert text.count("Tell a colleague about") == 40 and "28 further prompts" in text
    assert "not run yet" not in text and "No " not in text.replace("No verdict", "")


def test_a_wide_table_scrolls_in_its_place_and_not_the_page(run_directory: Path) -> None:
    assert page_of(run_directory).wide_tables == 0


def test_what_scrolls_can_be_reached_by_keyboard(run_directory: Path) -> None:
    html = write_report(run_directory).read_text(encoding="utf-8")
    assert len(re.findall(r'class="(?:card )?(?:scroll|wide)"', html)) > 5
    assert not re.findall(r'class="(?:card )?(?:scroll|wide)"(?! tabindex="0")[^>]*>', html)


def test_the_page_fetches_nothing_and_runs_one_script_of_ours(run_directory: Path) -> None:
    html = write_report(run_directory).read_text(encoding="utf-8")
    page = Page(html)
    assert page.tags.isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form", "image"})
    assert not re.search(r"https?:|//www|@import|url\((?!#)|javascript:", html)
    for _, name, value in page.attributes:
        assert not name.startswith("on") and name != "src"
        assert name != "href" or value.startswith("#")
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and name == "content")
    (script,) = page.scripts
    assert script == (TEMPLATES / "report.js").read_text(encoding="utf-8")
    known = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{known}'"
    )
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|setAttribute\(.on", script
    )


def test_contents_lead_to_every_section(run_directory: Path) -> None:
    page = page_of(run_directory)
    linked = {value[1:] for tag, name, value in page.attributes if tag == "a" and name == "href"}
    assert {"verdict", "policies", "alarms", "reward", "labels", "sft", "samples", "making"} <= linked <= set(page.ids)
    assert len(re.findall("<h2", (run_directory / "report.html").read_text())) == len(linked) - 1  # all but the verdict


def test_every_value_of_a_figure_is_in_it_without_script(run_directory: Path) -> None:
    html = write_report(run_directory).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (run_directory / "ppo" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert f"PPO {reading(row['ppo/gold_score'])}</text>" in html
        assert f"PPO {percent_reading(row['ppo/eos_rate'])}</text>" in html


def test_one_iteration_is_said_and_not_drawn(run_directory: Path) -> None:
    for metrics in (*run_directory.glob("*/metrics.jsonl"), *run_directory.glob("arms/*/metrics.jsonl")):
        metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    page = page_of(run_directory)
    assert "One iteration so far: Proxy score" in sections(page)
    drawn = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert not any("over iterations" in label or "over optimizer steps" in label for label in drawn)


def test_ids_are_unique_and_references_lead_somewhere(run_directory: Path) -> None:
    page = page_of(run_directory)
    assert len(page.ids) == len(set(page.ids))
    wanted = {value[1:] for _, name, value in page.attributes if name == "href"}
    wanted |= {match for _, _, value in page.attributes for match in re.findall(r"url\(#([^)]*)\)", value)}
    assert wanted and wanted <= set(page.ids)


def test_hostile_text_is_inert_everywhere(run_directory: Path) -> None:
    rewrite_samples(
        run_directory, lambda row: row.update(response=HOSTILE, prompt=HOSTILE, prompt_id=row["prompt_id"] + HOSTILE)
    )
    config = (run_directory / "config.yaml").read_text()
    (run_directory / "config.yaml").write_text(config.replace("embedded:smollm2", "'<script>alert(4)</script>'"))
    (run_directory / "sft" / "mixture.json").write_text(
        json.dumps({"kinds": {HOSTILE: {"records": 1, "seen": 1, "share": 1.0, "weight": 1.0}}})
    )
    variant = run_directory / "arms" / "no-penalty"
    variant.rename(variant.with_name("<b onclick=1>$x$\u202e"))
    page = page_of(run_directory)
    assert "img" not in page.tags and len(page.scripts) == 1
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "<script>alert(1)</script>" in page.text and "<script>alert(4)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "⟦U+202E⟧gnp.exe" in page.text and "⟦U+001B⟧[31m⟦U+0000⟧⟦U+0007⟧" in page.text and "⟦U+D800⟧" in page.text
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0041]", page.text
    )


def test_the_same_run_gives_the_same_bytes_whatever_the_persons_own_style(run_directory: Path) -> None:
    first = write_report(run_directory).read_bytes()
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path"}):
        assert write_report(run_directory).read_bytes() == first
        assert matplotlib.rcParams["lines.linewidth"] == 9


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("ppo", "PPO has not run yet."),
        ("reward", "The reward model has not been trained yet."),
        ("sft", "Supervised fine-tuning has not run yet."),
        ("labelling.json", "No rankings yet."),
        ("evaluation", "Not evaluated yet"),
        ("timings.json", "No timings were recorded."),
        ("config.yaml", "No config.yaml in this run directory."),
    ],
)
def test_what_is_missing_is_said(run_directory: Path, missing: str, says: str) -> None:
    shutil.rmtree(run_directory / "arms")
    target = run_directory / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert says in sections(page_of(run_directory))


def test_an_empty_run_directory_has_a_page(tmp_path: Path) -> None:
    text = sections(page_of(tmp_path))
    assert "No verdict yet" in text
    assert "Not run yet: supervised fine-tuning, the reward model, PPO." in text


def test_without_gold_there_is_no_win_rate_and_the_page_says_why(run_directory: Path) -> None:
    shutil.rmtree(run_directory / "arms")
    rewrite_samples(run_directory, lambda row: row.update(gold=None))
    metrics = run_directory / "ppo" / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    metrics.write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "ppo/gold_score"}) + "\n" for row in rows)
    )
    text = sections(page_of(run_directory))
    assert "The reward model's score rose; whether people agree is unknown" in text
    assert (
        "whether people prefer it is unknown: the reward model's score rose by" in text
        and "No gold score is known for this data" in text
    )
    assert "Reward hacking: cannot be determined" in text and "preferred: they win" not in text


def test_first_iteration_of_a_run_has_a_page(run_directory: Path) -> None:
    shutil.rmtree(run_directory / "arms")
    for metrics in run_directory.glob("*/metrics.jsonl"):
        metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    text = sections(page_of(run_directory))
    assert re.search("1 iteration(?!s)", text) and re.search("1 step(?!s)", text)
    assert "One iteration so far; a curve begins with the second." in text and "√KL" not in text
    assert "11 min 32 s" in text and "whole run" in text
    shutil.rmtree(run_directory / "evaluation")
    text = sections(page_of(run_directory))
    assert "Reward hacking: none seen so far" in text and "so far; 2.4 GB at most" in text
    assert "whole run" not in text


def test_damaged_files_are_named_and_leave_the_old_page(run_directory: Path) -> None:
    before = write_report(run_directory).read_bytes()
    for name, content, says in (
        ("timings.json", "{", "timings.json: damaged"),
        ("timings.json", "[]", "timings.json: damaged .Input should be a valid dictionary"),
        ("config.yaml", "a: [", "config.yaml: damaged"),
        ("evaluation/samples.jsonl", '{"prompt_id": "a"}\n', "line 1: no prompt"),
    ):
        kept = (run_directory / name).read_text()
        (run_directory / name).write_text(content)
        with pytest.raises(RunError, match=says):
            write_report(run_directory)
        (run_directory / name).write_text(kept)
    assert (run_directory / "report.html").read_bytes() == before
    with pytest.raises(RunError, match="no such run directory"):
        write_report(run_directory / "nowhere")


def test_the_report_needs_no_torch(run_directory: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from triphase.reports.page import write_report\n"
        f"from triphase.reports.summary import write_summary; write_report(Path({str(run_directory)!r}))\n"
        f"write_summary(Path({str(run_directory)!r})); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=500)


def test_a_reward_model_at_chance_is_said_first_and_in_red(run_directory: Path) -> None:
    path = run_directory / "reward" / "heldout.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert "Warning" not in write_report(run_directory).read_text(encoding="utf-8")
    for number, row in enumerate(rows):
        row.update(score_first=float(number % 2), score_second=0.5, words_first=3, words_second=3)
        row["target"] = float(number // 2 % 2)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    html = write_report(run_directory).read_text(encoding="utf-8")
    warning, verdict = html.index("verdict bad warning"), html.index('aria-label="Verdict"')
    assert warning < verdict and "The reward model is no better than chance" in html[warning:verdict]
    assert "PPO has followed this reward model" in html[warning:verdict]
    for number, row in enumerate(rows):
        row.update(target=1.0, score_first=float(number % 4 > 0), words_first=9 if number % 4 else 3, words_second=6)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "no better than preferring the longer response" in write_report(run_directory).read_text(encoding="utf-8")


def test_an_alarm_shows_how_it_looks(run_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(run: RunContents) -> Findings:
        sample = {"prompt": HOSTILE, "response": f"how it looks {HOSTILE}", "score": 1.25}
        empty = {"prompt": "?", "response": "", "score": None}
        alarm = Alarm("repetition", 3, True, {}, "It repeats.", "Look.", (sample, empty))
        return replace(find(run), alarms={"ppo": [alarm, Alarm("plain", 4, True, {}, "It is plain.", "None.")]})

    monkeypatch.setattr("triphase.reports.page.find", found)
    page = page_of(run_directory)
    text = sections(page)
    assert "How it looks: 2 samples" in text and text.count("how it looks") == 1 and "score 1.25" in text
    assert text.count("How it looks") == 1  # an alarm without samples has none to show
    assert "img" not in page.tags and len(page.scripts) == 1
    assert not any(name.startswith("on") for _, name, _ in page.attributes)


def test_each_labeler_stands_with_what_the_others_say_of_them(run_directory: Path) -> None:
    path = run_directory / "labelling.json"
    labels = json.loads(path.read_text())
    labels["by_labeler"][0]["labeler"] = HOSTILE
    path.write_text(json.dumps(labels))
    html = write_report(run_directory).read_text(encoding="utf-8")
    page, table = Page(html), html[html.index("Each labeler") :].partition("</table>")[0]
    assert "of the 2 with the most rankings" in table and "img" not in page.tags
    first, second = table.split("<tr>")[2:]
    assert "78\xa0% (70\xa0% to 84\xa0%)" in first and ' bad"' not in first and ">21<" in first
    assert "52\xa0% (44\xa0% to 60\xa0%)" in second and ' bad"' in second and "31\xa0%" in second and ">–<" in second
    del labels["by_labeler"]  # as older versions left it
    path.write_text(json.dumps(labels))
    assert "Each labeler" not in write_report(run_directory).read_text(encoding="utf-8")


def test_the_seconds_of_ppo_are_divided(run_directory: Path) -> None:
    assert "of PPO: generation2 min 22 s" in sections(page_of(run_directory))


def test_units_of_comparisons_are_told(run_directory: Path) -> None:
    text = sections(page_of(run_directory))
    assert "240 held-out judgments (one labeler on one pair of responses each)" in text
    assert "1087; a pair that several labelers judged counts once" in text and "1087 pairs compared" in text
