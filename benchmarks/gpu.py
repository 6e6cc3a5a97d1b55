"""Speed and memory on one CUDA device, on random weights of the shapes of Llama 1B, 3B and 8B in bfloat16.

    python -m benchmarks.gpu [--shapes 1b,3b,8b] [--layers third,all] [--seconds 400] [--json FILE]
    python -m benchmarks.gpu --tiny          the same on a tiny shape, on any device
    python -m benchmarks.gpu --peer PATH     beside TRL 1.12's PPO: a directory with its packages, or a Python

Measured are the card's rate of products and its memory bandwidth; tokens per second of supervised fine-tuning, pairs a
second of the reward model, new tokens per second of generation at batches of 8, 64 and 256, and an iteration of PPO
(64 episodes of 128 + 128 tokens, two epochs). Each stands beside its floor: the operations that it must do, counted in
the same run, at the measured rate, or for generation the bytes that each step must read at the measured bandwidth. The
floor of generation leaves out the reading of prompts; that of PPO the bytes that the steps of its generation read, and
the trunk's pass over the responses, which sampling without a graph makes unnecessary. The first call of generation,
which captures its step, is named apart, and one batch is written kernel by kernel too. Prints one table and, last, one
JSON line. What would not end within ``--seconds``, by what the same part took of a smaller shape, is left out, and
named. ``--quantization`` keeps the base in 8 or 4 bits.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks.full_responses import write_in_full
from benchmarks.gpu_peer import PEER, existing, peer_row
from triphase.footprints.cost import CostModel
from triphase.footprints.work import Work
from triphase.footprints.workload import Lengths, Workload
from triphase.models.loading import LoadedModel
from triphase.models.quantization import quantize
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.models.tracing import Meter
from triphase.monitoring.memory import available_gb
from triphase.phases.ppo import PPOPhase
from triphase.phases.ppo_footprint import ppo_footprint
from triphase.phases.reward import RewardPhase
from triphase.phases.sft import SupervisedPhase
from triphase.planning.passes import sized
from triphase.records.types import Message, Pair, Prompt
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.types import Request
from triphase.settings.phases import RewardSettings, SupervisedSettings
from triphase.settings.ppo import PPOSettings
from triphase.settings.schema import AdapterSettings, RunSettings
from triphase.tokens.encoding import Encoded, EncodedGroup

# hidden size, inner size, layers, heads, key heads, vocabulary, tied embeddings
SHAPES = {
    "tiny": (64, 128, 4, 4, 2, 512, True),
    "1b": (2048, 8192, 16, 32, 8, 128256, True),
    "3b": (3072, 8192, 28, 24, 8, 128256, True),
    "8b": (4096, 14336, 32, 32, 8, 128256, False),
}
Row = dict[str, Any]


def main() -> None:
    """Measure, print the table and the JSON line."""
    options = _options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = time.perf_counter()
    card = {"name": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "torch": torch.__version__}
    card |= {"tflops": float(f"{_rate(device) / 1e12:.3g}"), "gb_per_second": round(_bandwidth(device) / 1e9)}
    rows: list[Row] = []
    left_out: list[str] = []
    budget = Budget(start + options.seconds)
    for shape in options.shapes.split(","):
        for layers in options.layers.split(","):
            parts = {"ppo": _ppo} if layers == "all" else {"generation": _generation, "ppo": _ppo}
            parts |= {PEER: partial(_peer, rows, budget, (shape, layers))} if options.peer else {}
            parts |= {"sft": _sft, "reward": _reward}
            model = cache(partial(_shared, shape, layers, device, options.quantization))  # opened for the first part
            for name, part in parts.items():
                if not budget.allows(name, layers, shape):
                    left_out.append(f"{shape} {layers} {name}")
                    continue
                with budget.spending(name, layers, shape):
                    for row in _guarded(part, model, card, options):
                        rows.append({"shape": shape, "layers": layers, "what": name, **row})
                        print(_shown(rows[-1]), file=sys.stderr, flush=True)
            del model
            _empty(device)
    print(f"{card['name']}: {card['tflops']} TFLOP/s in bfloat16, {card['gb_per_second']} GB/s")
    for row in rows:
        print(_shown(row))
    if left_out:
        print(f"left out after {options.seconds} s: {', '.join(left_out)}")
    told = {"card": card, "commit": _commit(), "quantization": options.quantization}
    line = json.dumps({**told, "rows": rows, "left_out": left_out})
    if options.json:
        options.json.write_text(line + "\n")
    print(line)


class Budget:
    """Which parts still end in time: one takes as long as of a smaller shape, times their sizes."""

    def __init__(self, end: float) -> None:
        self._end = end
        self._seconds: dict[tuple[str, str], float] = {}  # for each weight of the layers

    @property
    def left(self) -> float:
        """The seconds until its end."""
        return self._end - time.perf_counter()

    def allows(self, part: str, layers: str, shape: str) -> bool:
        """Whether it would end in time; what was never timed needs only to begin in time."""
        expected = self._seconds.get((part, layers), 0.0) * _weights(shape)
        return expected < self.left

    @contextmanager
    def spending(self, part: str, layers: str, shape: str) -> Iterator[None]:
        """Time a part."""
        begun = time.perf_counter()
        yield
        self._seconds[part, layers] = (time.perf_counter() - begun) / _weights(shape)


def _weights(shape: str) -> float:
    hidden, inner, depth, heads, key_heads, *_ = SHAPES[shape]
    return float(depth * hidden * (2 * hidden + 2 * hidden * key_heads // heads + 3 * inner))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="1b,3b,8b")
    parser.add_argument("--layers", default="third,all", help="adapted layers: the top third, or all")
    parser.add_argument("--batches", default="8,64,256", help="of generation")
    parser.add_argument(
        "--microbatch-tokens", default="4096,auto", help="of PPO, with commas; auto is what fits the plan"
    )
    parser.add_argument("--seconds", type=float, default=400, help="what would end later is left out")
    parser.add_argument("--quantization", choices=["int8", "nf4"], help="keep the base in few bits")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, for a try on any device")
    parser.add_argument("--peer", type=existing, help="a directory with trl==1.12.0 and what it needs, or a Python")
    parser.add_argument("--json", type=Path, help="where the JSON line is written too")
    options = parser.parse_args()
    if options.tiny:
        options.shapes, options.batches, options.microbatch_tokens = "tiny", "4", "64,auto"
    return options


def _shown(row: Row) -> str:
    place = f"{row['shape']:5} {row['layers']:6} {row['what']:11}"
    if "error" in row:
        return f"{place} {row['error']}"
    parts = " ".join(f"{name} {value:.2f} s" for name, value in row.get("parts", {}).items())
    planned = f" (planned {row['planned_gb']:.1f})" if "planned_gb" in row else ""
    share = f"{row['floor_share']:5.0%} of the floor" if "floor_share" in row else " " * 18
    if "times_slower" in row:
        share = f"{row['times_slower']:5.1f} times ours   "
    return f"{place} {row['value']:10.1f} {row['unit']:42} {share}  peak {row['peak_gb']:6.1f} GB{planned}  {parts}"


def _guarded(
    part: Callable[..., Iterable[Row]], model: Callable[[], SharedModel], card: Row, options: argparse.Namespace
) -> Iterator[Row]:
    """The rows of a part; if it fails, or its model does not fit, a row that says so: the others are still printed."""
    try:
        yield from part(model(), card, options)
    except Exception as error:  # whatever it is: the minutes on a card are not lost
        traceback.print_exc()
        traceback.clear_frames(error.__traceback__)  # releases the tensors that they hold
        told = (str(error).splitlines() or [""])[0] or type(error).__name__
    else:
        return
    _empty(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    yield {"error": told[:160]}


@contextmanager
def _kernel_by_kernel(shared: SharedModel) -> Iterator[None]:
    """Generation without a captured step."""
    before, shared.loaded = shared.loaded, replace(shared.loaded, capture_decoding="off")
    try:
        yield
    finally:
        shared.loaded = before


def _empty(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0


def _timed(device: torch.device, work: Callable[[], object], times: int = 1) -> float:
    """Seconds of ``work``, the best of several."""
    best = float("inf")
    for _ in range(times):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _rate(device: torch.device) -> float:
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.ones(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    _timed(device, lambda: a @ b, 3)
    return 2.0 * size**3 * 10 / _timed(device, lambda: [a @ b for _ in range(10)], 3)


def _bandwidth(device: torch.device) -> float:
    """Bytes a second that are read."""
    source = torch.ones(1 << (30 if device.type == "cuda" else 24), dtype=torch.float32, device=device)
    _timed(device, source.sum, 3)
    return source.nbytes / _timed(device, source.sum, 3)


def _shared(shape: str, layers: str, device: torch.device, quantization: str | None = None) -> SharedModel:
    hidden, inner, depth, heads, key_heads, vocabulary, tied = SHAPES[shape]
    config = AutoConfig.for_model(
        "llama",
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.eval().requires_grad_(False)
    if quantization is not None:
        quantize(model, quantization)
    words = {"<pad>": 0, "<end>": 1, **{f"w{number}": number for number in range(2, vocabulary)}}
    plain = Tokenizer(models.WordLevel(words, unk_token=next(iter(words))))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<end>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }} <end> {% endfor %}"
    adapted = "all" if layers == "all" else max(1, depth // 3)
    shared = SharedModel(
        LoadedModel(model, tokenizer, shape), AdapterSettings.model_validate({"layers": adapted, "rank": 16}), seed=0
    )
    for name in (REFERENCE, REWARD):
        shared.adapters.add(name)
    write_in_full(shared)
    return shared


def _ids(count: int, seed: int, shared: SharedModel) -> tuple[int, ...]:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(2, len(shared.backbone.head_weight), (count,), generator=draw).tolist())


def _sizes(shared: SharedModel) -> tuple[int, int, int]:
    """Episodes, prompt and response tokens."""
    return (64, 128, 128) if shared.device.type == "cuda" else (4, 16, 16)


def _against_floor(work: Callable[[], object], seconds: float, card: Row) -> float:
    """The share of ``seconds`` that the operations of ``work`` take at the card's rate of large products."""
    with Meter() as meter:
        work()
    return meter.flops / (card["tflops"] * 1e12) / seconds


def _sft(shared: SharedModel, card: Row, options: argparse.Namespace) -> list[Row]:
    episodes, prompt, response = _sizes(shared)
    samples = [Encoded(_ids(prompt, n, shared), _ids(response, n + 999, shared)) for n in range(episodes)]
    settings = SupervisedSettings(batch_size=episodes, epochs=4)
    _empty(shared.device)
    phase = SupervisedPhase(shared, samples, [*range(episodes)] * 4, [], settings)
    phase.advance(0)
    seconds = _timed(shared.device, lambda: phase.advance(1))
    peak = _peak(shared.device)
    tokens = episodes * (prompt + response)
    share = _against_floor(lambda: phase.advance(2), seconds, card)
    shared.adapters.train_only(None)
    return [{"value": tokens / seconds, "unit": "tokens/s", "floor_share": share, "peak_gb": peak}]


def _reward(shared: SharedModel, card: Row, options: argparse.Namespace) -> list[Row]:
    episodes, prompt, response = _sizes(shared)
    groups = [
        EncodedGroup(_ids(prompt, n, shared), (_ids(response, n + 99, shared), _ids(response, n + 999, shared)))
        for n in range(episodes)
    ]
    pairs = [[Pair(0, 1, 1.0)] for _ in groups]
    _empty(shared.device)
    phase = RewardPhase(shared, groups, pairs, [], [], RewardSettings(batch_size=episodes, epochs=4), seed=0)
    phase.advance(0)
    seconds = _timed(shared.device, lambda: phase.advance(1))
    peak = _peak(shared.device)
    share = _against_floor(lambda: phase.advance(2), seconds, card)
    shared.adapters.train_only(None)
    return [{"value": episodes / seconds, "unit": "pairs/s", "floor_share": share, "peak_gb": peak}]


def _generation(shared: SharedModel, card: Row, options: argparse.Namespace) -> Iterator[Row]:
    _, prompt, response = _sizes(shared)
    backbone = shared.backbone
    weights = sum(value.nbytes for value in backbone.base_tensors().values())
    config = backbone.model.config
    if not config.tie_word_embeddings:  # of the embedding a step reads the rows of its tokens alone
        weights -= backbone.model.get_input_embeddings().weight.nbytes
    batches = [int(each) for each in options.batches.split(",")]
    for batch, is_plain in [*((batch, False) for batch in batches), (batches[len(batches) // 2], True)]:
        _empty(shared.device)
        generator = LocalGenerator(shared, adapter=REFERENCE, batch_size=batch)

        def write(count: int, generator: LocalGenerator = generator, batch: int = batch) -> None:
            requests = [Request(_ids(prompt, n, shared), n) for n in range(batch)]
            generator.generate(requests, temperature=1.0, max_response_tokens=count)

        with _kernel_by_kernel(shared) if is_plain else nullcontext():
            first = _timed(shared.device, lambda: write(response))
            seconds = _timed(shared.device, lambda: write(response))
        cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2
        read = response * (weights + batch * cache * (prompt + response / 2))
        floor = read / (card["gb_per_second"] * 1e9)
        yield {
            "value": batch * response / seconds,
            "unit": f"new tokens/s, batch {batch}" + (", kernel by kernel" if is_plain else ""),
            "floor_share": floor / seconds,
            "peak_gb": _peak(shared.device),
            "parts": {"first call": first, "later": seconds},
        }
        generator.release()  # what it keeps would count in the peak of the next


def _ppo(shared: SharedModel, card: Row, options: argparse.Namespace) -> Iterator[Row]:
    for most in options.microbatch_tokens.split(","):
        yield _ppo_at(shared, card, options, most)


def _ppo_at(shared: SharedModel, card: Row, options: argparse.Namespace, most: str) -> Row:
    episodes, prompt, response = _sizes(shared)
    settings = PPOSettings(
        iterations=4,
        batch_size=episodes,
        minibatch_size=episodes // 2,
        epochs=2,
        max_response_tokens=response,
        max_approximate_kl=None,
        microbatch_tokens="auto" if most == "auto" else int(most),
    )
    _empty(shared.device)
    cost = _cost(shared, settings, options.quantization)
    settings = cost.settings.ppo
    phase = PPOPhase(
        shared,
        [Prompt(str(number), (Message("user", "w5"),)) for number in range(episodes)],
        [_ids(prompt, number, shared) for number in range(episodes)],
        LocalGenerator(shared, adapter=POLICY, batch_size=episodes),
        settings,
        seed=0,
    )
    phase.advance(0)
    found: dict[str, float] = {}
    seconds = _timed(shared.device, lambda: found.update(phase.advance(1)))
    peak = _peak(shared.device)
    with _kernel_by_kernel(shared):  # the operations of a captured step cannot be counted
        share = _against_floor(lambda: phase.advance(2), seconds, card)
    shared.adapters.train_only(None)
    return {
        "value": seconds,
        "unit": f"s per iteration, {settings.microbatch_tokens}" + (" (auto)" if most == "auto" else ""),
        "floor_share": share,
        "peak_gb": peak,
        "planned_gb": ppo_footprint(cost, None).peak.total / 1e9,
        "parts": {name: found[f"ppo/seconds_{name}"] for name in ("generation", "scoring", "update")},
    }


def _peer(
    rows: list[Row],
    budget: Budget,
    place: tuple[str, str],
    shared: SharedModel,
    card: Row,
    options: argparse.Namespace,
) -> list[Row]:
    """The peer's iteration, beside ours of the same shape and layers."""
    ours = [row for row in rows if (row["shape"], row["layers"], row["what"]) == (*place, "ppo")]
    _empty(shared.device)
    return [peer_row(shared, options.peer, _sizes(shared), ours, seconds=budget.left)]


def _cost(shared: SharedModel, ppo: PPOSettings, quantization: str | None) -> CostModel:
    """What `triphase plan` plans the same iteration with, on a process that itself holds nothing on the card."""
    episodes, prompt, _ = _sizes(shared)
    settings = RunSettings.model_validate({"name": "gpu", "model": {"name": "x"}, "data": {}}).model_copy(
        update={"ppo": ppo, "adapters": shared.adapter_settings}
    )
    backbone = shared.backbone
    work = Work(
        backbone.model.config,
        backbone.dtype,
        shared.adapter_settings,
        recompute=False,
        trusted=False,
        quantization=quantization,
        on_card=shared.device.type == "cuda",
    )
    prompts, none = Lengths([(prompt,)] * episodes, episodes), Lengths()
    cost = CostModel(settings, work, Workload(none, none, 0, prompts, none, none), process_bytes=0.0)
    on_card = shared.device.type == "cuda"
    allowed = torch.cuda.mem_get_info()[1] if on_card else 1e9 * (available_gb() or 0.0)
    cost.settings, _ = sized(cost, allowed, on_card=on_card)
    return cost


def _commit() -> str:
    asked = ["git", "describe", "--always", "--dirty", "--exclude=*"]  # -dirty: with changes that the commit lacks
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
