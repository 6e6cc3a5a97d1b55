"""The license of a base: from its card, an adapter's base, or the hub; otherwise unknown."""

import json
import os
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from triphase.runs.base_license import License, license_of


def card(folder: Path, head: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\n{head}\n---\n# A model\nlicense: mit\n")
    return str(folder)


def test_the_head_of_the_card_says_it(tmp_path: Path) -> None:
    assert license_of(card(tmp_path / "a", "license: llama3.2")) == License("llama3.2")
    assert license_of(card(tmp_path / "b", "license: [mit, apache-2.0]")) == License("mit, apache-2.0")
    named = license_of(card(tmp_path / "c", "license: other\nlicense_name: qwen-research\nlicense_link: LICENSE"))
    assert str(named) == "other (qwen-research) LICENSE"
    assert named is not None and yaml.safe_load(named.front()) == {
        "license": "other", "license_name": "qwen-research", "license_link": "LICENSE"
    }  # fmt: skip


@pytest.mark.parametrize("head", ["tags: [x]", "license:", "a: [", "- license: mit"])
def test_a_head_without_it_is_unknown(tmp_path: Path, head: str) -> None:
    assert license_of(card(tmp_path, head)) is None


@pytest.mark.parametrize(
    "head",
    [
        'license: "mit\\n\\n# Not ours"',
        "license: '[mit](javascript:alert(1))'",
        "license: {a: b}",
        "license: [mit, [x]]",
        f"license: {'x' * 200}",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nlicense: *c",
        "license: " + "[" * 3000,
    ],
)
def test_what_is_no_name_of_a_license_is_unknown(tmp_path: Path, head: str) -> None:
    assert license_of(card(tmp_path, head)) is None


def test_of_the_rest_only_names_and_addresses_are_taken(tmp_path: Path) -> None:
    head = 'license: other\nlicense_name: "a](b)"\nlicense_link: "javascript:alert(1)\\n# x"'
    assert license_of(card(tmp_path, head)) == License("other")


def test_files_that_cannot_be_read_are_unknown(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "README.md")
    assert license_of(str(tmp_path)) is None
    for base in ("~nosuchuser/x", "n" * 300, "a\0b", "../x", 7, str(tmp_path / "other")):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        assert license_of(str(tmp_path)) is None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    assert license_of(str(tmp_path)) is None  # each names the other


def test_no_card_is_unknown(tmp_path: Path) -> None:
    assert license_of(str(tmp_path)) is None and license_of("embedded:other") is None
    assert license_of(str(tmp_path / "nowhere")) is None
    (tmp_path / "README.md").write_bytes(b"\xff---")
    assert license_of(str(tmp_path)) is None


def test_an_adapter_has_that_of_its_base(tmp_path: Path) -> None:
    base = card(tmp_path / "base", "license: gemma")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    assert license_of(str(adapter)) == License("gemma")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(adapter)}))
    assert license_of(str(adapter)) is None


def test_the_hub_is_asked_by_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert license_of("organization/name") is None  # offline, and not in the cache
    asked = []

    def download(name: str, file: str, **options: object) -> str:
        asked.append((name, file))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    card(tmp_path, "license: apache-2.0")
    assert license_of("organization/name") == License("apache-2.0")
    assert asked == [("organization/name", "README.md")]
