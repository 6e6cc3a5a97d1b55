"""Settings files and overrides: what is accepted, and one line for every mistake."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.resolved import resolved_yaml
from tests.settings_text import settings_from_text

from triphase import __version__
from triphase.errors import SettingsError
from triphase.settings.loading import load_settings
from triphase.settings.overrides import as_scalar
from triphase.settings.schema import RunSettings

BASE = """\
name: my
model:
  name: organization/model
data:
  demonstrations:
    - path: a.jsonl
      weight: 2
  prompts: [{path: org/prompts}]
ppo:
  kl-coefficient: 1e-2
  optimizer: {learning-rate: 1e-4}
variants:
  free: {kl-coefficient: 0, optimizer: {schedule: constant}}
"""


def refused(text: str, **overrides: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings_from_text(text, {name.replace("__", "."): value for name, value in overrides.items()}, "my.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def overridden(name: str, value: str) -> RunSettings:
    return settings_from_text(BASE, {name: value}, "my.yaml")


def override_refused(name: str, value: str) -> str:
    with pytest.raises(SettingsError) as caught:
        overridden(name, value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_spellings_of_a_key_and_numbers_as_people_write_them() -> None:
    settings = settings_from_text(BASE)
    assert settings.ppo.kl_coefficient == 0.01
    assert settings_from_text(BASE.replace("kl-coefficient: 1e-2", "kl_coefficient: 1e-2")) == settings


def test_a_key_inside_a_section_with_defaults_replaces_that_key_alone() -> None:
    plain = RunSettings.model_validate({"name": "x", "model": {"name": "m"}, "data": {}}).ppo.optimizer
    optimizer = settings_from_text(BASE).ppo.optimizer
    assert optimizer.learning_rate == 1e-4
    assert optimizer.head_learning_rate == plain.head_learning_rate == 1e-3


def test_variants_are_laid_over_the_main_run() -> None:
    variant = settings_from_text(BASE).ppo_of("free")
    assert (variant.kl_coefficient, variant.optimizer.schedule, variant.optimizer.learning_rate) == (
        0,
        "constant",
        1e-4,
    )


def test_overrides_win_and_are_read_as_yaml() -> None:
    assert overridden("ppo.kl-coefficient", "0.02").ppo.kl_coefficient == 0.02
    assert overridden("ppo.kl_coefficient", "2e-2").ppo.kl_coefficient == 0.02
    assert overridden("ppo.kl-target", "null").ppo.kl_target is None
    assert overridden("ppo.standardize-advantages", "false").ppo.standardize_advantages is False
    assert overridden("adapters.targets", "[q_proj, v_proj]").adapters.targets == ("q_proj", "v_proj")
    assert overridden("data.demonstrations.0.weight", "3").data.demonstrations[0].weight == 3
    assert overridden("variants.free.clip-range", "0.1").ppo_of("free").clip_range == 0.1
    assert overridden("labeling.source", "none").labeling.source == "none"
    assert overridden("checkpoints.keep", "1").checkpoints.keep == 1


def test_words_that_yaml_1_1_takes_for_booleans_stay_words() -> None:
    assert settings_from_text(BASE.replace("name: my", "name: on")).name == "on"
    assert settings_from_text(BASE.replace("name: my", "name: 2026-01-02")).name == "2026-01-02"


def test_the_resolved_settings_read_back_to_the_same(tmp_path: Path) -> None:
    settings = settings_from_text(BASE + "  no-kl: {kl-coefficient: 0.0}\n")
    assert settings_from_text(resolved_yaml(settings)) == settings
    run = tmp_path / "elsewhere" / "my"
    run.mkdir(parents=True)
    wrapped = {"settings": settings.model_dump(mode="json"), "versions": {"python": "3"}}
    (run / "config.yaml").write_text(yaml.safe_dump(wrapped))
    assert load_settings(run) == settings.model_copy(update={"output": str(run.parent)})


def test_a_run_of_another_version_that_cannot_be_read_names_that_version(tmp_path: Path) -> None:
    run = tmp_path / "my"
    run.mkdir()
    config = run / "config.yaml"
    settings = settings_from_text(BASE).model_dump(mode="json")
    versions = {"triphase": "9.8.7", "python": "3.14"}
    named = rf"triphase 9\.8\.7 started this run, and this is {__version__}$"
    for values in ({**settings, "later": 1}, {**settings, "seed": "x"}):
        config.write_text(yaml.safe_dump({"settings": values, "versions": versions}))
        with pytest.raises(SettingsError, match=named) as error:
            load_settings(run)
        assert str(error.value).startswith(f"{config}:")
    config.write_text(yaml.safe_dump({"settings": settings, "versions": versions}))
    assert load_settings(run).name == "my"
    with pytest.raises(SettingsError, match="kl_coeficient") as error:
        load_settings(run, {"ppo.kl_coeficient": "1"})
    assert "9.8.7" not in str(error.value)
    config.write_text(yaml.safe_dump({"settings": {**settings, "later": 1}, "versions": {"triphase": __version__}}))
    with pytest.raises(SettingsError, match="later: unknown setting") as error:
        load_settings(run)
    assert "started this run" not in str(error.value)


def test_paths_are_relative_to_the_file_and_hub_ids_stay(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    file = tmp_path / "my.yaml"
    file.write_text(BASE.replace("organization/model", "models/mine"))
    settings = load_settings(file)
    assert settings.data.demonstrations[0].path == str(tmp_path / "a.jsonl")
    assert settings.data.prompts[0].path == "org/prompts"
    assert settings.model.name == str(tmp_path / "models" / "mine")
    file.write_text(BASE.replace("organization/model", "embedded:tiny"))
    assert load_settings(file).model.name == "embedded:tiny"
    for path, found in (("at-10:30.jsonl", str(tmp_path / "at-10:30.jsonl")), ("hf://a/b.jsonl", "hf://a/b.jsonl")):
        assert (
            load_settings(file, {"data.demonstrations": f"[{{path: '{path}'}}]"}).data.demonstrations[0].path == found
        )
    file.write_text(BASE + "rollouts: {python: ../vllm/bin/python}\n")
    assert load_settings(file).rollouts.python == str(tmp_path.parent / "vllm/bin/python")
    file.write_text(BASE + "rollouts: {python: python3.11}\n")
    assert load_settings(file).rollouts.python == "python3.11"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + "pppo: 1", "my.yaml:14: pppo: unknown setting; did you mean ppo?"),
        (
            BASE.replace("kl-coefficient: 1e-2", "kl-coeficient: 1e-2"),
            "my.yaml:10: ppo.kl_coeficient: unknown setting; did you mean ppo.kl_coefficient?",
        ),
        (
            BASE.replace("weight", "wieght"),
            "my.yaml:7: data.demonstrations.0.wieght: unknown setting; did you mean data.demonstrations.0.weight?",
        ),
        (BASE + "kl_target: 1", "my.yaml:14: kl_target: unknown setting; did you mean ppo.kl_target?"),
        (BASE + "name: 1", "my.yaml:14: name is given twice (first on line 1)"),
        (
            BASE.replace("kl-coefficient: 1e-2", "kl-coefficient: 1\n  kl_coefficient: 2"),
            "my.yaml:11: kl_coefficient is given twice (first on line 10)",
        ),
        (
            BASE.replace("name: my", "name: 1"),
            "my.yaml:1: name: 1 is not allowed; it must be letters, digits, `.`, `_` and `-`, no spaces, "
            "beginning with a letter or digit",
        ),
        (
            BASE.replace("weight: 2", "weight: -2"),
            "my.yaml:7: data.demonstrations.0.weight: -2 is not allowed; it must be a number above 0",
        ),
        (
            BASE.replace("weight: 2", "weight: true"),
            "my.yaml:7: data.demonstrations.0.weight: true is not allowed; it must be a number above 0",
        ),
        (
            BASE.replace("kl-coefficient: 0,", "clip-range: -1,"),
            "my.yaml:13: variants.free.clip_range: -1 is not allowed; it must be a number above 0",
        ),
        (
            BASE.replace("kl-coefficient: 0,", "batch-size: 33,"),
            "my.yaml:13: variants.free: batch_size 33 is not a multiple of minibatch_size 16; "
            "choose a minibatch_size that divides it",
        ),
        (
            BASE.replace("kl-coefficient: 0,", "responses-per-prompt: 3,"),
            "my.yaml:13: variants.free: batch_size 32 is not a multiple of responses_per_prompt 3; "
            "choose a responses_per_prompt that divides it",
        ),
        (
            BASE.replace("kl-coefficient: 0,", "responses-per-prompt: 8, batch-size: 24, minibatch-size: 12,"),
            "my.yaml:13: variants.free: minibatch_size 12 is not a multiple of responses_per_prompt 8; "
            "choose a responses_per_prompt that divides it",
        ),
        (
            BASE.replace("kl-coefficient: 0,", "responses-per-prompt: 16,"),
            "my.yaml:13: variants.free.responses_per_prompt: 16 is not allowed; it must be a whole number from 1 to 9",
        ),
        ("", "my.yaml: is empty; a settings file needs at least name, model and data"),
        ("- a", "my.yaml:1: is not a mapping of settings; the file starts with lines like `name: my-run`"),
        ("a: &x 1\nb: *x", "my.yaml:2: not valid YAML: aliases (*name) are not supported"),
        ("a: !!python/object:os.x 1", "my.yaml:1: tags such as os.x are not supported"),
        ("name: x", "my.yaml: model: is missing; give a section of settings (and 1 more)"),
        ("[" * 3000, "my.yaml: nested too deeply for settings"),
        ("? [a]\n: 1", "my.yaml:1: a key must be plain text"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_its_place(text: str, message: str) -> None:
    assert refused(text) == message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ppo.kl-coeficient", "1", "--ppo.kl-coeficient: unknown setting; did you mean ppo.kl_coefficient?"),
        ("kl-coefficient", "1", "--kl-coefficient: unknown setting; did you mean ppo.kl_coefficient?"),
        ("ppp.x", "1", "--ppp.x: unknown setting; did you mean ppo?"),
        ("name.x", "1", "--name.x: unknown setting; there is nothing below the value my"),
        ("data.prompts.3.path", "x", "--data.prompts.3.path: there is no element 3; the list has 1, counted from 0"),
        (
            "data.preferences.0.path",
            "x",
            "--data.preferences.0.path: data.preferences has no elements; give all of them at once, for example "
            "--data.preferences '[{...}]'",
        ),
        ("ppo.epochs", "true", "--ppo.epochs: true is not allowed; it must be a whole number above 0"),
        ("ppo.kl-coefficient", "nan", "--ppo.kl-coefficient: nan is not allowed; it must be a number from 0 to 1e+15"),
        ("ppo.kl-coefficient", "inf", "--ppo.kl-coefficient: inf is not allowed; it must be a number from 0 to 1e+15"),
        (
            "ppo.kl-coefficient",
            "1e30",
            "--ppo.kl-coefficient: 1e+30 is not allowed; it must be a number from 0 to 1e+15",
        ),
        ("ppo.temperature", "1e-9", "--ppo.temperature: 1e-09 is not allowed; it must be a number at least 1e-06"),
        ("seed", "1.5", "--seed: 1.5 is not allowed; it must be a whole number"),
        (
            "sft.epochs",
            "0",
            "--sft.epochs: 0 epochs train nothing; set sft.method: none, which starts from the original model",
        ),
        ("sft.epochs", "-1", "--sft.epochs: -1 is not allowed; it must be a number above 0"),
        ("sft.method", "lorra", "--sft.method: lorra is not allowed; it must be `lora` | `full` | `none`"),
        (
            "adapters.layers",
            "[1]",
            "--adapters.layers: [1] is not allowed; it must be a whole number above 0, or `all`",
        ),
        ("ppo", "3", "--ppo: 3 is not allowed; it must be a section of settings"),
        (
            "data.prompts",
            "a.jsonl",
            "--data.prompts: a.jsonl is not allowed; it must be a list of sections: `[{path: …}]`",
        ),
        ("ppo.scorer.options", "3", "--ppo.scorer.options: 3 is not allowed; it must be a mapping"),
        ("model.name", "", "--model.name: null is not allowed; it must be text"),
        ("", "1", "--: not the name of a setting; use for example --ppo.kl-coefficient"),
        (
            "labeling.source",
            "simulated",
            "my.yaml: labeling.source is simulated, but evaluation.gold is not set; set it to a gold score",
        ),
    ],
)
def test_a_mistake_in_an_override_names_the_option(name: str, value: str, message: str) -> None:
    assert override_refused(name, value) == message


@pytest.mark.parametrize(
    ("dtype", "method", "noted"), [("bfloat16", "full", True), ("auto", "full", False), ("bfloat16", "lora", False)]
)
def test_fine_tuning_of_all_weights_in_bfloat16_is_noted(
    dtype: str, method: str, noted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings_from_text(
        f"name: x\nmodel: {{name: m, dtype: {dtype}}}\nsft: {{method: {method}}}\n"
        "data: {demonstrations: [{path: p.jsonl}]}\n"
    )
    assert ("rounds most of its small updates away" in caplog.text) is noted


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for make, message in (
        (lambda path: None, "cannot be read (No such file or directory)"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: (path.rmdir(), path.write_bytes(b"name: \xff")), "not UTF-8 text (byte 6)"),
    ):
        path = tmp_path / "my.yaml"
        make(path)
        with pytest.raises(SettingsError, match=r"my\.yaml") as caught:
            load_settings(path)
        assert message in str(caught.value)


@given(st.text())
def test_any_text_gives_settings_or_one_line(text: str) -> None:
    try:
        settings_from_text(text)
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1


@given(st.text(alphabet="abk.-_ 0123", max_size=12), st.text(max_size=12))
def test_any_override_gives_settings_or_one_line(name: str, value: str) -> None:
    try:
        overridden(name, value)
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Co"]), min_size=1))
def test_a_quoted_scalar_stands_for_its_text(text: str) -> None:
    assert overridden("output", as_scalar(text)).output == text
