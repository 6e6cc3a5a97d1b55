"""The other side of `benchmarks.ppo`: TRL 1.12, its last release with PPO. Run by the peer's Python alone.

    peer_ppo.py MODEL_DIRECTORY LAYERS DTYPE ITERATIONS [--episodes 32] [--random] …

Prints one JSON line. Gradient checkpointing is off, which is the peer's faster setting. Its critic and its reward model
are models of their own; the critic is trained whole, as the library does. `--random` draws the weights of a directory
that has a configuration and a tokenizer alone. It runs on a CUDA device if there is one and `--cpu` is not given.
"""

import argparse
import json
import os
import resource
import time
from itertools import pairwise

os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    """Run and print."""
    import torch
    import trl.experimental.ppo.ppo_trainer as ppo_trainer
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    options = _options()
    path, layers, dtype_name, iterations = options.model, options.layers, options.dtype, options.iterations
    dtype, episodes = getattr(torch, dtype_name), options.episodes
    on_card = torch.cuda.is_available() and not options.cpu
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    random = torch.Generator().manual_seed(0)
    first, last = min(100, len(tokenizer) // 4), len(tokenizer) - 100 if len(tokenizer) > 1000 else len(tokenizer)
    shape = (episodes * (iterations + 1), options.prompt_tokens)
    prompts = torch.randint(first, last, shape, generator=random)
    data = Dataset.from_dict({"input_ids": prompts.tolist()})

    def opened(kind, **more):
        if not options.random:
            return kind.from_pretrained(path, dtype=dtype, **more)
        config = AutoConfig.from_pretrained(path, **more)
        with torch.device("cuda" if on_card else "cpu"):
            return kind.from_config(config, dtype=dtype)

    generation = []
    generate = ppo_trainer.batch_generation

    def timed(*arguments, **named):
        start = time.perf_counter()
        result = generate(*arguments, **named)
        generation.append(time.perf_counter() - start)
        return result

    ppo_trainer.batch_generation = timed
    policy = opened(AutoModelForCausalLM)
    count = policy.config.num_hidden_layers
    adapted = {}
    if layers != "all":
        chosen = list(range(count - int(layers), count))
        adapted = {"layers_to_transform": chosen, "layers_pattern": "layers"}
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = PPOConfig(
        output_dir="peer-out",
        per_device_train_batch_size=options.microbatch,
        gradient_accumulation_steps=episodes // options.minibatches // options.microbatch,
        num_mini_batches=options.minibatches,
        num_ppo_epochs=options.epochs,
        response_length=options.response_tokens,
        total_episodes=episodes * iterations,
        local_rollout_forward_batch_size=min(32, episodes),
        num_sample_generations=0,
        report_to=[],
        use_cpu=not on_card,
        bf16=False,
        learning_rate=1e-4,
        save_strategy="no",
        missing_eos_penalty=1.0,
        logging_steps=1,
        gradient_checkpointing=False,
    )
    trainer = PPOTrainer(
        config,
        tokenizer,
        policy,
        None,
        opened(AutoModelForSequenceClassification, num_labels=1),
        data,
        opened(AutoModelForSequenceClassification, num_labels=1),
        eval_dataset=data.select(range(4)),
        peft_config=LoraConfig(r=16, target_modules=linear, task_type="CAUSAL_LM", **adapted),
    )
    stamps = []

    class Clock(TrainerCallback):
        def on_step_end(self, *arguments, **options):
            stamps.append(time.perf_counter())

    trainer.add_callback(Clock())
    stamps.append(time.perf_counter())
    trainer.train()
    print(
        json.dumps(
            {
                "what": "trl-1.12 ppo",
                "dtype": dtype_name,
                "adapted_layers": count if layers == "all" else int(layers),
                "critic": "a second full model, trained whole",
                "episodes_per_iteration": episodes,
                "seconds_per_iteration": [round(b - a, 2) for a, b in pairwise(stamps)],
                "parts": {"generation": round(generation[-1], 2)},
                "peak_gb": round(
                    torch.cuda.max_memory_allocated() / 1e9
                    if on_card
                    else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
                    2,
                ),
            }
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="its directory")
    parser.add_argument("layers", help="adapted layers from the top, or all")
    parser.add_argument("dtype")
    parser.add_argument("iterations", type=int)
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--response-tokens", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=1, help="optimizer steps of an epoch")
    parser.add_argument("--microbatch", type=int, default=8, help="episodes in a pass with gradients")
    parser.add_argument("--random", action="store_true", help="random weights of the configuration")
    parser.add_argument("--cpu", action="store_true", help="even if there is a CUDA device")
    return parser.parse_args()


if __name__ == "__main__":
    main()
