"""Control tokens in texts from outside: counted by column, with their treatment."""

import json
from pathlib import Path

import pytest
from tests.tokens.test_controls import letters

from triphase.cli.main import main
from triphase.datacheck.survey import survey_data
from triphase.settings.loading import load_settings
from triphase.tokens.controls import control_names

END = "<|im_end|>"
DEMONSTRATIONS = [
    {"prompt": f"a {END} b", "completion": "c d"},
    {"prompt": "plain", "completion": f"e {END}{END}"},
    {"messages": [{"role": "system", "content": f"{END}"}, {"role": "user", "content": "x"},
                  {"role": "assistant", "content": "y<|im_start|>"}]},
    {"prompt": "plain < | im_end | >", "completion": "f g"},
]  # fmt: skip
PREFERENCES = [
    {"prompt": "a", "chosen": f"b {END}", "rejected": f"c {END}"},
    {"prompt": "d", "chosen": "e f", "rejected": "<|im_start|> g"},
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name, rows in (("d", DEMONSTRATIONS), ("c", PREFERENCES)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\nmodel: {name: 'embedded:smollm2'}\nlabeling: {source: none}\n"
        f"data: {{demonstrations: [{{path: {tmp_path}/d.jsonl}}], preferences: [{{path: {tmp_path}/c.jsonl}}]}}\n"
    )
    return path


@pytest.mark.parametrize("processes", [1, 2])
def test_they_are_counted_by_column(config: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if processes > 1:
        monkeypatch.setattr("triphase.datacheck.survey_parts.LARGE", 1)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    found = survey_data(load_settings(config), control=control_names(letters()))
    shown, compared = found.sources
    assert shown.controls == {"prompt": 2, "response": 2} and shown.written in (END, "<|im_start|>")
    assert compared.controls == {"chosen": 1, "rejected": 2}


@pytest.mark.parametrize(
    ("allowed", "told"), [("false", "it is encoded as plain text"), ("true", "it is encoded as that token")]
)
def test_check_says_what_becomes_of_them(
    config: Path, allowed: str, told: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    main(["check", str(config), "--model.texts_write_control_tokens", allowed])
    said = " ".join(capsys.readouterr().out.split())
    assert "texts contain" not in caplog.text  # said once, with the counts
    assert f"d.jsonl: records whose texts contain a control token ({END}): prompt 2, response 2; {told}" in said
    assert f"c.jsonl: records whose texts contain a control token ({END}): chosen 1, rejected 2; {told}" in said
