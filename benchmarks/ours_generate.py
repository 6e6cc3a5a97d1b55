"""One side of `benchmarks.generate`: our decode loop. Prints one JSON line.

The policy is an adapter of rank 16 on the top third of the layers, at work, as in PPO.
"""

import json
import resource
import time

import torch

from benchmarks.generate import PROMPT_TOKENS, RESPONSE_TOKENS, random_prompts, side_options
from triphase.embedded.registry import model_directory
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, SharedModel
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.schema import AdapterSettings, ModelSettings

NEVER = -1


def main() -> None:
    """Run and print."""
    options = side_options(__doc__)
    directory = str(model_directory("embedded:smollm2"))
    model = ModelSettings.model_validate({"name": directory, "dtype": options.dtype})
    shared = SharedModel(load_model(model), AdapterSettings(layers=10, rank=16), seed=0)
    shared.adapters.add(POLICY)
    # Responses are always as long as they may be.
    shared.template.end_id = NEVER
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=options.batch)
    requests = [Request(tuple(prompt), seed) for seed, prompt in enumerate(random_prompts(options.batch))]

    def generate(tokens: int) -> int:
        found = generator.generate(requests, temperature=1.0, max_response_tokens=tokens)
        return sum(len(answer.ids) for answer in found)

    generate(2)
    start, start_cpu = time.perf_counter(), time.process_time()
    tokens = generate(RESPONSE_TOKENS)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    print(
        json.dumps(
            {
                "what": "triphase",
                "dtype": str(shared.backbone.dtype).removeprefix("torch."),
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
