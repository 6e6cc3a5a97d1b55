"""Models by their names in the settings, embedded ones included."""

from pathlib import Path

from triphase.demo.embedded import PREFIX, model_directory, public_name, require_embedded
from triphase.errors import TriphaseError
from triphase.models.chain import base_of, is_adapter, own_adapter
from triphase.models.files import check_files
from triphase.models.places import directory_of
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.settings.phase_names import PPO, SFT
from triphase.settings.schema import ModelSettings
from triphase.training.artifacts import has_left, runs_around
from triphase.training.artifacts import place_of as place_of_artifact


def place_of(name: str, adapter: Path | None = None) -> str:
    """A model's name for `load_model`: an embedded model's directory, any other name unchanged.

    The adapters of a run name, for other users, the public counterpart of the embedded model (`public_name`); here the
    embedded one is used. A run means its newest policy.

    Raises:
        SettingsError: there is no embedded model of that name.
    """
    if adapter is not None:
        for folder in runs_around(adapter):
            for own in _models_of_run(folder / RUN_CONFIG):
                # Adapters name a directory relative to where the run was made.
                if name == public_name(own)[0] or own.endswith(f"/{name}"):
                    name = own
    elif (Path(name) / RUN_CONFIG).is_file():
        left = [phase for phase in (PPO, SFT) if has_left(Path(name), phase)]
        name = str(place_of_artifact(Path(name), left[0])) if left else name
    return str(model_directory(name)) if name.startswith(PREFIX) else name


def _models_of_run(config: Path) -> list[str]:
    try:
        model = load_settings(config.parent).model if config.is_file() else None
    except TriphaseError:
        return []  # of another version, or not a run's: the adapter's own entry is used
    if model is None:
        return []
    whole = str(place_of_artifact(config.parent.resolve(), SFT))  # the base after full fine-tuning
    return [model.name, *([] if model.adapter is None else [model.adapter]), whole]


def adapter_note(model: ModelSettings) -> str:
    """What happens to `model.adapter`, in one line."""
    return f"model.adapter: {model.adapter} is merged into {model.name}; every role starts from the merged weights"


def place_without_torch(model: ModelSettings) -> None:
    """Refuse a directory without a model, or without an adapter.

    Raises:
        ModelError, SettingsError: the problem with it.
    """
    if model.adapter is not None and Path(model.adapter).expanduser().is_dir():
        own_adapter(model.adapter, model.name, place_of(model.name), place_of)
    name = model.name
    if name.startswith(PREFIX):
        require_embedded(name)
        return
    directory = directory_of(place_of(name))
    if directory is not None and is_adapter(directory):
        base_of(directory)
    elif directory is not None:
        check_files(directory)
