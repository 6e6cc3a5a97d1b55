"""The other side of `benchmarks.reward`: TRL 1.16. Run by the peer's Python alone.

    peer_reward.py MODEL_DIRECTORY DATA LAYERS DTYPE SCRATCH

Prints one JSON line. Gradient checkpointing is off, which is the peer's faster setting.
"""

import json
import os
import resource
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    """Run and print."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    path, data, layers, dtype, scratch = sys.argv[1:6]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with open(data, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype=getattr(torch, dtype))
    count = model.config.num_hidden_layers
    adapted = {}
    if layers != "all":
        adapted = {"layers_to_transform": list(range(count - int(layers), count)), "layers_pattern": "layers"}
    config = RewardConfig(
        output_dir=scratch,
        per_device_train_batch_size=8,
        num_train_epochs=1,
        max_length=1024,
        report_to=[],
        use_cpu=True,
        bf16=False,
        learning_rate=3e-4,
        save_strategy="no",
        logging_steps=5,
        gradient_checkpointing=False,
    )
    trainer = RewardTrainer(
        model,
        config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(path),
        peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="SEQ_CLS", **adapted),
    )
    tokens = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in trainer.train_dataset)
    start, start_cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    print(
        json.dumps(
            {
                "what": "trl reward",
                "dtype": dtype,
                "adapted_layers": layers,
                "pairs": len(rows),
                "tokens": tokens,
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu_seconds, 2),
                "pairs_per_second": round(len(rows) / seconds, 3),
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
