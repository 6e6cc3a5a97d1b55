"""Scoring functions as users write them, correct and faulty."""

import asyncio
import json
import os
import re
import sys
import time
from decimal import Decimal
from typing import Any

import numpy as np

Prompts = list[list[dict[str, str]]]


def lengths(prompts: Prompts, responses: list[str], factor: float = 1.0, calls: str = "") -> list[float]:
    if calls:  # the file to which each call is written
        with open(calls, "a") as file:
            file.write(json.dumps([prompts, responses]) + "\n")
    return [factor * len(response) for response in responses]


def parts(prompts: Prompts, responses: list[str]) -> dict[str, list[float]]:
    words = [float(len(response.split())) for response in responses]
    return {"total": [2 * count for count in words], "words": words, "one": [1.0] * len(words)}


def by_text(prompts: Prompts, responses: list[str]) -> list[float]:
    """The number at the end of a response, which may be NaN."""
    return [float(response.split()[-1]) for response in responses]


def optional(prompts: Prompts, responses: list[str], want: Any = None) -> list[float]:
    return [1.0] * len(responses)


def takes_all(completions: list[Any], answer: Any = None, **further: Any) -> list[float]:
    return [1.0] * len(completions)


def array(prompts: Prompts, responses: list[str]) -> Any:
    return np.array([len(response) for response in responses])


def listed(prompts: Prompts, responses: list[str]) -> Any:
    return list(np.array([len(response) for response in responses], dtype=np.float32))


def tensor(prompts: Prompts, responses: list[str]) -> Any:
    import torch  # here alone: the processes that score with the others start seconds sooner without it

    return torch.tensor([float(len(response)) for response in responses], requires_grad=True)


def decimals(prompts: Prompts, responses: list[str]) -> Any:
    return [Decimal(len(response)) for response in responses]


def takes_away(prompts: Prompts, responses: list[str]) -> list[float]:
    return [float(len(responses.pop())) for _ in responses[1:]]


def closes_its_pipe(prompts: Prompts, responses: list[str]) -> list[float]:
    os.closerange(3, 50)
    time.sleep(60)
    return [0.0] * len(responses)


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


def one_argument(texts: list[str]) -> list[float]:
    return [0.0]


def responses_alone(responses: list[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def dies(prompts: Prompts, responses: list[str]) -> list[float]:
    print("about to go", flush=True)
    os._exit(7)


def forks(prompts: Prompts, responses: list[str]) -> list[float]:
    """Both come back: the child with other scores."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return [1.0 if child else 7.0] * len(responses)


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raises_what_cannot_be_shown(prompts: Prompts, responses: list[str]) -> list[float]:
    raise _Mute


def prints(prompts: Prompts, responses: list[str]) -> list[float]:
    print(f"seen {len(responses)}")
    print("and so on", file=sys.stderr)
    return [0.0] * len(responses)


def reads_input(prompts: Prompts, responses: list[str]) -> list[float]:
    return [float(len(sys.stdin.read()))] * len(responses)


def in_order_of_a_set(prompts: Prompts, responses: list[str]) -> list[float]:
    return [float(sum(place * ord(word[0]) for place, word in enumerate(set(text.split())))) for text in responses]


# As TRL calls them; the first is from its documentation, as it stands there.
def reward_func(completions, ground_truth, **kwargs):  # type: ignore[no-untyped-def]
    matches = [re.search(r"\\boxed\{(.*?)\}", completion) for completion in completions]
    contents = [match.group(1) if match else "" for match in matches]
    return [1.0 if c == gt else 0.0 for c, gt in zip(contents, ground_truth, strict=True)]


def format_reward(completions, **kwargs):  # type: ignore[no-untyped-def]
    """Of TRL's documentation: conversational completions."""
    pattern = r"^<think>.*?</think><answer>.*?</answer>$"
    completion_contents = [completion[0]["content"] for completion in completions]
    matches = [re.match(pattern, content) for content in completion_contents]
    return [1.0 if match else 0.0 for match in matches]


def seen(prompts: Any, completions: Any, finished: Any, calls: str, solution: Any = None) -> list[bool]:
    with open(calls, "a") as file:
        file.write(json.dumps([prompts, completions, finished, solution]) + "\n")
    return [True] * len(completions)


def reads_ids(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(len(ids)) for ids in completion_ids]


def everything(**given: Any) -> list[float]:
    return [float(len(given))] * len(given["completions"])


async def later(completions: list[str], **_: Any) -> list[float]:
    await asyncio.sleep(0)
    return [float(len(completion)) for completion in completions]


def some(prompts: Any, completions: list[str]) -> list[Any]:
    return [None if "bad" in str(completion) else 1.0 for completion in completions]


number = 3


def huge(prompts: Prompts, responses: list[str]) -> list[float]:
    return [1e300 for _ in responses]
