"""Near-duplicates: the definition, which record is kept, and that `check`, `plan` and `run` agree."""

import json
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from triphase.cli.main import main
from triphase.datacheck import run_data
from triphase.datacheck.examiner import Examiner
from triphase.datacheck.near_duplicates import MinHashTexts, Shingles, find_near_duplicates
from triphase.datacheck.run_data import RunData
from triphase.datacheck.tokenizer_checks import open_template
from triphase.errors import DataError
from triphase.settings.schema import RunSettings

ASK = "Please name ten trees that grow in the north and tell me which of them lose leaves in winter"
NEAR = f"{ASK} please"  # 17 of 18 runs of three words
FAR = "Please name ten cars that drive in the south and tell me which of them lose wheels in summer"


class ExactTexts:
    """The slow reference: every text is compared with every other."""

    def __init__(self, threshold: float) -> None:
        self.threshold, self.texts = threshold, dict[int, Shingles]()

    def nearest(self, shingles: Shingles) -> tuple[int, float] | None:
        found = [(len(shingles & each) / len(shingles | each), -number) for number, each in self.texts.items()]
        similarity, number = max(found, default=(0.0, 0))
        return (-number, similarity) if similarity >= self.threshold else None

    def add(self, number: int, shingles: Shingles) -> None:
        self.texts[number] = shingles


def settings(folder: Path, how: str, **data: Sequence[Any]) -> RunSettings:
    """Each role with one file of its name."""
    for role, rows in data.items():
        (folder / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {role: [{"path": str(folder / f"{role}.jsonl")}] for role in data}
    small = {"max_response_tokens": 4}
    return RunSettings.model_validate({
        "name": "x", "model": {"name": "embedded:tiny", "max_length": 64}, "data": {**sources, "near_duplicates": how},
        "sampling": small, "ppo": small, "labeling": {"source": "none"},
    })  # fmt: skip


def found_in(folder: Path, **data: Sequence[Any]) -> dict[str, set[int]]:
    found = find_near_duplicates(settings(folder, "drop", **data), texts=ExactTexts)
    assert found is not None
    return {role: found.dropped(role, 0) for role in data}


def shown(prompt: str, answer: str, split: str = "train") -> dict[str, str]:
    return {"prompt": prompt, "completion": answer, "split": split}


def test_nothing_is_looked_for_unless_asked(tmp_path: Path) -> None:
    assert find_near_duplicates(settings(tmp_path, "keep", demonstrations=[shown(ASK, "elm")] * 2)) is None


def test_the_first_of_near_demonstrations_stays(tmp_path: Path) -> None:
    rows = [
        shown(ASK, "elm fir oak"),
        shown(FAR, "elm fir oak"),
        shown(NEAR, "elm fir oak"),
        shown(ASK, "elm fir oak"),
        shown(ASK, " ".join("another answer entirely of so many words that they outweigh what is asked".split() * 2)),
    ]
    assert found_in(tmp_path, demonstrations=rows) == {"demonstrations": {2, 3}}
    assert found_in(tmp_path, demonstrations=[*rows, shown(FAR, "elm fir ash")])["demonstrations"] >= {2, 3}
    assert found_in(tmp_path, demonstrations=rows[2:])["demonstrations"] == {1}  # the order decides, not the text


def test_answers_and_votes_on_one_prompt_are_no_repetitions(tmp_path: Path) -> None:
    def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "split": "train"}

    rows = [pair(ASK, "elm", "oak"), pair(ASK, "oak", "elm"), pair(ASK, "elm", "oak"), pair(NEAR, "elm", "oak"),
            pair(FAR, "elm", "oak"), pair(NEAR, "oak", "elm")]  # fmt: skip
    assert found_in(tmp_path, preferences=rows) == {"preferences": {3, 5}}


def test_training_records_near_a_held_out_prompt_are_found_in_all_roles(tmp_path: Path) -> None:
    held = [{"prompt": ASK, "split": "heldout"}, {"prompt": FAR, "split": "train"}]
    found = found_in(
        tmp_path,
        prompts=held,
        demonstrations=[
            shown(NEAR, "elm"),
            shown(FAR, "elm"),
            shown(ASK, "elm"),
            shown(f"{ASK} now", "oak", "heldout"),
        ],
        preferences=[{"prompt": NEAR, "chosen": "elm", "rejected": "oak", "split": "train"}],
    )
    # An equal prompt is told by `check` apart; what is held out stays, however near.
    assert found == {"prompts": set(), "demonstrations": {0}, "preferences": {0}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Name a tree!", "name A tree", True),  # neither case nor punctuation
        ("Name a tree", "Name a bush", False),
        ("oak", "oak", True),
        ("?", "!", False),
        ("请列举十种生长在北方的树木并说明哪些会落叶", "请列举十种生长在北方的树木并说明哪些会落叶吗", True),
        ("请列举十种生长在北方的树木并说明哪些会落叶", "请描述三种行驶在南方的汽车并说明哪些会漏油", False),
    ],
)
def test_texts_are_compared_by_their_words(tmp_path: Path, one: str, other: str, same: bool) -> None:
    rows = [{"prompt": one, "split": "train"}, {"prompt": other, "split": "train"}]
    assert found_in(tmp_path, prompts=rows) == {"prompts": {1} if same and one != other else set()}


def test_without_the_package_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    (tmp_path / "my.yaml").write_text(
        "name: x\nmodel: {name: 'embedded:tiny', max_length: 64}\n"
        "data: {demonstrations: [{path: d.jsonl}], near_duplicates: report}\n"
    )
    (tmp_path / "d.jsonl").write_text(json.dumps(shown("sun road", "mud")) + "\n")
    assert main(["check", str(tmp_path / "my.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: data.near_duplicates: needs datasketch; run: pip install")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("too_long", "texts", "kept"),
    [
        ("drop", ["oak 0 70", "oak 0 60", "elm 0 60"], ["oak 0 60", "elm 0 60"]),  # the first is not there to repeat
        ("drop", ["oak 0 60", "oak 0 70", "oak 0 59"], ["oak 0 60"]),
        ("truncate-prompt", ["oak 0 200 elm 0 40", "oak 0 200 fir 0 40"], ["elm 0 40", "fir 0 40"]),
        ("truncate-prompt", ["elm 0 90 oak 0 60", "fir 0 90 ash 0 1 oak 1 60"], ["oak 0 60"]),
    ],
)
def test_records_are_compared_as_a_run_uses_them(
    tmp_path: Path, too_long: str, texts: list[str], kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def words(text: str) -> str:
        parts = text.split()
        return " ".join(
            f"{name}{number}"
            for name, first, last in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
            for number in range(int(first), int(last))
        )

    monkeypatch.setattr(run_data, "find_near_duplicates", partial(find_near_duplicates, texts=ExactTexts))
    chosen = settings(tmp_path, "drop", demonstrations=[shown(words(text), "elm") for text in texts])
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"too_long": too_long})})
    data = RunData(chosen, lambda: Examiner(open_template(chosen.model), chosen), note=lambda line: None)
    found = [one.prompt.text for one in data.demonstrations()[0]]
    assert len(found) == len(kept) and all(map(str.endswith, found, map(words, kept)))


# By the library


@pytest.mark.dedup
def test_minhash_finds_what_comparing_all_finds() -> None:
    draw = random.Random(0)
    exact, estimated = ExactTexts(0.7), MinHashTexts(0.7)
    words = [f"w{number}" for number in range(400)]
    for number in range(60):
        text = frozenset(draw.sample(words, 40))
        exact.add(number, text)
        estimated.add(number, text)
    clear = 0
    for number in range(60):
        changed = draw.randrange(0, 20)
        text = frozenset([*sorted(exact.texts[number])[changed:], *(f"n{each}" for each in range(changed))])
        similarity = len(text & exact.texts[number]) / len(text | exact.texts[number])
        if abs(similarity - 0.7) < 0.12:  # three standard errors of 128 permutations
            continue
        clear += 1
        mine, theirs = exact.nearest(text), estimated.nearest(text)
        assert (mine is None) == (theirs is None), similarity
        assert mine is None or (theirs is not None and mine[0] == theirs[0] and abs(mine[1] - theirs[1]) < 0.13)
    assert clear > 30


@pytest.mark.dedup
def test_check_plan_and_run_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [shown(ASK, "elm"), shown(NEAR, "elm"), shown(FAR, "oak"), shown("sun road", "mud", "heldout")]
    said: list[str] = []
    kept = {
        how: RunData(settings(tmp_path, how, demonstrations=rows), note=said.append).demonstrations()[0]
        for how in ("keep", "report", "drop")
    }
    assert [len(each) for each in kept.values()] == [4, 4, 3] and kept["keep"] == kept["report"]
    told = "1 demonstrations nearly repeat earlier ones ("
    assert [told in line for line in said] == [True, True]
    assert "stay (data.near_duplicates: report)" in said[0]
    assert "left out (data.near_duplicates: drop)" in said[1] and "demonstrations.jsonl:2, of " in said[1]
    chosen = settings(tmp_path, "drop", demonstrations=rows[:3])
    (one,) = chosen.data.demonstrations
    twice = chosen.data.model_copy(update={"demonstrations": (one, one.model_copy())})
    with pytest.raises(DataError, match="every record nearly repeats others"):
        RunData(chosen.model_copy(update={"data": twice}), note=said.append).demonstrations()
    settings(tmp_path, "drop", demonstrations=rows)
    capsys.readouterr()
    config = tmp_path / "my.yaml"
    config.write_text(
        "name: x\nmodel: {name: 'embedded:tiny', max_length: 64}\nppo: {max_response_tokens: 8}\n"
        "data: {demonstrations: [{path: demonstrations.jsonl}], near_duplicates: drop}\n"
    )
    for verb in ("check", "plan"):
        assert main([verb, str(config)]) == 0
        assert told in " ".join((capsys.readouterr().out + caplog.text).split()), verb
