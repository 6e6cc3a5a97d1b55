"""Time to quality: the minutes that our PPO and TRL 1.12's need to bring held-out gold to the same height.

    python -m benchmarks.quality --peer PATH_TO_PEER_PYTHON --run RUN_DIR [--seeds 0,1,2] [--plot FILE.svg]

`PATH_TO_PEER_PYTHON` is the Python of an environment with trl==1.12.0, peft and the same torch; `RUN_DIR` a finished
run of `triphase demo`, which is only read. Both sides start from its SFT adapter, are paid by its reward model, see the
same prompts in the same order, and have its PPO settings; docs/performance.md has what differs. Each side runs in a
process of its own and keeps its policy after every iteration; one judge, ours, then samples every policy on the run's
held-out prompts. The clock counts iterations alone: opening models, keeping policies and judging are left out.

A seed's target is, unless `--target` is given, 90 % of the way from the SFT policy's gold to the lower of the two
sides' best; gold is smoothed over three evaluations. Where a side never arrives, the ratio is a bound and says so.
Every result lies in `--out` as soon as it is there: the same command goes on where it was stopped, and `--only-plot`
tells and draws again what is there. Prints tables and, last, one JSON line.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from benchmarks.held_out import HeldOut
from benchmarks.quality_report import report
from benchmarks.sides import HERE, Row, run_side
from triphase.demo.embedded import PREFIX, model_directory
from triphase.errors import TriphaseError
from triphase.models.loading import choose_device, choose_dtype
from triphase.models.products import has_bfloat16
from triphase.phases.episodes import prompts_of
from triphase.records.files import read_json_lines
from triphase.settings.schema import RunSettings
from triphase.tokens.encoding import Encoded, encode_prompt

CHECKED = 12
"""Samples on which the reward model of both sides is compared."""


def main() -> None:
    """Measure, print, draw."""
    options = _parser().parse_args()
    try:
        if not options.only_plot:
            _measure(options)
        found = report(options.out, _seeds(options.seeds), target=options.target, plot=options.plot)
    except TriphaseError as error:
        sys.exit(str(error))
    print(json.dumps(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the peer's Python")
    parser.add_argument("--run", type=Path, help="a finished run of the demo")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--iterations", type=int, help="ours; the run's by default")
    parser.add_argument("--peer-iterations", type=int, help="the peer's; as ours by default")
    parser.add_argument("--stop-after", type=int, help="end each run early, its learning rate's schedule as it was")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="ours; the run's by default")
    parser.add_argument(
        "--peer-dtypes", help="comma list; by default float32 and, where there are instructions, bfloat16"
    )
    parser.add_argument("--peer-learning-rate", type=float, help="the run's by default")
    parser.add_argument("--samples", type=int, default=2, help="of each held-out prompt")
    parser.add_argument("--every", type=int, default=1, help="judge every so many iterations' policy, and the last")
    parser.add_argument("--target", type=float, help="the gold to be reached")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"), help="where the results lie")
    parser.add_argument("--plot", type=Path, help="draw gold against minutes here (.svg or .png)")
    parser.add_argument("--only-plot", action="store_true", help="measure nothing: tell and draw what --out has")
    return parser


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _measure(options: argparse.Namespace) -> None:
    if options.peer is None or options.run is None:
        sys.exit("--peer and --run are needed, unless --only-plot is given")
    judge = HeldOut(options.run, count=options.samples)
    settings = judge.run.settings
    torch.set_num_threads(settings.threads or len(os.sched_getaffinity(0)))
    dtypes = _dtypes(options, settings)
    key = {"run": str(options.run.resolve()), "samples": options.samples}
    options.out.mkdir(parents=True, exist_ok=True)
    _kept(options.out / "sft.json", key, lambda: judge.judge(None))
    for seed in _seeds(options.seeds):
        cases = [("triphase", dtypes[0], our_job(options, judge, seed, dtypes[0]))]
        cases += [("trl", dtype, peer_job(options, judge, seed, dtype)) for dtype in dtypes[1:]]
        for side, dtype, job in cases:
            directory = options.out / f"{side}-{dtype}-seed{seed}"
            directory.mkdir(exist_ok=True)
            command = [sys.executable, "-m", "benchmarks.ours_quality"]
            if side == "trl":
                command = [options.peer, str(HERE / "peer_quality.py")]
            result = _kept(directory / "result.json", job, lambda: _run(command, directory, job))  # noqa: B023
            checks = _checks(judge, directory, job, result)
            _judge(judge, directory, result, key | {"every": options.every}, checks)


def _dtypes(options: argparse.Namespace, settings: RunSettings) -> list[str]:
    """Our dtype, then those of the peer."""
    ours = options.dtype or str(choose_dtype(settings.model.dtype, choose_device("cpu"))).removeprefix("torch.")
    theirs = options.peer_dtypes or ("float32,bfloat16" if has_bfloat16("cpu") else "float32")
    return [ours, *theirs.split(",")]


def our_job(options: argparse.Namespace, judge: HeldOut, seed: int, dtype: str) -> Row:
    """What our side is told."""
    iterations = options.iterations or judge.run.settings.ppo.iterations
    done = min(iterations, options.stop_after or iterations)
    return {
        "run": str(options.run.resolve()),
        "seed": seed,
        "dtype": dtype,
        "iterations": iterations,
        "stop_after": done,
    }


def peer_job(options: argparse.Namespace, judge: HeldOut, seed: int, dtype: str) -> Row:
    """What the peer is told: where the models are, its settings, our prompts in our order, samples to compare on."""
    run, settings, template = judge.run, judge.run.settings, judge.shared.template
    iterations = options.peer_iterations or options.iterations or settings.ppo.iterations
    base = settings.model.name
    limit, room = settings.model.max_length, settings.ppo.max_response_tokens
    prompts = [encode_prompt(each, template, room=room, max_length=limit) for each in run.prompts("train")]
    order = [prompts_of(len(prompts), settings.ppo, seed=seed, iteration=step) for step in range(iterations)]
    samples = checked_samples(judge)
    return {
        "base": str(model_directory(base)) if base.startswith(PREFIX) else base,
        "sft": str(run.artifact("sft").resolve()),
        "reward": str(run.artifact("reward").resolve()),
        "score_bias": judge.shared.score_head.linear.bias.detach().item(),
        "end_id": template.end_id,
        "pad_id": template.pad_id,
        "seed": seed,
        "dtype": dtype,
        "threads": settings.threads,
        "iterations": iterations,
        "stop_after": min(iterations, options.stop_after or iterations),
        "settings": peer_settings(settings, options.peer_learning_rate),
        "prompts": [prompts[number] for numbers in order for number in numbers],
        "samples": [(sample.prompt, sample.response) for sample in samples],
    }


def peer_settings(settings: RunSettings, learning_rate: float | None) -> dict[str, Any]:
    """A run's PPO settings under the peer's names.

    Its accelerator steps once in `gradient_accumulation_steps` microbatches, whatever the minibatch; with 1 of them,
    a microbatch is a minibatch and there are as many optimizer steps as ours.
    """
    ppo, optimizer = settings.ppo, settings.ppo.optimizer
    return {
        "per_device_train_batch_size": ppo.batch_size,
        "num_mini_batches": ppo.batch_size // ppo.minibatch_size,
        "num_ppo_epochs": ppo.epochs,
        "response_length": ppo.max_response_tokens,
        "temperature": ppo.temperature,
        "kl_coef": ppo.kl_coefficient,
        "kl_estimator": "k1",
        "gamma": ppo.discount,
        "lam": ppo.gae_lambda,
        "cliprange": ppo.clip_range,
        "cliprange_value": ppo.value_clip_range,
        "vf_coef": ppo.value_coefficient,
        "missing_eos_penalty": ppo.missing_eos_penalty,
        "whiten_rewards": ppo.rescale_token_rewards,
        "learning_rate": learning_rate or optimizer.learning_rate,
        "lr_scheduler_type": optimizer.schedule,
        "adam_beta1": optimizer.adam_betas[0],
        "adam_beta2": optimizer.adam_betas[1],
        "adam_epsilon": optimizer.adam_epsilon,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_gradient_norm,
    }


def checked_samples(judge: HeldOut) -> list[Encoded]:
    """Some of the run's own evaluated answers, of its SFT and its PPO policy, with and without their end."""
    prompts = {prompt.id: prompt for prompt in judge.run.prompts("heldout")}
    rows = read_json_lines(judge.run.part("evaluation", "samples.jsonl"))
    template, chosen = judge.shared.template, rows[:: max(1, len(rows) // CHECKED)][:CHECKED]
    return [
        Encoded(
            tuple(template.prompt_ids(prompts[row["prompt_id"]].messages)),
            tuple(template.response_ids(row["response"], finished=row["finished"])),
        )
        for row in chosen
    ]


def _run(command: list[str], directory: Path, job: Row) -> Row:
    print(f"running {directory.name}", file=sys.stderr, flush=True)
    (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")
    return run_side([*command, str(directory / "job.json")])


def _checks(judge: HeldOut, directory: Path, job: Row, result: Row) -> dict[str, float]:
    """How far the peer's rewards and last policy are from what our code makes of the same tensors."""
    if "samples" not in job:
        return {}
    ours = judge.scores([Encoded(tuple(prompt), tuple(response)) for prompt, response in job["samples"]])
    theirs = load((directory / "probe.safetensors").read_bytes())["logits"]
    last = _policy(directory, job["stop_after"])
    logits = judge.logits(last, [list(ids) for ids in job["prompts"][: len(theirs)]])
    checks = {
        "score_difference": max(abs(a - b) for a, b in zip(ours, result["scores"], strict=True)),
        "logit_difference": float((logits - theirs).abs().max()),
    }
    print(f"{directory.name}: {checks}", file=sys.stderr, flush=True)
    return checks


def _judge(judge: HeldOut, directory: Path, result: Row, key: Row, checks: Row) -> None:
    """Judge the policies that have not been judged; the file is written after each."""
    path = directory / "judged.json"
    wanted = [row for row in result["rows"] if row["iteration"] % key["every"] == 0 or row is result["rows"][-1]]
    for number in range(len(wanted)):
        row = wanted[number]
        figures = _kept(
            directory / f"judged-{row['iteration']:04}.json",
            {name: key[name] for name in ("run", "samples")},
            lambda row=row: judge.judge(_policy(directory, row["iteration"])),
        )
        wanted[number] = row | {"minutes": row["seconds"] / 60, "heldout": figures}
        print(f"{directory.name} {row['iteration']}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    _write(path, {"peak_gb": result["peak_gb"], "checks": checks, "rows": wanted})


def _policy(directory: Path, iteration: int) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load((directory / f"policy-{iteration:04}.safetensors").read_bytes())
    return found


def _kept(path: Path, key: Row, make: Any) -> Row:
    """What lies at ``path``, made and written where it is not there yet; made for another ``key``, it ends here."""
    key = json.loads(json.dumps(key))
    if not path.exists():
        _write(path, {"key": key, "found": make()})
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["key"] != key:
        differ = sorted(name for name in {*key, *content["key"]} if key.get(name) != content["key"].get(name))
        sys.exit(f"{path} was made with other settings ({', '.join(differ)}); name another --out, or remove it")
    found: Row = content["found"]
    return found


def _write(path: Path, content: Row) -> None:
    """In one piece: a file that is there is whole."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(content, file)
    Path(file.name).replace(path)


if __name__ == "__main__":
    main()
