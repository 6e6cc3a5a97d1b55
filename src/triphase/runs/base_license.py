"""The license of a base, according to its own card on this machine or on the hub."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from triphase.demo.embedded import PREFIX
from triphase.models.places import is_hub_id
from triphase.records.hub import bound_hub

_EMBEDDED = {"embedded:smollm2": "apache-2.0", "embedded:tiny": "apache-2.0"}
_CARD = "README.md"
_KEYS = ("license", "license_name", "license_link")
_SECONDS = 10
_DEEPEST = 4
_LONGEST = 1 << 16
"""Maximum bytes of a card's metadata."""
_NAME = re.compile(r"\w[\w .+-]{0,99}")
_LINK = re.compile(r"[\w./:~%?=&#+-]{1,300}")


@dataclass(frozen=True)
class License:
    """The metadata of a card: the hub's short name, and for `other` the given name and address."""

    license: str
    license_name: str | None = None
    license_link: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.license, self.license_name and f"({self.license_name})", self.license_link)))

    def front(self) -> str:
        """Its lines in the metadata of a card."""
        found = {key: getattr(self, key) for key in _KEYS if getattr(self, key)}
        return yaml.safe_dump(found, sort_keys=False, allow_unicode=True)


def license_of(name: str, *, deepest: int = _DEEPEST) -> License | None:
    """The license of a base: an embedded model, a directory, an adapter's directory (its base's), or a hub id.

    None if no card has it, or the hub is unreachable. ``deepest`` is the maximum number of stacked adapters.
    """
    if name.startswith(PREFIX):
        return License(_EMBEDDED[name]) if name in _EMBEDDED else None
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):
        return _in_card(folder / _CARD) or (_of_adapter(folder, deepest) if deepest else None)
    return _on_hub(name) if is_hub_id(name) else None


def _in_card(path: Path) -> License | None:
    """A card's license, if it is a valid name, or an address, and nothing else."""
    if not os.path.isfile(path):  # reading a pipe would block
        return None
    try:
        with path.open("rb") as file:
            _, head, _ = file.read(_LONGEST).decode("utf-8", "replace").split("---", 2)
        told: Any = yaml.safe_load(head)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    if not isinstance(told, dict) or not told.get("license"):
        return None
    several = told["license"] if isinstance(told["license"], list) else [told["license"]]
    if not all(isinstance(each, str) and _NAME.fullmatch(each) for each in several):
        return None
    name, link = (told.get(key) for key in _KEYS[1:])
    return License(
        ", ".join(several),
        name if isinstance(name, str) and _NAME.fullmatch(name) else None,
        link if isinstance(link, str) and _LINK.fullmatch(link) else None,
    )


def _of_adapter(folder: Path, deepest: int) -> License | None:
    """From the base that an adapter names."""
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return license_of(base, deepest=deepest - 1) if isinstance(base, str) else None


def _on_hub(name: str) -> License | None:
    """From the card that the hub's client has cached, or downloads; it raises many kinds of errors, none matters
    here."""
    try:
        from huggingface_hub import hf_hub_download

        bound_hub()
        return _in_card(Path(hf_hub_download(name, _CARD, etag_timeout=_SECONDS)))
    except Exception:
        return None
