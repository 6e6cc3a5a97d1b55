"""Uploads an exported directory to a repository on the hub."""

import os
import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triphase.errors import RunError, first_line_of
from triphase.models.files import ADAPTER_CONFIG, read_object
from triphase.records.hub import bound_hub
from triphase.records.visible import visible

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "model.safetensors.index.json")
_KEPT_HERE = ["manifest.json", ".*", "**/.*"]
"""Files that are not uploaded: our own checksums, and hidden files."""


def push(
    directory: Annotated[Path, Parameter(help="What `triphase export` wrote, or the final directory of a phase.")],
    repository: Annotated[str, Parameter(help="organization/name on the hub; created if it does not exist.")],
    /,
    *,
    public: Annotated[bool, Parameter(help="Make a new repository public; the default is private.")] = False,
    message: Annotated[str, Parameter(help="The commit message.")] = "Upload by Triphase",
) -> None:
    """Upload an exported directory to the hub."""
    if not _REPOSITORY.fullmatch(repository):
        raise RunError(f"{repository[:80]}: not a repository; write organization/name")
    if not any(os.path.isfile(directory / name) for name in _WEIGHTS) or not os.path.isfile(directory / "README.md"):
        raise RunError(
            f"{directory}: contains no exported model (weights and README.md); create one with `triphase export`"
        )
    _require_own_files(directory)
    _require_public_base(directory)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    bound_hub()
    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=str(directory), commit_message=message, ignore_patterns=_KEPT_HERE
        )
    except LocalTokenNotFoundError:
        raise RunError(f"{repository}: not signed in to the hub; run `hf auth login`, or set HF_TOKEN") from None
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = "; sign in with `hf auth login`, with a token that has write access" if status in (401, 403) else ""
        raise RunError(f"{repository}: the hub refused it ({first_line_of(error)}){hint}") from None
    except Exception as error:  # the library raises many types of errors, of the network and of the file system too
        line = first_line_of(error)
        raise RunError(f"{repository}: the hub cannot be reached ({type(error).__name__}: {line})") from None
    print(visible(str(done.commit_url)))


def _require_public_base(directory: Path) -> None:
    """Refuse an adapter whose base is named by a path of this machine, which would be published and opens nowhere else.

    Raises:
        RunError: it is.
    """
    path = directory / ADAPTER_CONFIG
    base = read_object(path).get("base_model_name_or_path") if path.is_file() else None
    if isinstance(base, str) and os.path.isabs(base):
        raise RunError(
            f"{directory}: is an adapter on {base}, which others cannot open; upload the merged model (`triphase "
            f"export` without --adapter), or in an exported copy write the hub id of its base into {ADAPTER_CONFIG} "
            "and README.md"
        )


def _require_own_files(directory: Path) -> None:
    """Refuse symlinks: their targets would be uploaded in their place.

    Raises:
        RunError: there is one.
    """
    for folder, folders, files in os.walk(directory):
        for name in (*folders, *files):
            if os.path.islink(path := os.path.join(folder, name)):
                raise RunError(f"{path}: is a link, and its target would be uploaded; copy it here, or remove it")
