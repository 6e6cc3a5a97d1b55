"""Models by the names that settings use, embedded ones included."""

from pathlib import Path

from triphase.demo.registry import PREFIX, model_directory, public_name, require_embedded
from triphase.errors import TriphaseError
from triphase.models.chain import base_of, is_adapter
from triphase.models.files import check_files
from triphase.models.places import directory_of
from triphase.settings.loading import RUN_CONFIG, load_settings
from triphase.training.artifacts import runs_around


def place_of(name: str, adapter: Path | None = None) -> str:
    """A model's name for `load_model`: an embedded model's directory, any other name as it is.

    The adapters of a run say for others which model is like the embedded one (`public_name`); here it is that one.

    Raises:
        SettingsError: there is no embedded model of that name.
    """
    if adapter is not None:
        for folder in runs_around(adapter):
            own = _model_of_run(folder / RUN_CONFIG)
            # Adapters name a directory as it was seen from where the run was made.
            if own is not None and (name == public_name(own)[0] or own.endswith(f"/{name}")):
                name = own
    return str(model_directory(name)) if name.startswith(PREFIX) else name


def _model_of_run(config: Path) -> str | None:
    try:
        return load_settings(config.parent).model.name if config.is_file() else None
    except TriphaseError:
        return None  # of another version, or no run's: the adapter's own word stands


def place_without_torch(name: str) -> None:
    """Refuse a directory that holds no model.

    Raises:
        ModelError, SettingsError: what is wrong with it.
    """

    if name.startswith(PREFIX):
        require_embedded(name)
        return
    directory = directory_of(name)
    if directory is not None and is_adapter(directory):
        base_of(directory)
    elif directory is not None:
        check_files(directory)
