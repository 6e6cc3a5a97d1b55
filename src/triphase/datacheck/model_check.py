"""A model that a run would refuse, refused before any weight is read."""

from triphase.datacheck.model_names import place_of
from triphase.models.chain import chain_of
from triphase.models.checking import check_chain
from triphase.models.loading import require_card
from triphase.settings.schema import RunSettings


def check_model(settings: RunSettings) -> None:
    """Refuse a model that `run` would refuse, as far as that is possible without reading its weights.

    Checked are: that it exists, its configuration and architecture, the tokenizer, `adapters.layers` and `targets`
    against its layers, `model.max_length` against learned positions, and the names, shapes and sizes of all weights by
    the headers of their files; adapters are read, since they are small. For a hub id that is not on this machine,
    configuration and tokenizer are downloaded.

    Raises:
        ModelError, SettingsError: names the file, tensor or setting, and the remedy.
    """
    require_card(settings.model)
    chain = chain_of(settings.model, place_of)
    check_chain(chain, settings.adapters, max_length=settings.model.max_length)
