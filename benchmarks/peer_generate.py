"""The other side of `benchmarks.generate`: `model.generate` of transformers, on the bare model. Prints one JSON line.

It samples from the whole vocabulary at temperature 1, as we do, without an adapter that would slow it down.
"""

import torch
from transformers import AutoModelForCausalLM

from benchmarks.generate import PROMPT_TOKENS, RESPONSE_TOKENS, generate_row, random_prompts, side_options
from benchmarks.sides import Row, print_side
from triphase.demo.embedded import model_directory


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

    def work() -> Row:
        return generate_row(options.dtype, generate(RESPONSE_TOKENS))

    print_side("transformers generate", work, ("tokens_per_second", "new_tokens"))


if __name__ == "__main__":
    main()
