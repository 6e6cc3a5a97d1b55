"""Functions as people write them, sound and not."""

import sys
import time
from typing import Any

import numpy as np
import torch

CALLS: list[tuple[list[Any], list[str]]] = []
Prompts = list[list[dict[str, str]]]


def lengths(prompts: Prompts, responses: list[str], factor: float = 1.0) -> list[float]:
    CALLS.append((prompts, responses))
    return [factor * len(response) for response in responses]


def parts(prompts: Prompts, responses: list[str]) -> dict[str, list[float]]:
    words = [float(len(response.split())) for response in responses]
    return {"total": [2 * count for count in words], "words": words, "one": [1.0] * len(words)}


def by_text(prompts: Prompts, responses: list[str]) -> list[float]:
    """The number at the end of a response; NaN where it says so."""
    return [float(response.split()[-1]) for response in responses]


def array(prompts: Prompts, responses: list[str]) -> Any:
    return np.array([len(response) for response in responses])


def listed(prompts: Prompts, responses: list[str]) -> Any:
    return list(np.array([len(response) for response in responses], dtype=np.float32))


def tensor(prompts: Prompts, responses: list[str]) -> Any:
    return torch.tensor([float(len(response)) for response in responses], requires_grad=True)


def raises(prompts: Prompts, responses: list[str]) -> list[float]:
    if "bad" in responses:
        raise ValueError("no such\nword")
    return [0.0] * len(responses)


def raises_on_many(prompts: Prompts, responses: list[str]) -> list[float]:
    if len(responses) > 1:
        raise ValueError
    return [0.0]


def exits(prompts: Prompts, responses: list[str]) -> list[float]:
    sys.exit(3)


def short(prompts: Prompts, responses: list[str]) -> list[float]:
    return [0.0] * (len(responses) - 1)


def infinite(prompts: Prompts, responses: list[str]) -> list[Any]:
    return [0.0, 10**400]


def words(prompts: Prompts, responses: list[str]) -> list[Any]:
    return ["high" if response == "bad" else 1 for response in responses]


def truths(prompts: Prompts, responses: list[str]) -> list[bool]:
    return [True] * len(responses)


def single(prompts: Prompts, responses: list[str]) -> float:
    return 1.0


def nothing(prompts: Prompts, responses: list[str]) -> None:
    return None


def no_total(prompts: Prompts, responses: list[str]) -> dict[str, list[float]]:
    return {"words": [1.0] * len(responses)}


def odd_part(prompts: Prompts, responses: list[str]) -> dict[str, list[float]]:
    return {"total": [1.0] * len(responses), "ppo/loss": [1.0] * len(responses)}


def bad_part(prompts: Prompts, responses: list[str]) -> dict[str, list[Any]]:
    return {"total": [1.0] * len(responses), "words": [None] * len(responses)}


def slow(prompts: Prompts, responses: list[str]) -> list[float]:
    time.sleep(1.0)
    return [0.0] * len(responses)


def one_argument(responses: list[str]) -> list[float]:
    return [0.0]


number = 3
