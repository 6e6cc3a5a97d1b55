"""One more side of `benchmarks.generate`: vLLM in one process, on the bare model. Run by the Python of vLLM alone.

    peer_vllm.py MODEL_DIRECTORY PROMPTS NEW_TOKENS DTYPE THREADS

PROMPTS is a file with a list of prompts, each a list of tokens. Prints one JSON line.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

path, prompts_path, new_tokens, dtype, threads = sys.argv[1:6]
# In one process, as the other sides are, so that processor time and memory are those of the work; both are set before
# vLLM is imported.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """Run and print."""
    from vllm import LLM, SamplingParams

    prompts = json.loads(Path(prompts_path).read_text(encoding="utf-8"))
    length = max(map(len, prompts)) + int(new_tokens)
    model = LLM(
        path,
        dtype=dtype,
        max_model_len=length,
        max_num_seqs=len(prompts),
        enable_prefix_caching=False,
        kv_cache_memory_bytes=1_000_000_000,
        disable_log_stats=True,
    )

    def generate(tokens: int) -> int:
        sampling = SamplingParams(temperature=1.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        found = model.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        return sum(len(each.outputs[0].token_ids) for each in found)

    generate(2)
    start, start_cpu = time.perf_counter(), time.process_time()
    count = generate(int(new_tokens))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    row = {
        "what": "vllm",
        "dtype": dtype,
        "threads": int(threads),
        "prompt_tokens": length - int(new_tokens),
        "new_tokens": count,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "tokens_per_second": round(count / seconds, 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
