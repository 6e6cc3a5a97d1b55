"""Rows of data sets on the hub, through the `datasets` library."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from triphase.errors import DataError, clipped, first_line_of
from triphase.records.hub import bound_hub
from triphase.records.lines import Row
from triphase.records.paths import SUFFIXES, shown
from triphase.settings.data import SourceSettings

_LONGEST_HUB_ID = 200
_REMEDIES = (
    ("Config name is missing", "set the configuration as config"),
    ("BuilderConfig", "set the configuration as config"),
    ("gated dataset", "accept its terms on its page, then sign in with `hf auth login`"),
    (
        "scripts are no longer supported",
        "set revision: refs/convert/parquet, where the hub keeps a copy of most of them",
    ),
)
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")


def hub_rows(source: SourceSettings) -> Iterator[Row]:
    """The rows of one split. With ``streaming`` they are downloaded on the fly, and nothing is stored on the disk.

    Raises:
        DataError: there is no such data set, configuration, revision or split, or it cannot be downloaded.
    """
    if not _HUB_ID.match(source.path) or len(source.path) > _LONGEST_HUB_ID:
        raise DataError(
            f"{shown(source.path)}: neither a file ({', '.join(SUFFIXES)}) nor a hub id like organization/name"
        )
    parts = [part for part in (source.config, source.split, source.revision) if part is not None]
    name = f"{source.path} ({', '.join(parts)})"
    rows = iter(_data_set(source, name))
    number = 0
    while True:
        try:
            values = next(rows, None)
        except Exception as error:  # a broken stream raises any of its library's errors
            raise _failed(name, error) from error
        if values is None:
            return
        number += 1
        yield Row(values, name, number, unit="row")


def _data_set(source: SourceSettings, name: str) -> Iterable[Mapping[str, Any]]:
    try:
        from datasets import Dataset, IterableDataset, load_dataset
    except ImportError:
        raise DataError(f"{name}: hub data sets need datasets; run: pip install 'triphase[train]'") from None
    bound_hub()
    given = {"name": source.config, "revision": source.revision, "streaming": source.streaming or None}
    options = {key: value for key, value in given.items() if value is not None}
    try:
        try:
            rows = load_dataset(source.path, split=source.split, **options)
        except ValueError as error:
            folder = options.pop("name", None)
            if folder is None or "BuilderConfig" not in str(error):
                raise
            rows = load_dataset(source.path, data_dir=folder, split=source.split, **options)
    except Exception as error:  # the library raises many types of errors, of the network and of the file system too
        raise _failed(name, error) from error
    if not isinstance(rows, Dataset | IterableDataset):
        raise DataError(f"{name}: is not a table of records")
    table: Iterable[Mapping[str, Any]] = rows
    return table


def _failed(name: str, error: Exception) -> DataError:
    said = str(error)
    known = re.search(r"available configs: (\[.*\])", said)
    line = first_line_of(error) if known is None else clipped(f"the configurations are {known[1]}")
    remedy = next(
        (remedy for sign, remedy in _REMEDIES if sign in said),
        "check the id, config, split, revision and the network, or name a local file with its suffix",
    )
    return DataError(f"{name}: could not be loaded from the hub ({type(error).__name__}: {line}); {remedy}")
