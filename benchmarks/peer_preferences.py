"""The other side of `benchmarks.preferences`: the reward trainer of TRL 1.16. Run by the peer's Python alone.

    peer_preferences.py MODEL_DIRECTORY TRAINED HELDOUT LAYERS DTYPE LEARNING_RATE SEED SCRATCH [PARTS]

The files hold a comparison on each line: `prompt`, `chosen` and `rejected`, all of them messages. One epoch in batches
of 8, each in so many parts (1) whose gradients are added, LoRA of rank 16 on every linear map of the layers. Prints one
JSON line with the score differences (chosen − rejected) of the held-out comparisons, in their order.
"""

import json
import os
import sys
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    """Train, score, print."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    path, trained, heldout, layers, dtype, rate, seed, scratch = sys.argv[1:9]
    parts = int(sys.argv[9]) if len(sys.argv) > 9 else 1
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    torch.manual_seed(int(seed))
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype=getattr(torch, dtype))
    count = model.config.num_hidden_layers
    adapted: dict[str, Any] = {}
    if layers != "all":
        adapted = {"layers_to_transform": list(range(count - int(layers), count)), "layers_pattern": "layers"}
    config = RewardConfig(
        output_dir=scratch,
        per_device_train_batch_size=8 // parts,
        gradient_accumulation_steps=parts,
        num_train_epochs=1,
        max_length=1024,
        report_to=[],
        use_cpu=True,
        bf16=False,
        learning_rate=float(rate),
        seed=int(seed),
        save_strategy="no",
        logging_steps=5,
        gradient_checkpointing=False,
    )
    trainer = RewardTrainer(
        model,
        config,
        train_dataset=Dataset.from_list(_rows(trained)),
        eval_dataset=Dataset.from_list(_rows(heldout)),
        processing_class=AutoTokenizer.from_pretrained(path),
        peft_config=LoraConfig(r=16, target_modules=_maps(model), task_type="SEQ_CLS", **adapted),
    )
    start, start_cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    trainer.model.eval()

    @torch.no_grad()
    def score(ids: list[int]) -> float:
        return float(trainer.model(input_ids=torch.tensor([ids])).logits.float().squeeze())

    margins = [score(row["chosen_ids"]) - score(row["rejected_ids"]) for row in trainer.eval_dataset]
    print(
        json.dumps(
            {
                "what": "trl",
                "layers": layers,
                "dtype": dtype,
                "learning_rate": float(rate),
                "seed": int(seed),
                "trained": len(trainer.train_dataset),
                "seconds": round(seconds, 1),
                "cpu_seconds": round(cpu_seconds, 1),
                "margins": {"adapter": margins},
            }
        )
    )


def _maps(model: Any) -> list[str]:
    """The last names of the linear maps in the layers; "all-linear" cannot be had of some layers alone."""
    import torch

    named = model.model.layers.named_modules()
    return sorted({name.rsplit(".", 1)[-1] for name, each in named if isinstance(each, torch.nn.Linear)})


def _rows(path: str) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
