"""Which model the servers of a run must serve: the base of the policy's adapter."""

from triphase.datacheck.model_names import place_of
from triphase.errors import SettingsError
from triphase.models.chain import is_adapter
from triphase.models.places import directory_of
from triphase.rollouts.serving import require_vllm
from triphase.settings.phase_names import SFT
from triphase.settings.places import expanded
from triphase.settings.schema import ModelSettings, RunSettings
from triphase.training.artifacts import is_whole
from triphase.training.artifacts import place_of as place_of_artifact


def served_base(settings: RunSettings) -> str:
    """A directory, or a hub id.

    Raises:
        SettingsError: the base has no files of its own, or phase 1, which makes it, has not been run.
    """
    final = place_of_artifact(expanded(settings.output) / settings.name, SFT)
    taken_whole = settings.sft_method == "taken" and not is_adapter(final)
    if settings.sft_method == "full" or taken_whole:
        if not is_whole(final):
            raise SettingsError(f"{final}: the servers load the result of phase 1 from there; run `triphase sft` first")
        return str(final.resolve())
    return require_files(settings.model)


def require_startable(settings: RunSettings) -> None:
    """Check that the run can start servers: they can open the base, and vLLM is installed.

    Raises:
        SettingsError: they cannot, or it is not.
    """
    if settings.sft_method in ("lora", "none"):  # else the servers load what phase 1 leaves, or finds
        require_files(settings.model)
    require_vllm(settings.rollouts)


def require_files(model: ModelSettings) -> str:
    """The place of a model that servers can open: a directory, or a hub id.

    Raises:
        SettingsError: it is merged from an adapter and its base, and has no files of its own.
    """
    name = place_of(model.name)
    directory = directory_of(name)
    if is_adapter(directory) or model.adapter is not None:
        raise SettingsError(
            f"model.name: {model.name} is merged from an adapter and its base, but "
            f"servers need the files of the merged model; write them with `triphase export`, and "
            f"set model.name to that directory"
        )
    return name if directory is None else str(directory.resolve())
