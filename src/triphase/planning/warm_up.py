"""The code that phases import lazily: it counts as the process's own memory, and not as that of a phase."""

import torch

import triphase.phases.ppo
import triphase.phases.reward
import triphase.phases.sft
import triphase.store  # noqa: F401 - loaded, not used


def load_code() -> None:
    """Load the code that phases import lazily (80 MB with the optimizer alone): it counts as the process's own."""
    a = torch.nn.Parameter(torch.ones(256, 256))
    optimizer = torch.optim.AdamW([a])
    (a @ a).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
