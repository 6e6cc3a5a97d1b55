"""One side of `benchmarks.generate`: our decode loop. Prints one JSON line.

The policy is an adapter of rank 16 on the top third of the layers, at work, as in PPO.
"""

from benchmarks.full_responses import write_in_full
from benchmarks.generate import RESPONSE_TOKENS, generate_row, random_prompts, side_options
from benchmarks.sides import Row, print_side
from triphase.demo.embedded import model_directory
from triphase.models.loading import load_model
from triphase.models.roles import POLICY, SharedModel
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.schema import AdapterSettings, ModelSettings


def main() -> None:
    """Run and print."""
    options = side_options(__doc__)
    directory = str(model_directory("embedded:smollm2"))
    model = ModelSettings(name=directory, dtype=options.dtype, packed_decoding=not options.unpacked)
    shared = SharedModel(load_model(model), AdapterSettings(layers=10, rank=16), seed=0)
    shared.adapters.add(POLICY)
    write_in_full(shared)
    generator = LocalGenerator(shared, adapter=POLICY, batch_size=options.batch)
    requests = [Request(tuple(prompt), seed) for seed, prompt in enumerate(random_prompts(options.batch))]

    def generate(tokens: int) -> int:
        found = generator.generate(requests, temperature=1.0, max_response_tokens=tokens)
        return sum(len(answer.ids) for answer in found)

    generate(2)

    def work() -> Row:
        dtype = str(shared.backbone.dtype).removeprefix("torch.")
        return generate_row(dtype, generate(RESPONSE_TOKENS))

    print_side("triphase", work, ("tokens_per_second", "new_tokens"))


if __name__ == "__main__":
    main()
