"""Triphase: reinforcement learning from human feedback, in three phases and on one machine.

What `__all__` names is the public interface (docs/api.md). It is imported when it is first used: `import triphase` by
itself takes no torch.
"""

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triphase import errors, objectives
    from triphase.api.policy import load_policy
    from triphase.api.reward_model import load_reward_model
    from triphase.api.run import Run
    from triphase.api.training import evaluate, train_ppo, train_reward_model, train_sft

__version__ = "0.1.0"
__all__ = [
    "Run",
    "errors",
    "evaluate",
    "load_policy",
    "load_reward_model",
    "objectives",
    "train_ppo",
    "train_reward_model",
    "train_sft",
]
_MODULES = ("errors", "objectives")
_PLACES = {
    "Run": "run",
    "evaluate": "training",
    "load_policy": "policy",
    "load_reward_model": "reward_model",
    "train_ppo": "training",
    "train_reward_model": "training",
    "train_sft": "training",
}

# If installed, transformers imports them, before any module here can; they list the kernels of other platforms.
for _noisy in ("torchao", "torch.utils._pytree", "bitsandbytes"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)

if not TYPE_CHECKING:  # a type checker reads the names above, and knows that there are no others

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'triphase' has no attribute {name!r}; it has {', '.join(__all__)}")
        try:
            if name in _MODULES:
                return importlib.import_module(f"triphase.{name}")
            found = getattr(importlib.import_module(f"triphase.api.{_PLACES[name]}"), name)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"triphase.{name} needs the package {error.name}; run: pip install 'triphase[train]'", name=error.name
            ) from error
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
