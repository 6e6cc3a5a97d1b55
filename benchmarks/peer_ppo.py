"""The other side of `benchmarks.ppo`: TRL 1.12, its last release with PPO. Run by the peer's Python alone.

    peer_ppo.py MODEL_DIRECTORY LAYERS DTYPE ITERATIONS

Prints one JSON line. Gradient checkpointing is off, which is the peer's faster setting. Its critic and its reward model
are models of their own; the critic is trained whole, as the library does.
"""

import json
import os
import resource
import sys
import time
from itertools import pairwise

os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    """Run and print."""
    import torch
    import trl.experimental.ppo.ppo_trainer as ppo_trainer
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    path, layers, dtype_name, iterations = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    dtype, episodes = getattr(torch, dtype_name), 32
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    random = torch.Generator().manual_seed(0)
    prompts = torch.randint(100, 49000, (episodes * (iterations + 1), 32), generator=random)
    data = Dataset.from_dict({"input_ids": prompts.tolist()})
    generation = []
    generate = ppo_trainer.batch_generation

    def timed(*arguments, **options):
        start = time.perf_counter()
        result = generate(*arguments, **options)
        generation.append(time.perf_counter() - start)
        return result

    ppo_trainer.batch_generation = timed
    policy = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    count = policy.config.num_hidden_layers
    adapted = {}
    if layers != "all":
        chosen = list(range(count - int(layers), count))
        adapted = {"layers_to_transform": chosen, "layers_pattern": "layers"}
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = PPOConfig(
        output_dir="peer-out",
        per_device_train_batch_size=8,
        gradient_accumulation_steps=4,
        num_mini_batches=1,
        num_ppo_epochs=4,
        response_length=32,
        total_episodes=episodes * iterations,
        local_rollout_forward_batch_size=32,
        num_sample_generations=0,
        report_to=[],
        use_cpu=True,
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
        AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype=dtype),
        data,
        AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype=dtype),
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
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
