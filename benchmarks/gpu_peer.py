"""TRL's PPO beside ours in `benchmarks.gpu`: the same shape, episodes, lengths, epochs and LoRA layers, on one device.

The peer is a directory with its packages (trl==1.12.0 and what it needs, which then run in this Python), or the Python
of an environment that has them. It runs in a process of its own and draws its own random weights. Its microbatch is 16
episodes, as many tokens as ours has at 4096.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.sides import HERE
from triphase.models.roles import SharedModel

Row = dict[str, Any]
_ITERATIONS, _EPOCHS, _MINIBATCHES, _MICROBATCH = 2, 2, 2, 16
PEER = "trl ppo"


def peer_of(path: Path) -> tuple[str, dict[str, str]]:
    """The Python that runs the peer, and what its environment gets in addition."""
    if path.is_dir():
        before = os.environ.get("PYTHONPATH")
        return sys.executable, {"PYTHONPATH": os.pathsep.join([str(path.resolve()), *([before] if before else [])])}
    return str(path), {}


def peer_row(shared: SharedModel, path: Path, sizes: tuple[int, int, int], ours: list[Row], *, seconds: float) -> Row:
    """An iteration of the peer's PPO, and how many times longer it takes than the fastest of ``ours``.

    ``shared`` gives the shape; ``sizes`` are episodes, prompt and response tokens. The peer is ended after ``seconds``.
    """
    backbone, (episodes, prompt, response) = shared.backbone, sizes
    python, added = peer_of(path)
    adapted = backbone.layer_count - backbone.trunk_layers
    with tempfile.TemporaryDirectory() as directory:
        backbone.model.config.save_pretrained(directory)
        shared.template.tokenizer.save_pretrained(directory)
        command = [python, str(HERE / "peer_ppo.py"), directory]
        command += ["all" if not backbone.trunk_layers else str(adapted), "bfloat16", str(_ITERATIONS), "--random"]
        for name, value in (
            ("episodes", episodes),
            ("prompt-tokens", prompt),
            ("response-tokens", response),
            ("epochs", _EPOCHS),
            ("minibatches", _MINIBATCHES),
            ("microbatch", min(_MICROBATCH, episodes // _MINIBATCHES)),
        ):
            command += [f"--{name}", str(value)]
        environment = os.environ | added
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd=directory, env=environment, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return {"error": f"the peer was ended after {seconds:.0f} s, when the time for all was over"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"the peer ended with {done.returncode}: {last[:160]}"}
    found = json.loads(lines[-1])
    value = found["seconds_per_iteration"][-1]
    row = {"value": value, "unit": "s per iteration", "peak_gb": found["peak_gb"], "parts": found["parts"]}
    fastest = min((each for each in ours if "value" in each), key=lambda each: float(each["value"]), default=None)
    if fastest is not None:
        row["times_slower"] = round(value / fastest["value"], 2)
        if fastest["peak_gb"]:
            row["our_share_of_its_peak"] = round(fastest["peak_gb"] / found["peak_gb"], 2)
    return row


def existing(text: str) -> Path:
    """A directory or a Python, as a path; argparse reports a wrong one."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist; give a directory with trl==1.12.0, or a Python")
    return path
