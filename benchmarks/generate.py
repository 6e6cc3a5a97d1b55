"""Generation compared with `model.generate` of transformers: the same model, dtype, prompts and lengths, in one run.

    python -m benchmarks.generate [--dtype float32,bfloat16] [--batch 32] [--rounds 3] [--unpacked] [--vllm PYTHON]

32 prompts of 32 random tokens, 32 new tokens each, sampled at temperature 1. `--unpacked` adds ours with
`model.packed_decoding: false`, `--vllm` the engine of vLLM, by the Python of an environment that has it; its layers are
compiled, for minutes, when it runs for the first time. Prints a table and, last, one JSON line: `ratio` is our new
tokens per second over those of transformers in the dtype that is fast on this machine, `ratios` all of them, and
`vllm_ratios` the same over vLLM's.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.sides import FIGURES, HERE, Row, in_turn, median, print_table
from triphase.demo.embedded import model_directory
from triphase.models.products import prefers_bfloat16

PROMPT_TOKENS, RESPONSE_TOKENS = 32, 32
OURS, UNPACKED, THEIRS, VLLM = "triphase", "triphase, unpacked", "model.generate", "vllm"
MODULES = {OURS: "benchmarks.ours_generate", THEIRS: "benchmarks.peer_generate"}


def generate_row(dtype: str, new_tokens: int) -> Row:
    """What a side says of its run, beside its seconds."""
    return {
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": new_tokens,
    }


def random_prompts(count: int) -> list[list[int]]:
    """The prompts of both sides."""
    random = torch.Generator().manual_seed(0)
    prompts: list[list[int]] = torch.randint(100, 49000, (count, PROMPT_TOKENS), generator=random).tolist()
    return prompts


def side_options(about: str | None) -> argparse.Namespace:
    """The options of one side; the threads are set."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--unpacked", action="store_true", help="ours alone: packed_decoding is false")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def main() -> None:
    """Measure, print the table and the JSON line."""
    fast = "bfloat16" if prefers_bfloat16("cpu") else "float32"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default=fast, help="one or more, with commas (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unpacked", action="store_true", help="ours without packed weights, too")
    parser.add_argument("--vllm", help="the Python of an environment with vLLM")
    options = parser.parse_args()
    dtypes = options.dtype.split(",")
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.json"
        prompts.write_text(json.dumps(random_prompts(options.batch)), encoding="utf-8")
        found = in_turn(_cases(options, dtypes, prompts), rounds=options.rounds)
    print_table(found, ("side", "dtype"), {"tokens_per_second": "new tokens/s", **FIGURES})
    rates = {case: median(rows, "tokens_per_second") for case, rows in found.items()}
    ratios = {dtype: round(rates[OURS, dtype] / rates[THEIRS, dtype], 2) for dtype in dtypes}
    beside = {dtype: round(rates[OURS, dtype] / rates[VLLM, dtype], 2) for dtype in dtypes} if options.vllm else {}
    chosen = fast if fast in ratios else dtypes[0]
    print(
        json.dumps(
            {
                "ratio": ratios[chosen],
                "dtype": chosen,
                "ratios": ratios,
                "vllm_ratios": beside,
                "tokens_per_second": {dtype: rates[OURS, dtype] for dtype in dtypes},
            }
        )
    )


def _cases(options: argparse.Namespace, dtypes: Sequence[str], prompts: Path) -> dict[tuple[str, ...], list[str]]:
    cases: dict[tuple[str, ...], list[str]] = {}
    for dtype in dtypes:
        sizes = ["--dtype", dtype, "--batch", str(options.batch)]
        cases |= {(side, dtype): [sys.executable, "-m", module, *sizes] for side, module in MODULES.items()}
        if options.unpacked:
            cases[UNPACKED, dtype] = [*cases[OURS, dtype], "--unpacked"]
        if options.vllm:
            model, threads = str(model_directory("embedded:smollm2")), str(torch.get_num_threads())
            place = [model, str(prompts), str(RESPONSE_TOKENS), dtype, threads]
            cases[VLLM, dtype] = [options.vllm, str(HERE / "peer_vllm.py"), *place]
    return cases


if __name__ == "__main__":
    main()
