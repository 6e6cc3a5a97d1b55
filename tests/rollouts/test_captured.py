"""The step that a card captures, run on the processor: the tokens are those of the plain decode loop."""

import gc
import random
import weakref
from typing import Any

import pytest
import torch
from tests.rollouts.recorded import Recorder
from tests.small import random_model, shared_model, stir, tokenizer
from torch import nn

from triphase.errors import ModelError
from triphase.models.direct import FastDecoder
from triphase.models.direct_layer import DirectLayer, rotation_of
from triphase.models.loading import LoadedModel
from triphase.models.norms import OneKernel
from triphase.models.policies import policy_for
from triphase.models.quantization import QuantizedLinear
from triphase.models.roles import REFERENCE, SharedModel
from triphase.rollouts import decoding, writing
from triphase.rollouts.captured import LOOK_EVERY, CapturedRows
from triphase.rollouts.decoding import LocalGenerator
from triphase.rollouts.drawing import draws, sample
from triphase.rollouts.graphs import NotRecordedError, Step
from triphase.rollouts.types import Request
from triphase.rollouts.writing import CapturedWriter
from triphase.settings.schema import AdapterSettings

ADAPTER = "policy"
EVERYTHING = 1e12


def requests(count: int, longest: int = 9) -> list[Request]:
    draw = random.Random(0)
    return [
        Request(tuple(draw.randrange(6, 26) for _ in range(draw.randint(1, longest))), seed) for seed in range(count)
    ]


def shared(kind: str = "qwen3") -> Any:
    made = shared_model(kind)
    stir(made, ADAPTER)
    return made


def writer_of(made: Any, record: Any = None, **changes: Any) -> CapturedWriter:
    return CapturedWriter(made, choose=sample, draws=draws, record=record, **{"room": EVERYTHING, **changes})


def captured(
    made: Any,
    asked: list[Request],
    *,
    batch_size: int,
    limit: int,
    temperature: float = 0.9,
    writer: CapturedWriter | None = None,
    adapter: str | None = ADAPTER,
) -> Any:
    told: list[int] = []
    with made.role(adapter):
        found = (writer or writer_of(made)).write(
            asked, batch_size=batch_size, temperature=temperature, limit=limit, on_finished=told.append
        )
    assert sum(told) == len(asked)
    return [tuple(ids) for ids in found]


def plain(
    made: Any, asked: list[Request], limit: int, temperature: float = 0.9, adapter: str | None = ADAPTER
) -> list[tuple[int, ...]]:
    generator = LocalGenerator(made, adapter=adapter, batch_size=5)
    return [each.ids for each in generator.generate(asked, temperature=temperature, max_response_tokens=limit)]


@pytest.mark.parametrize("record", [False, True], ids=["step", "graph"])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 40])
@pytest.mark.parametrize("limit", [1, 8, 13])
def test_the_tokens_are_those_of_the_decode_loop(batch_size: int, limit: int, record: bool) -> None:
    made, asked = shared(), requests(21)
    writer = writer_of(made, Recorder() if record else None)
    found = captured(made, asked, batch_size=batch_size, limit=limit, writer=writer)
    assert found == plain(made, asked, limit)
    assert len({len(ids) for ids in found}) > 1 or limit == 1  # rows leave at different times


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_a_graph_writes_what_the_decode_loop_writes(kind: str) -> None:
    made, asked = shared(kind), requests(30)
    assert captured(made, asked, batch_size=20, limit=12, writer=writer_of(made, Recorder())) == plain(made, asked, 12)


def test_queries_and_keys_that_are_turned_together_are_turned_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card: the very numbers, in other places of memory."""
    made, x = shared("llama"), torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    rotation = rotation_of(made.backbone, x[:, None], torch.arange(6)[:, None])
    layer = DirectLayer(made.backbone.layers[0])
    assert not layer.rotates_together
    apart = layer.project(x, rotation)
    layer.rotates_together = True
    assert all(torch.equal(one, other) for one, other in zip(layer.project(x, rotation), apart, strict=True))
    mixed = [DirectLayer(made.backbone.layers[0]).attend(x, rotation, 2)[0], layer.attend(x, rotation, 2)[0]]
    assert torch.allclose(*mixed, atol=1e-6)
    asked = requests(12)
    expected = plain(made, asked, 9)
    made_as_now = DirectLayer.__init__

    def together(layer: DirectLayer, module: Any, *, packed: bool) -> None:
        made_as_now(layer, module, packed=packed)
        layer.rotates_together = True
        layer._norms = OneKernel(module.input_layernorm), OneKernel(module.post_attention_layernorm)

    monkeypatch.setattr(DirectLayer, "__init__", together)
    assert captured(made, asked, batch_size=5, limit=9, writer=writer_of(made, Recorder())) == expected


def rows_of(made: Any, asked: list[Request], *, capacity: int = 40, limit: int = 12, record: Any = None) -> Any:
    rows = CapturedRows(
        made,
        FastDecoder(made.backbone),
        len(asked),
        capacity=capacity,
        limit=limit,
        temperature=1.0,
        choose=sample,
        record=record,
    )
    reader = FastDecoder(made.backbone)
    reader.read([each.prompt for each in asked], pad_id=0, room=0)
    rows.put(range(len(asked)), reader, torch.stack([draws(each.seed, limit) for each in asked]))
    return rows


def test_log_probabilities_are_those_of_the_decode_loop_to_the_bit_where_the_shapes_agree() -> None:
    """A captured step always attends over its whole capacity, the plain one over as many places as were read. Where the
    plain one does so too, each of its states is the same; else they differ by the rounding of longer sums."""
    made, asked = shared(), requests(6)
    with made.role(ADAPTER), torch.no_grad():
        rows = rows_of(made, asked, record=Recorder())
        same, usual = FastDecoder(made.backbone), FastDecoder(made.backbone)
        prompts = [each.prompt for each in asked]
        longest = max(map(len, prompts))
        same.read(prompts, pad_id=0, room=rows.capacity - longest)
        same._length = rows.capacity
        usual.read(prompts, pad_id=0, room=12)
        for place in range(10):
            before = torch.equal(rows.ended, torch.zeros_like(rows.ended))
            rows.advance(1)
            tokens = rows.written[:, place]
            same.step(tokens)
            usual.step(tokens)
            if not before:
                break  # the rest of a finished row's tokens is not its own
            logprobs = [
                (step.hidden @ made.backbone.head_weight.t()).log_softmax(1) for step in (rows._stepper, same, usual)
            ]
            assert torch.equal(logprobs[0], logprobs[1])
            assert torch.allclose(logprobs[0], logprobs[2], atol=1e-5)
        assert place > 0


def test_rows_without_a_token_of_their_own_stay_as_they_are() -> None:
    """What a finished row reads on the way changes neither it nor the others."""
    made, asked = shared(), requests(4)
    with made.role(ADAPTER), torch.no_grad():
        rows = rows_of(made, asked)
        rows.advance(12)
        written, counts = rows.written.clone(), rows.counts.clone()
        assert rows.ended.all()
        rows.advance(9)
    assert torch.equal(rows.written, written)
    assert torch.equal(rows.counts, counts)


def test_what_moves_to_the_front_leaves_nothing_that_goes_on_behind() -> None:
    made, asked = shared(), requests(20)
    with made.role(ADAPTER):
        rows = rows_of(made, asked)
        rows.advance(2)
        goes_on = [place for place, ended in enumerate(rows.ended.tolist()) if not ended][-3:]
        before = rows.written[goes_on].clone()
        rows.pack(goes_on)
    assert rows.width == 8 and torch.equal(rows.written[:3], before)
    assert rows.ended.tolist() == [False] * 3 + [True] * 17


def test_a_capture_in_the_middle_changes_no_row_that_goes_on() -> None:
    made, asked = shared(), requests(6)
    with made.role(ADAPTER), torch.no_grad():
        steps, graph = rows_of(made, asked), rows_of(made, asked)
        for each in (steps, graph):
            each.advance(3)
        graph._steps.clear()
        graph._record = Recorder()
        for each in (steps, graph):
            each.advance(9)
    assert torch.equal(steps.written, graph.written) and torch.equal(steps.counts, graph.counts)


def test_a_look_gives_what_was_written_since_the_last() -> None:
    made, asked = shared(), requests(5)
    told: list[list[int]] = [[] for _ in asked]
    with made.role(ADAPTER):
        rows = rows_of(made, asked)
        for tokens in (1, LOOK_EVERY, 3):
            rows.advance(tokens)
            for mine, (count, _, recent) in zip(told, rows.look(), strict=True):
                mine += recent[len(recent) - (count - len(mine)) :]
    written = [row[:count] for row, count in zip(rows.written.tolist(), rows.counts.tolist(), strict=True)]
    assert told == written


def test_few_rows_go_on_by_a_narrower_step_and_each_width_is_captured_once() -> None:
    made, asked, recorder = shared(), requests(40), Recorder()
    writer = writer_of(made, recorder)
    expected = plain(made, asked, 40)
    for _ in range(3):
        assert captured(made, asked, batch_size=40, limit=40, writer=writer) == expected
        assert writer._kept is not None
        widths = set(writer._kept[1]._steps)
        assert recorder.captures == len(widths) > 1 and widths <= {8, 16, 32, 40}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_is_kept_follows_the_weights(method: str) -> None:
    """Between two iterations of PPO weights have other values, in the same places: adapters, biases, norms, all."""
    made, asked, recorder = shared_model("qwen2"), requests(12), Recorder()
    made.adapters.add(REFERENCE)
    policy = policy_for(made, method)
    writer = writer_of(policy.model, recorder)
    seen = []
    for number in range(3):
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in policy.parameters().values():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
        found = captured(policy.model, asked, batch_size=6, limit=9, writer=writer, adapter=policy.adapter)
        assert found == plain(policy.model, asked, 9, adapter=policy.adapter)
        seen.append(found)
    assert recorder.captures == 1
    assert len({tuple(each) for each in seen}) == 3


@pytest.mark.parametrize(
    "change", ["adapter", "temperature", "limit", "longer", "more", "moved", "no room", "released"]
)
def test_what_is_kept_is_made_anew_where_it_does_not_fit(change: str) -> None:
    made, recorder = shared(), Recorder()
    stir(made, REFERENCE)
    writer = writer_of(made, recorder, **({"room": 0.0} if change == "no room" else {}))
    asked = requests(8)
    captured(made, asked, batch_size=8, limit=9, writer=writer)
    assert (writer._kept is None) == (change == "no room")
    wanted: dict[str, Any] = {"batch_size": 8, "limit": 9}
    match change:
        case "adapter":
            wanted["adapter"] = REFERENCE
        case "temperature" | "limit":
            wanted[change] = 1.3 if change == "temperature" else 5
        case "longer":
            asked = requests(8, longest=150)
        case "more":
            asked, wanted["batch_size"] = requests(20), 20
        case "moved":
            weight = made.backbone.layers[0].mlp.down_proj.weight
            weight.data = 1.1 * weight.data
        case "released":
            writer.release()
    found = captured(made, asked, writer=writer, **wanted)
    usual = {key: value for key, value in wanted.items() if key != "batch_size"}
    assert found == plain(made, asked, **usual)
    assert recorder.captures == 2


def test_what_is_kept_is_not_taken_for_rows_that_are_far_shorter() -> None:
    made, recorder = shared(), Recorder()
    writer = writer_of(made, recorder)
    captured(made, requests(8, longest=300), batch_size=8, limit=9, writer=writer)
    captured(made, requests(8), batch_size=8, limit=9, writer=writer)
    assert recorder.captures == 2


def refusing(step: Step) -> Step:
    raise NotRecordedError("operation not permitted when stream is capturing")


def on_card(made: Any, monkeypatch: pytest.MonkeyPatch, record: Any = refusing) -> LocalGenerator:
    """A generator that takes the processor for a card."""
    monkeypatch.setattr(decoding, "_is_card", lambda device: True)
    monkeypatch.setattr(decoding, "CudaGraphs", lambda: record)
    monkeypatch.setattr(writing, "_card_bytes", lambda: EVERYTHING)
    return LocalGenerator(made, adapter=ADAPTER, batch_size=4)


def with_setting(setting: Any, kind: str = "qwen3") -> SharedModel:
    loaded = LoadedModel(random_model(kind), tokenizer(), "small", capture_decoding=setting)
    made = SharedModel(loaded, AdapterSettings(layers=2, rank=4, alpha=8.0), seed=0)
    stir(made, ADAPTER)
    return made


def test_where_it_cannot_be_captured_one_line_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, asked = with_setting("auto"), requests(9)
    expected = plain(made, asked, 7)
    for _ in range(2):
        generator = on_card(made, monkeypatch)
        for _ in range(2):
            found = generator.generate(asked, temperature=0.9, max_response_tokens=7)
            assert [each.ids for each in found] == expected
    (line,) = [record.message for record in caplog.records if "captured" in record.message]
    assert "without CUDA graphs" in line and "not permitted when stream is capturing" in line


def test_layers_of_another_shape_are_said_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, asked = with_setting("auto", "gpt_neox"), requests(3)
    generator = on_card(made, monkeypatch, Recorder())
    generator.generate(asked, temperature=0.9, max_response_tokens=5)
    generator.generate(asked, temperature=0.9, max_response_tokens=5)
    assert caplog.text.count("GPTNeoXForCausalLM") == 1


@pytest.mark.parametrize("kind", ["qwen3", "gpt_neox"])
def test_what_is_demanded_and_cannot_be_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = on_card(with_setting("on", kind), monkeypatch)
    with pytest.raises(ModelError, match=r"^model\.capture_decoding is on, but the step cannot be captured .*auto$"):
        generator.generate(requests(3), temperature=0.9, max_response_tokens=5)


@pytest.mark.parametrize(("setting", "captures"), [("auto", 1), ("on", 1), ("off", 0)])
def test_the_setting_switches_it(setting: str, captures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked, recorder = with_setting(setting), requests(4), Recorder()
    generator = on_card(made, monkeypatch, recorder)
    for _ in range(2):
        found = generator.generate(asked, temperature=0.9, max_response_tokens=7)
    assert recorder.captures == captures
    monkeypatch.undo()
    assert [each.ids for each in found] == plain(made, asked, 7)


@pytest.mark.parametrize("record", [Recorder(), refusing], ids=["graph", "step"])
def test_a_generator_that_is_gone_leaves_nothing_to_the_garbage_collector(
    record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caches take a share of the card's memory, and graphs must not be destroyed while another is captured."""
    made = with_setting("auto")
    generator = on_card(made, monkeypatch, record)
    rows: list[Any] = []
    monkeypatch.setattr(writing, "CapturedRows", lambda *args, **options: noted(CapturedRows(*args, **options), rows))
    gc.disable()
    try:
        generator.generate(requests(4), temperature=0.9, max_response_tokens=7)
        assert generator._writer is not None
        gone = [weakref.ref(generator._writer), *rows]
        del generator
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


def noted(rows: CapturedRows, references: list[Any]) -> CapturedRows:
    references.append(weakref.ref(rows))
    return rows


class Rounded:
    """Keeps a weight in 8 bits, as a library would."""

    def packed(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        scales = weight.abs().amax(1, keepdim=True) / 127
        return {"codes": (weight / scales).round().to(torch.int8), "scales": scales}

    def widened(self, kept: dict[str, torch.Tensor], shape: Any, dtype: torch.dtype) -> torch.Tensor:
        return kept["codes"].to(dtype) * kept["scales"]


def test_a_quantized_base_is_captured_as_a_wide_one() -> None:
    """Its maps are widened inside the step, so that the graph widens them anew for each token."""
    model = random_model("llama")
    for owner in list(model.get_decoder().modules()):
        for child, module in list(owner.named_children()):
            if isinstance(module, nn.Linear):
                setattr(owner, child, QuantizedLinear(module, Rounded()))
    made = SharedModel(LoadedModel(model, tokenizer(), "small"), AdapterSettings(layers=2, rank=4), seed=0)
    stir(made, ADAPTER)
    asked, recorder = requests(10), Recorder()
    found = captured(made, asked, batch_size=10, limit=9, writer=writer_of(made, recorder))
    assert found == plain(made, asked, 9) and recorder.captures >= 1
