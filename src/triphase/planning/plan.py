"""The plan of a run: what each phase will need, from configuration and tokenizer alone. No weight is read."""

import logging
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from triphase.batches.order import permutation
from triphase.datacheck.agenda import todo
from triphase.datacheck.examiner import Examiner
from triphase.datacheck.model_names import place_of
from triphase.datacheck.run_data import RunData
from triphase.errors import ModelError, TriphaseError, first_line_of
from triphase.footprints.cost import CostModel
from triphase.footprints.moments import PARTS, Footprint
from triphase.footprints.server_memory import server_bytes, server_notes
from triphase.footprints.work import Work
from triphase.footprints.workload import Lengths, Workload
from triphase.models.chain import chain_of
from triphase.models.loading import choose_device, choose_dtype, require_card
from triphase.models.pretrained import open_config, open_tokenizer
from triphase.monitoring.memory import available_gb, give_back, resident_bytes
from triphase.planning.every_phase import footprints_of
from triphase.planning.passes import asks, sized
from triphase.planning.rates import Rates, measure_rates
from triphase.planning.remedies import remedies_of
from triphase.planning.warm_up import load_code
from triphase.records.types import Comparison, Prompt
from triphase.settings.phase_names import section_of
from triphase.settings.schema import ModelSettings, RunSettings
from triphase.tokens.template import Template

FILE_NAME = "plan.json"
_SAMPLED = 2000
_WORK: dict[Hashable, Work] = {}
_MOST_WORK = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """The result.

    Attributes:
        phases: footprints in the order of the run.
        weights: (part, dtype, numbers, bytes per number, bytes) of the parameters.
        allowed: bytes that this process may use.
        rates: of this machine.
        notes: choices of the plan itself (`microbatch_tokens: auto`).
    """

    phases: list[Footprint]
    weights: list[tuple[str, str, float, float, float]]
    allowed: float
    rates: Rates
    notes: tuple[str, ...] = ()

    def seconds(self, phase: Footprint) -> float:
        """The estimated time of a phase."""
        return self.rates.seconds(phase.flops)

    @property
    def parts(self) -> list[str]:
        """The parts that some phase has at its peak."""
        return [part for part in PARTS if any(phase.peak.parts.get(part) for phase in self.phases)]

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values: the peak of each phase by part, what to lower, and the parameters."""
        return {
            "allowed_bytes": self.allowed,
            "notes": list(self.notes),
            "phases": {
                found.phase: {
                    **found.at_peak(),
                    "flops": found.flops,
                    "seconds": self.seconds(found),
                }
                for found in self.phases
            },
            "parameters": [
                {"part": part, "dtype": dtype, "numbers": numbers, "bytes_each": each, "bytes": total}
                for part, dtype, numbers, each, total in self.weights
            ],
        }


def make_plan(settings: RunSettings, process_bytes: float | None = None) -> Plan:
    """Plan a run; ``process_bytes`` is the memory of its process before any model, measured here by default.

    Raises:
        ModelError: configuration or tokenizer cannot be opened, or the layers cannot be adapted or traced.
        DataError: a record cannot be read, or is too long.
    """
    require_card(settings.model)
    config, tokenizer, dtype, device = _opened_for(settings)
    load = workload(settings, Template.of(tokenizer, settings.model))
    if process_bytes is None:
        _warm_up(config, dtype)
        give_back()
        process_bytes = float(resident_bytes())
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    rates = measure_rates(config, dtype, device, rows=settings.sampling.batch_size)
    with traceable(settings):
        cost, allowed, notes = _sized_cost(settings, load, config, dtype, device, process_bytes)
        planned = footprints_of(cost)
    wanted, settings = todo(settings), cost.settings
    phases = [each for each in planned if section_of(each.phase) in wanted]
    for found in phases:
        found.remedies = remedies_of(found, settings, adapted_layers=cost.work.adapted_layers)
    return Plan(phases, _weights(settings, cost.work), allowed, rates, tuple(notes))


def sized_settings(
    settings: RunSettings, process_bytes: float | None, dtype: Any = None
) -> tuple[RunSettings, list[str]]:
    """The settings with a size that fits in place of each `microbatch_tokens: auto`, and a line about each.

    ``dtype`` is the base's, if it is open. What cannot be planned stays unchanged, which means a suitable value for the
    machine; the line says so.
    """
    if not asks(settings):
        return settings, []
    try:
        config, tokenizer, chosen, device = _opened_for(settings)
        load, process = workload(settings, Template.of(tokenizer, settings.model)), process_bytes or resident_bytes()
        with traceable(settings):
            cost, _, lines = _sized_cost(settings, load, config, dtype or chosen, device, float(process))
    except TriphaseError as error:
        return settings, [f"microbatch_tokens: auto is treated as null, because planning failed: {error}"]
    return cost.settings, lines


def _opened_for(settings: RunSettings) -> tuple[Any, Any, Any, Any]:
    """The model's configuration and tokenizer, its dtype and its device."""
    config, tokenizer = opened(settings.model)
    device = choose_device(settings.model.device)
    whole = settings.sft_method == "full"
    dtype = torch.float32 if whole and settings.model.dtype == "auto" else choose_dtype(settings.model.dtype, device)
    return config, tokenizer, dtype, device


def _sized_cost(
    settings: RunSettings, load: Workload, config: Any, dtype: Any, device: Any, process_bytes: float
) -> tuple[CostModel, float, list[str]]:
    """The cost of the phases in passes that fit, the allowed bytes, and the choices."""
    on_card = device.type != "cpu"
    card = float(torch.cuda.mem_get_info()[1]) if on_card else 0.0
    allowed, process = (card, 0.0) if on_card else ((available_gb() or 0.0) * 1e9, process_bytes)
    work = work_of(settings, config, dtype, on_card=on_card)
    servers = server_bytes(settings, work, card=card or None)
    cost = CostModel(settings, work, load, process_bytes=process, server_bytes=servers, card_bytes=card)
    cost.settings, notes = sized(cost, allowed, on_card=on_card)
    return cost, allowed, [*notes, *server_notes(settings, servers, on_card=on_card)]


@contextmanager
def traceable(settings: RunSettings) -> Iterator[None]:
    """Report in one line that a model's layers cannot be traced.

    Raises:
        ModelError: they cannot.
    """
    # torch would also log what it cannot trace, with a traceback.
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    try:
        yield
    except (RuntimeError, AttributeError, TypeError, ValueError, LookupError) as error:
        raise ModelError(
            f"model.name: {settings.model.name!r} cannot be planned: its layers do not run without data "
            f"({first_line_of(error)})"
        ) from error


def work_of(settings: RunSettings, config: Any, dtype: Any, *, on_card: bool = False) -> Work:
    """The model's work, traced on its configuration alone; the plans of one process share it.

    A model whose code comes with it is traced again each time: the code may be another one now.
    """
    model, adapters = settings.model, settings.adapters
    trusted = bool(model.trust_remote_code)
    key = (
        type(config),
        config.to_json_string(),
        dtype,
        adapters.model_dump_json(),
        model.recompute_activations,
        model.quantization,
        trusted,
        on_card,
    )
    if trusted or key not in _WORK:
        while len(_WORK) >= _MOST_WORK:
            _WORK.pop(next(iter(_WORK)))
        _WORK[key] = Work(
            config,
            dtype,
            adapters,
            recompute=model.recompute_activations,
            trusted=trusted,
            quantization=model.quantization,
            on_card=on_card,
        )
    return _WORK[key]


def workload(settings: RunSettings, template: Template) -> Workload:
    """The lengths of the records in the settings, of an evenly spaced sample of each kind."""
    fitted = settings.data.too_long != "error"  # else the lengths of long records are not limited
    data = RunData(settings, (lambda: Examiner(template, settings)) if fitted else None)
    shown = [item for source in data.demonstrations() for item in source]
    asked, compared = data.prompts(), data.comparisons()

    def demonstrated(split: str) -> Lengths:
        return _lengths(
            [item for item in shown if item.prompt.split == split],
            lambda item: (_prompt(item.prompt, template), len(template.response_ids(item.response))),
        )

    def prompted(split: str) -> Lengths:
        return _lengths([item for item in asked if item.split == split], lambda item: (_prompt(item, template),))

    def both(item: Comparison) -> tuple[int, ...]:
        answers = [len(template.response_ids(text)) for text in (item.chosen, item.rejected)]
        return (_prompt(item.prompt, template), *answers)

    train, prompts = demonstrated("train"), prompted("train")
    if settings.labeling.source == "none":
        groups = _lengths([item for item in compared if item.prompt.split == "train"], both)
    else:
        sampling = settings.sampling
        groups = prompts.answered(sampling.responses_per_prompt, _expected(train, sampling.max_response_tokens))
    return Workload(
        train, demonstrated("heldout"), round(train.count * settings.sft.epochs), prompts, prompted("heldout"), groups
    )


def _expected(demonstrations: Lengths, limit: int) -> list[int]:
    """The assumed lengths of sampled responses: those of the demonstrations for the policy, up to the limit.

    Without demonstrations the maximum is assumed.
    """
    shown = [min(record[1], limit) for record in demonstrations.sampled]
    return [shown[index] for index in permutation(len(shown), 0, "plan", "responses")] or [limit]


def _lengths(items: Sequence[Any], measure: Any) -> Lengths:
    every = max(1, len(items) // _SAMPLED)
    return Lengths([measure(item) for item in items[::every]], len(items))


def _prompt(prompt: Prompt, template: Template) -> int:
    return len(template.prompt_ids(prompt.messages))


def opened(settings: ModelSettings) -> tuple[Any, Any]:
    """Configuration and tokenizer of a model, without its weights, which need not exist."""
    chain = chain_of(settings, place_of, weights=False)
    return open_config(chain.base, chain.settings), open_tokenizer(chain.tokenizer, settings)


def _warm_up(config: Any, dtype: Any) -> None:
    """Load the code of the model and of the phases, so that it counts as the process's own memory."""
    load_code()
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]


def _weights(settings: RunSettings, work: Work) -> list[tuple[str, str, float, float, float]]:
    kind, each = str(work.dtype).removeprefix("torch."), float(work.dtype.itemsize)
    adapter, head = float(work.adapter_numbers), work.hidden_size + 1.0
    numbers = float(work.base_numbers)
    trained, tuned, wide = (numbers, kind, each) if settings.sft_method == "full" else (adapter, "float32", 4.0)
    rows = [
        ("base weights, frozen, shared by all roles", work.quantization or kind, numbers, work.base_bytes / numbers),
        ("each adapter (reference, policy, reward model)", "float32", adapter, 4.0),
        ("value head and score head", "float32", 2 * head, 4.0)
        if settings.has_critic
        else ("score head", "float32", head, 4.0),
        ("gradients of what SFT trains", tuned, trained, wide),
        ("Adam's two moments of what SFT trains", tuned, trained, 2 * wide),
        ("gradients of an adapter in the later phases", "float32", adapter, 4.0),
        ("Adam's two moments of an adapter in the later phases", "float32", adapter, 8.0),
    ]
    if settings.trains_whole:
        rows += [
            ("the copy of the base that PPO trains", kind, numbers, each),
            ("gradients of all weights in PPO", "float32", numbers, 4.0),
            ("Adam's two moments of all weights in PPO", "float32", numbers, 8.0),
        ]
    return [(part, dtype, numbers, size, numbers * size) for part, dtype, numbers, size in rows]
