"""Old names of settings keep working, with a note of their new names."""

from pathlib import Path

import pytest
from tests.settings_text import settings_from_text

from triphase.errors import SettingsError
from triphase.settings.loading import load_settings
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import RunSettings

BASE = "name: a\nmodel: {name: m}\ndata: {}\n"


@pytest.mark.parametrize(("old", "new"), [("true", "batch"), ("false", "raw")])
def test_standardise_scores_is_told_as_score_normalization(
    old: str, new: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_from_text(
        f"{BASE}ppo: {{standardise-scores: {old}}}\nvariants: {{b: {{kl_coefficient: 0.1}}}}\n"
    )
    assert settings.ppo.score_normalization == settings.ppo_of("b").score_normalization == new
    assert [record.getMessage() for record in caplog.records] == [
        "ppo.standardise_scores is now ppo.score_normalization: true means `batch` (each rollout's scores to standard "
        "deviation 1, so that the effective KL coefficient follows their spread), false means `raw` (scores as they "
        "are); the default is now `calibrated`"
    ]


def test_a_variant_and_the_command_line_may_use_it_too() -> None:
    text = f"{BASE}ppo: {{score_normalization: running}}\nvariants: {{b: {{standardise_scores: false}}}}\n"
    settings = settings_from_text(text)
    assert (settings.ppo.score_normalization, settings.ppo_of("b").score_normalization) == ("running", "raw")
    assert settings_from_text(text, {"ppo.standardise-scores": "true"}).ppo.score_normalization == "batch"
    assert settings_from_text(BASE, {"ppo.standardise_scores": "true"}).ppo.score_normalization == "batch"


@pytest.mark.parametrize("value", [True, False])
def test_advantages_are_standardized_by_the_old_spelling_too(value: bool, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_from_text(f"{BASE}ppo: {{standardise_advantages: {str(value).lower()}}}\n")
    assert settings.ppo.standardize_advantages is value
    assert [record.getMessage() for record in caplog.records] == [
        "ppo.standardise_advantages is now ppo.standardize_advantages: only the spelling changed"
    ]


def test_a_run_directory_of_before_opens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.yaml").write_text(
        "settings:\n  name: a\n  model: {name: m}\n  data: {}\n  ppo: {standardise_scores: true}\n"
    )
    assert load_settings(tmp_path).ppo.score_normalization == "batch"
    assert caplog.records == []
    assert PPOSettings.model_validate({"standardise_scores": False}).score_normalization == "raw"


@pytest.mark.parametrize(
    ("ppo", "message"),
    [
        (
            "{standardise_scores: true, score_normalization: raw}",
            "settings:4: ppo.standardise_scores: standardise_scores is the old name of score_normalization; give",
        ),
        ("{standardise_scores: 3}", "settings:4: ppo.standardise_scores: .* must be true or false"),
        ("{score_normalization: whitened}", "settings:4: ppo.score_normalization: whitened is not allowed"),
        ("{score_normalization: batch, batch_size: 1, minibatch_size: 1}", "batch_size 1; raise batch_size"),
    ],
)
def test_what_means_nothing_is_refused(ppo: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_from_text(f"{BASE}ppo: {ppo}\n")


def test_the_section_labelling_is_told_as_labeling(caplog: pytest.LogCaptureFixture) -> None:
    note = "the settings section labelling is now labeling; the old name works for one more release"
    assert settings_from_text(f"{BASE}labelling: {{source: none}}\n").labeling.source == "none"
    assert [record.getMessage() for record in caplog.records] == [note]
    caplog.clear()
    assert settings_from_text(BASE, {"labelling.source": "none"}).labeling.source == "none"
    text = f"{BASE}labeling: {{source: people, overlap: 3}}\n"
    laid_over = settings_from_text(text, {"labelling.source": "none"}).labeling
    assert (laid_over.source, laid_over.overlap) == ("none", 3)
    assert {record.getMessage() for record in caplog.records} == {note}


def test_errors_in_the_section_labelling_name_the_line_and_the_new_name() -> None:
    for section, message in (
        ("labelling: {source: nobody}\nlabeling: {}", "settings:5: labeling is given twice .first on line 4"),
        ("labelling:\n  sauce: none", r"settings:5: labeling\.sauce: unknown setting"),
        ("labelling:\n  source: nobody", r"settings:5: labeling\.source: "),
    ):
        with pytest.raises(SettingsError, match=message):
            settings_from_text(f"{BASE}{section}\n")
    with pytest.raises(SettingsError, match=r"^--labelling\.source: "):
        settings_from_text(BASE, {"labelling.source": "nobody"})


def test_a_run_directory_with_the_section_labelling_opens_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.yaml").write_text(
        "settings:\n  name: a\n  model: {name: m}\n  data: {}\n  labelling: {source: none}\n"
    )
    settings = load_settings(tmp_path)
    assert settings.labeling.source == "none" and caplog.records == []
    before = settings.model_dump(mode="json")
    before["labelling"] = before.pop("labeling")
    assert RunSettings.model_validate(before) == settings
    with pytest.raises(ValueError, match="labelling is the old name of labeling; give labeling alone"):
        RunSettings.model_validate({**before, "labeling": {}})


def test_the_limit_of_scores_is_told_as_their_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = f"{BASE}ppo: {{score-limit: 3.0}}\nvariants: {{b: {{score_limit: null}}}}\n"
    settings = settings_from_text(text)
    assert (settings.ppo.score_clip, settings.ppo_of("b").score_clip) == (3.0, None)
    assert [record.getMessage() for record in caplog.records] == [
        "ppo.score_limit is now ppo.score_clip: only the name changed",
        "variants.b.score_limit is now variants.b.score_clip: only the name changed",
    ]
    assert settings_from_text(BASE, {"ppo.score-limit": "2"}).ppo.score_clip == 2.0
    for given, message in (
        (
            {"ppo.score-limit": "2", "ppo.score-clip": "3"},
            r"^--ppo\.score-limit: score_limit is the old name of score_clip, given as --ppo\.score-clip; give",
        ),
        (
            {"arms.b.score-limit": "2", "variants.b.score-clip": "3"},
            r"^--arms\.b\.score-limit: .* --variants\.b\.score-clip",
        ),
        (
            {"arms.b.epochs": "2", "variants.b.epochs": "3"},
            r"^--variants\.b\.epochs: is given twice, also as --arms\.b\.epochs",
        ),
        ({"ppo.score-limit": "-1"}, r"^--ppo\.score-limit: -1 is not allowed"),
    ):
        with pytest.raises(SettingsError, match=message):
            settings_from_text(text, given)
    # A run directory of before is compared with the settings that it was started with.
    before = settings.model_dump(mode="json")
    before["arms"] = {"b": {"score_limit": before.pop("variants")["b"]["score_clip"]}}
    before["ppo"]["score_limit"] = before["ppo"].pop("score_clip")
    assert RunSettings.model_validate(before) == settings
    with pytest.raises(SettingsError, match=r"settings:4: ppo\.score_limit: score_limit is the old name of score_clip"):
        settings_from_text(f"{BASE}ppo: {{score_limit: 3, score_clip: 3}}\n")


def test_the_section_arms_is_told_as_variants(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    note = "the settings section arms is now variants; the old name works for one more release"
    text = f"{BASE}arms: {{no-kl: {{kl-coefficient: 0.0}}}}\n"
    assert settings_from_text(text).variants == {"no-kl": {"kl_coefficient": 0.0}}
    assert [record.getMessage() for record in caplog.records] == [note]
    caplog.clear()
    more = {"arms.no-kl.epochs": "2", "arms.far-off.kl-coefficient": "1.0"}
    assert settings_from_text(text.replace("arms", "variants"), more).variants == {
        "no-kl": {"kl_coefficient": 0.0, "epochs": 2},
        "far-off": {"kl_coefficient": 1.0},
    }
    assert {record.getMessage() for record in caplog.records} == {note}
    for given, message in (
        (
            "arms:\n  b: {epochz: 2}",
            r"settings:5: variants\.b\.epochz: unknown setting; did you mean variants\.b\.epochs",
        ),
        ("arms: {B: {}}", r"settings:4: variants\.B: not a name for a variant"),
        ("arms: {}\nvariants: {}", "settings:5: variants is given twice .first on line 4"),
    ):
        with pytest.raises(SettingsError, match=message):
            settings_from_text(f"{BASE}{given}\n")
    caplog.clear()
    (tmp_path / "config.yaml").write_text(
        "settings:\n  name: a\n  model: {name: m}\n  data: {}\n  arms: {no-kl: {kl_coefficient: 0.0}}\n"
    )
    assert load_settings(tmp_path).variants == {"no-kl": {"kl_coefficient": 0.0}} and caplog.records == []
