"""The other side of `benchmarks.quality`: TRL 1.12, its last release with PPO. Run by the peer's Python alone.

    peer_quality.py JOB.json

Writes the policy after every iteration into the job's directory and prints one JSON line. The clock runs inside the
iterations alone: opening the models and writing policies are left out.

The policy and its reference are adapters of one base, both read from the run's SFT adapter; the reward model is the
base with the run's reward adapter merged, and its score keeps our head's offset. The critic is a second full model that
starts as the reward model and is trained whole, as the library does. Gradient checkpointing is off, its faster setting.
"""

import copy
import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

PROBED = 4
"""Prompts whose logits are kept with the last policy, so that whoever evaluates it can check that it is the same."""


class Enough(Exception):
    """As many iterations as the job asks for are done; the library itself would go on to the schedule's end."""


def main() -> None:
    """Train and print."""
    import torch
    from transformers import set_seed

    directory = Path(sys.argv[1]).parent
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"] or len(os.sched_getaffinity(0)))
    set_seed(job["seed"])
    tokenizer = tokenizer_of(job)
    reward = reward_model(job)
    scores = scores_of(reward, job)
    trainer = trainer_of(job, tokenizer, reward)
    clock = clock_of(trainer, directory, job["stop_after"])
    with suppress(Enough):
        trainer.train()
    probe(trainer, job, directory)
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    print(json.dumps({"what": "trl-1.12 ppo", "rows": clock.rows, "scores": scores, "peak_gb": peak}))


def tokenizer_of(job):
    """The run's tokenizer, padded on the left, with the end that our responses have as its end of sequence."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["sft"], padding_side="left")
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(job["end_id"])
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(job["pad_id"])
    assert tokenizer.eos_token_id == job["end_id"] != tokenizer.pad_token_id == job["pad_id"]
    return tokenizer


def reward_model(job):
    """The base with the reward adapter merged in float32, then rounded to the job's dtype."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(job["base"], num_labels=1, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, job["reward"]).merge_and_unload()
    head = torch.nn.Linear(merged.score.in_features, 1)
    with torch.no_grad():
        head.weight.copy_(merged.score.weight)
        head.bias.fill_(job["score_bias"])
    merged.score = head
    return merged.to(getattr(torch, job["dtype"])).eval().requires_grad_(False)


def policy_model(job):
    """The base with two adapters that both are the run's SFT adapter: "default", to be trained, and "reference"."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(job["base"], dtype=getattr(torch, job["dtype"]))
    base.generation_config.pad_token_id = job["pad_id"]
    policy = PeftModel.from_pretrained(base, job["sft"], is_trainable=True)
    policy.load_adapter(job["sft"], adapter_name="reference")
    policy.set_adapter("default")
    return policy


def scores_of(reward, job):
    """What the library reads as the reward of each sample, one at a time, as it would stand in a rollout."""
    import torch
    from trl.experimental.utils import get_reward

    found = []
    with torch.no_grad():
        for prompt, response in job["samples"]:
            ids = torch.tensor([prompt + response + [job["pad_id"]]])
            found.append(float(get_reward(reward, ids, job["pad_id"], len(prompt))[1]))
    return found


def trainer_of(job, tokenizer, reward):
    """The library's trainer, on the job's prompts in the job's order."""
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    data = Dataset.from_dict({"input_ids": job["prompts"]})
    batch = job["settings"]["per_device_train_batch_size"]
    config = PPOConfig(
        output_dir=str(Path(sys.argv[1]).parent / "trainer"),
        total_episodes=batch * job["iterations"],
        local_rollout_forward_batch_size=batch,
        gradient_accumulation_steps=1,
        stop_token="eos",  # noqa: S106 - no password
        model_adapter_name="default",
        ref_adapter_name="reference",
        num_sample_generations=0,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        logging_steps=1,
        gradient_checkpointing=False,
        seed=job["seed"],
        **job["settings"],
    )
    policy = policy_model(job)
    # The trainer asks the wrapped model for these, and sets the end there.
    policy.generation_config = policy.base_model.model.generation_config
    critic = copy.deepcopy(reward).requires_grad_(True)
    trainer = PPOTrainer(config, tokenizer, policy, None, reward, data, critic, eval_dataset=data.select(range(4)))
    # The library would shuffle the prompts in an order of its own.
    loader = DataLoader(data, batch_size=batch, collate_fn=trainer.data_collator)
    trainer.dataloader = trainer.accelerator.prepare(loader)
    return trainer


def clock_of(trainer, directory, stop_after):
    """A callback that times the iterations, and keeps each policy while its clock stands still."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self):
            self.rows, self.seconds, self.metrics = [], 0.0, {}

        def on_train_begin(self, *arguments, **options):
            self.start = time.perf_counter()

        def on_log(self, args, state, control, logs=None, **options):
            self.metrics = dict(logs)

        def on_step_end(self, args, state, control, **options):
            self.seconds += time.perf_counter() - self.start
            save_policy(trainer, directory / f"policy-{state.global_step:04}.safetensors")
            row = {"iteration": state.global_step, "seconds": round(self.seconds, 3)}
            row |= {"score": self.metrics["objective/scores"], "kl": self.metrics["objective/kl"]}
            self.rows.append(row | {"ends": self.metrics["val/num_eos_tokens"]})
            print(json.dumps(row), flush=True)
            if len(self.rows) == stop_after:
                raise Enough
            self.start = time.perf_counter()

    clock = Clock()
    trainer.add_callback(clock)
    return clock


def save_policy(trainer, path):
    """Write the adapter under the names of peft's files."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(trainer.model.policy, adapter_name="default")
    save_file({name: value.detach().float().contiguous() for name, value in state.items()}, path)


def probe(trainer, job, directory):
    """Write the last policy's logits after the first prompts, padded as in a rollout."""
    import torch
    from safetensors.torch import save_file
    from trl.experimental.ppo.ppo_trainer import forward

    rows = trainer.processing_class.pad({"input_ids": job["prompts"][:PROBED]}, return_tensors="pt")
    with torch.no_grad():
        logits = forward(trainer.model.policy, rows["input_ids"], job["pad_id"]).logits[:, -1]
    save_file({"logits": logits.float().contiguous()}, directory / "probe.safetensors")


if __name__ == "__main__":
    main()
