"""Run by a Python with TRL but not Triphase: opens a reward model and a policy, and prints their outputs as JSON.

python trl_opens.py REWARD POLICY SCRATCH
"""

import json
import sys

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

REWARD, POLICY, SCRATCH = sys.argv[1:]
PAIRS = [("oak pine", "red", "green blue"), ("elm", "fir three", "grey"), ("ash birch", "one", "two four one")]
QUIET = {"output_dir": SCRATCH, "report_to": [], "disable_tqdm": True, "use_cpu": True, "bf16": False}


def turn(role, text):
    return [{"role": role, "content": text}]


rows = [
    {"prompt": turn("user", prompt), "chosen": turn("assistant", good), "rejected": turn("assistant", bad)}
    for prompt, good, bad in PAIRS
]
kept = {"dtype": "float32"}
trainer = RewardTrainer(
    model=REWARD,
    args=RewardConfig(**QUIET, model_init_kwargs=dict(kept), per_device_eval_batch_size=2),
    train_dataset=Dataset.from_list(rows),
)
inputs = trainer.processing_class.apply_chat_template(
    [row["prompt"] + row[side] for row in rows for side in ("chosen", "rejected")],
    padding=True,
    return_tensors="pt",
    return_dict=True,
)
with torch.no_grad():
    scores = trainer.model.eval()(**inputs).logits[:, 0].tolist()

asked, said = [], []


def heard(prompts, completions, **_):
    asked.extend(each[-1]["content"] for each in prompts)
    said.extend(each[-1]["content"] for each in completions)
    return [0.0] * len(prompts)


rollouts = GRPOConfig(
    **QUIET, model_init_kwargs=dict(kept), max_steps=1, num_generations=2, per_device_train_batch_size=4,
    max_completion_length=6, logging_steps=1, save_strategy="no", temperature=1.0,
)  # fmt: skip
grpo = GRPOTrainer(
    model=POLICY,
    reward_funcs=[REWARD, heard],
    args=rollouts,
    train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
)
grpo.train()
(name,) = (each for each in grpo.reward_func_names if each != "heard")
logged = next(row for row in grpo.state.log_history if f"rewards/{name}/mean" in row)
mean = logged[f"rewards/{name}/mean"]
print(json.dumps({"scores": scores, "asked": asked, "said": said, "mean": mean, "ours": "triphase" in sys.modules}))
