"""Which names of models mean one model."""

from pathlib import Path

import pytest

from triphase.models.chain import is_same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("org/model", "org/model", True),
        ("org/Model", "ORG/model", True),
        ("org/model", "others/model", False),
        ("org/model", "org/another", False),
        ("gpt2", "openai-community/gpt2", True),  # a hub id of before there were owners
        ("/elsewhere/model", "org/model", True),
        ("/elsewhere/model", "/here/model", False),
        ("HERE", "org/model", True),
        ("HERE", "/elsewhere/model", False),
        ("HERE", "THERE", False),
        ("HERE", "HERE/../model", True),
    ],
)
def test_names(one: str, other: str, same: bool, tmp_path: Path) -> None:
    here, there = tmp_path / "a" / "model", tmp_path / "b" / "model"
    here.mkdir(parents=True)
    there.mkdir(parents=True)
    names = [name.replace("THERE", str(there)).replace("HERE", str(here)) for name in (one, other)]
    assert is_same(*names) is same and is_same(*reversed(names)) is same
