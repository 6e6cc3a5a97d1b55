"""The other side of `benchmarks.generate`: `model.generate` of transformers, on the bare model. Prints one JSON line.

It samples from the whole vocabulary at temperature 1, as we do, without an adapter that would slow it down.
"""

import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM

from benchmarks.generate import PROMPT_TOKENS, RESPONSE_TOKENS, random_prompts, side_options
from triphase.embedded.registry import model_directory


def main() -> None:
    """Run and print."""
    options = side_options(__doc__)
    directory = model_directory("embedded:smollm2")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, options.dtype)).eval()
    ids = torch.tensor(random_prompts(options.batch))

    def generate(tokens: int) -> int:
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
        return int(found[:, PROMPT_TOKENS:].numel())

    generate(2)
    start, start_cpu = time.perf_counter(), time.process_time()
    tokens = generate(RESPONSE_TOKENS)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    print(
        json.dumps(
            {
                "what": "transformers generate",
                "dtype": options.dtype,
                "threads": torch.get_num_threads(),
                "prompt_tokens": PROMPT_TOKENS,
                "new_tokens": tokens,
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu_seconds, 2),
                "tokens_per_second": round(tokens / seconds, 1),
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
