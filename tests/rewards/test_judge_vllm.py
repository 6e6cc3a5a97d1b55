"""The judge against a real vLLM server (`make test-vllm`): grades as JSON within bounds, from a small model."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from triphase.demo.embedded import model_directory
from triphase.records.types import Message, Prompt
from triphase.rewards.registry import opened
from triphase.rewards.types import Answer, ScorerContext
from triphase.settings.scorer import ScorerSettings

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]
PYTHON = os.environ.get("TRIPHASE_VLLM_PYTHON", ".venv-vllm/bin/python")
READY_SECONDS = 300


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the embedded SmolLM2, which answers chats."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("judge") / "server.log"
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_directory("embedded:smollm2"))]
    options = f"--served-model-name judge --host 127.0.0.1 --port {port} --enforce-eager --max-model-len 1024"
    environment = os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, *options.split()], env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        end = time.monotonic() + READY_SECONDS
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own server
            return True
    except (urllib.error.URLError, OSError):
        return False


def test_a_served_model_grades_as_json_within_bounds(address: str, tmp_path: Path) -> None:
    options = {"model": "judge", "rubric": "Helpful and short.", "lowest": 2, "highest": 5, "max_tokens": 24}
    chosen = ScorerSettings(kind="judge", address=address, timeout_seconds=120, options=options)
    prompt = Prompt("p", (Message("user", "Name a color."),))
    answers = [Answer(prompt, text, True) for text in ("Blue.", "I do not know any.", "Red, and others.")]
    with opened(ScorerContext(chosen, directory=tmp_path)) as scorer:
        scorer.examine()
        scores = scorer.score(answers).total
    assert all(2 <= score <= 5 for score in scores)
    kept = [json.loads(line)["score"] for line in (tmp_path / "judge" / "grades.jsonl").read_text().splitlines()]
    assert set(scores) <= set(kept) and len(kept) >= len(answers)
