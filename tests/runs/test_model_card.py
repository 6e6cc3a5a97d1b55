"""The measurements on a model card: metrics on held-out prompts, and nothing else from the run's summary."""

import html
from pathlib import Path

import pytest
from tests.runs.small_run import settings

from triphase.errors import RunError
from triphase.records.visible import as_code, visible
from triphase.reports.summary_file import keep_summary
from triphase.runs.model_card import with_run
from triphase.settings.data import SourceSettings


def test_figures_of_the_run_itself_are_not_among_what_was_measured(tmp_path: Path) -> None:
    summary = {"seconds": 91.9, "peak_gb": 0.5, "ppo": {"gold_mean": 1.25}, "seed": 0}
    keep_summary(tmp_path / "summary.json", summary)
    card = with_run("# A policy\n", tmp_path, settings(tmp_path), "policy")
    _, measured = card.split("## Measured on held-out prompts")
    rows = [line for line in measured.split("## Limits")[0].splitlines() if line.startswith("| `")]
    assert rows == ["| `ppo.gold_mean` | 1.25 |"]
    assert "ppo.gold_mean" not in with_run("# An SFT policy\n", tmp_path, settings(tmp_path), "sft")
    (tmp_path / "summary.json").write_text((tmp_path / "summary.json").read_text().replace("1.25", "9.25"))
    with pytest.raises(RunError, match=r"summary\.json was changed after it was written"):
        with_run("# A policy\n", tmp_path, settings(tmp_path), "policy")


def test_a_card_says_what_a_policy_was_tuned_to(tmp_path: Path) -> None:
    made = settings(tmp_path)
    ranked = with_run("", tmp_path, made, "policy")
    assert "- scores: the reward model" in ranked and "what people (or simulated labelers) preferred" in ranked
    shown = with_run("", tmp_path, made, "sft")
    assert "imitate the demonstrations" in shown and "- prompts" not in shown and "rankings" not in shown
    hub = SourceSettings(path="who/what", config="easy", max_records=2000)
    alone = {"data": {"prompts": (hub.model_dump(),)}, "labeling": {"source": "none"}}
    scored = type(made).model_validate(
        {**made.model_dump(), **alone, "sft": {}, "variants": {}, "ppo": {"scorer": {"kind": "sentiment"}}}
    )
    card = with_run("", tmp_path, scored, "policy")
    assert "- prompts: `who/what`, `easy`, `train`, at most 2,000 records" in card
    assert "- scores: a scorer of kind `sentiment`" in card and "the scores of its scorer" in card
    assert "rankings" not in card and "reward.epochs" not in card


HOSTILE = (
    "a`](javascript:alert(1))`b", "```\n<script>", "a|b", "\\", "\\|`", "`", " ``", "|", "\u202etxt.exe",
    "\r\n\n# Not ours", "![x](http://evil)", "<img src=x>", "", "$x$", "a``b```c",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_names_stay_code_in_a_card(text: str) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    inside = parser.render(f"- prompts: {as_code(text)} and more")
    assert inside.startswith("<ul>\n<li>prompts: <code>") and inside.endswith("</code> and more</li>\n</ul>\n")
    assert inside.count("<") == 6
    table = parser.render(f"| metric | value |\n|---|---|\n| {as_code(text, in_table=True)} | 1 |\n")
    assert table.count("<td>") == 2 and table.count("<code>") == 1 and table.rstrip().endswith("</table>")
    assert table.count("<") == 20
    shown = [html.unescape(one.split("<code>")[1].split("</code>")[0]).strip() for one in (inside, table)]
    assert shown == [" ".join(visible(text).split())] * 2


def test_a_card_names_files_as_code(tmp_path: Path) -> None:
    name = "x`](javascript:alert(1))`.jsonl"
    (tmp_path / name).write_text('{"prompt": "a"}\n')
    made = settings(tmp_path)
    made = made.model_copy(
        update={"data": made.data.model_copy(update={"prompts": (SourceSettings(path=str(tmp_path / name)),)})}
    )
    card = with_run("# A policy\n", tmp_path, made, "policy")
    assert f"- prompts: ``{name}``\n" in card
