"""PPO against its formulas written out plainly, over microbatches, epochs, interruptions and rollouts gone wrong."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tests.phases.rollouts import evaluated
from tests.small import Encoded, Lines, shared_model, stir

from triphase.batches.order import microbatches
from triphase.batches.padding import TokenBatch, pad_batch
from triphase.models.roles import POLICY, REFERENCE, REWARD, SharedModel
from triphase.phases import experience as experience_module
from triphase.phases.experience import Experience, minibatches_of
from triphase.phases.frozen import FrozenWeights
from triphase.phases.minibatch import accumulate_gradients
from triphase.phases.ppo import PPOPhase
from triphase.phases.rewards import advantages_of, shape_rewards
from triphase.phases.score_scale import ScoreScale
from triphase.records.types import Message, Prompt
from triphase.rewards.types import Answer, Scorer, Scores
from triphase.rollouts.decoding import LocalGenerator
from triphase.settings.phases import OptimizerSettings
from triphase.settings.ppo import PPOSettings
from triphase.training.distributed.types import Strategy
from triphase.training.loop import LoopOptions, run_loop

TEXTS = ("oak", "red pine", "elm fir two", "ash", "one grey larch", "maple", "three")


def settings(**changes: object) -> PPOSettings:
    optimizer = OptimizerSettings(learning_rate=2e-3, head_learning_rate=4e-3, schedule="linear")
    values = {
        "iterations": 3,
        "batch_size": 8,
        "minibatch_size": 4,
        "epochs": 2,
        "max_response_tokens": 7,
        "max_approximate_kl": None,
        "optimizer": optimizer,
    }
    return PPOSettings.model_validate(values | changes)


def phase(chosen: PPOSettings, *, shared: SharedModel | None = None, seed: int = 0) -> PPOPhase:
    if shared is None:
        shared = shared_model()
        for number, adapter in enumerate((REFERENCE, REWARD)):
            stir(shared, adapter, seed=number)
    prompts = [Prompt(text, (Message("user", text),)) for text in TEXTS]
    ids = [tuple(shared.template.prompt_ids(prompt.messages)) for prompt in prompts]
    return PPOPhase(shared, prompts, ids, LocalGenerator(shared, adapter=POLICY, batch_size=8), chosen, seed=seed)


def rolled_out(ppo: PPOPhase, iteration: int = 0) -> tuple[list[Encoded], Experience, object]:
    chosen = ppo.rollouts.prompts(iteration)
    generated = ppo.rollouts.sampled(iteration, chosen).generated
    made = [Encoded(ppo.prompt_ids[number], answer.ids) for number, answer in zip(chosen, generated, strict=True)]
    found = evaluated(ppo.shared, made, ppo.settings, seed=ppo.seed, iteration=iteration, policy=ppo.policy)
    rewards, _ = shape_rewards(
        found,
        torch.tensor([answer.finished for answer in generated]),
        ppo.settings,
        kl_coefficient=0.05,
        scale=ScoreScale(),
    )
    return made, found, advantages_of(rewards, found, ppo.settings, torch.tensor(chosen))


def test_the_trunk_is_computed_while_sampling_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    trunk = SharedModel.trunk
    monkeypatch.setattr(
        SharedModel, "trunk", lambda self, batch: passes.append(len(batch.lengths)) or trunk(self, batch)
    )
    recorded = phase(settings()).advance(0)
    assert not passes
    plain = phase(settings())
    plain.rollouts._with_trunk = False
    own = plain.advance(0)
    assert sum(passes) == 8
    assert own["ppo/ratio_mean"] == pytest.approx(recorded["ppo/ratio_mean"], abs=1e-4)
    assert own["ppo/proxy_score"] == pytest.approx(recorded["ppo/proxy_score"], abs=1e-4)


def moved(ppo: PPOPhase) -> None:
    """The policy a little away from the rollout policy, so that ratios differ and some are clipped."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in ppo.state.updater.parameters.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))


def gradients(ppo: PPOPhase) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in ppo.state.updater.parameters.items()}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_gradient_is_that_of_the_objective_written_out_plainly(temperature: float) -> None:
    chosen = settings(
        temperature=temperature, minibatch_size=8, entropy_coefficient=0.03, value_coefficient=0.4, microbatch_tokens=40
    )
    ppo = phase(chosen)
    made, found, advantages = rolled_out(ppo)
    moved(ppo)
    figures = accumulate_gradients(ppo.policy, found.minibatches[0], found, advantages, chosen, first=False)
    ours = gradients(ppo)
    ppo.state.updater.discard()

    # One sample at a time, the whole model, logits in full; sums over tokens, divided once by all of them.
    shared, total, clipped = ppo.shared, torch.zeros(()), 0
    policy_loss = value_loss = 0.0
    for row, sample in enumerate(made):
        with shared.role(POLICY):
            out = shared.backbone.model(
                input_ids=torch.tensor([[*sample.prompt, *sample.response]]), output_hidden_states=True
            )
        first = len(sample.prompt) - 1
        logprobs = (out.logits[0, first:-1] / temperature).log_softmax(-1)
        values = shared.value_head(out.hidden_states[-1][0, first:-1])
        for place, token in enumerate(sample.response):
            advantage, target = advantages.advantages[row, place], advantages.returns[row, place]
            ratio = (logprobs[place, token] - found.logprobs[row, place]).exp()
            surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            old = found.values[row, place]
            limited = torch.clamp(values[place], old - 0.2, old + 0.2)
            error = torch.max((values[place] - target) ** 2, (limited - target) ** 2)
            entropy = -(logprobs[place].exp() * logprobs[place]).sum()
            total = total - surrogate + 0.4 * 0.5 * error - 0.03 * entropy
            policy_loss, value_loss = policy_loss - float(surrogate.detach()), value_loss + 0.5 * float(error.detach())
            clipped += int(float((ratio.clamp(0.8, 1.2) - ratio).detach() * advantage) < 0)
    tokens = sum(len(sample.response) for sample in made)
    (total / tokens).backward()
    assert clipped > 0
    assert figures["ppo/clip_fraction"] == pytest.approx(clipped / tokens, abs=1e-6)
    assert figures["ppo/policy_loss"] == pytest.approx(policy_loss / tokens, abs=1e-5) and abs(policy_loss) > 1e-2
    assert figures["ppo/value_loss"] == pytest.approx(value_loss / tokens, rel=1e-4) and value_loss > 0
    for name, gradient in gradients(ppo).items():
        assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name


def test_figures_do_not_depend_on_microbatches() -> None:
    found = []
    for most in (10_000, 1):
        ppo = phase(settings(microbatch_tokens=most, minibatch_size=8))
        _, experience, advantages = rolled_out(ppo)
        moved(ppo)
        figures = accumulate_gradients(
            ppo.policy, experience.minibatches[0], experience, advantages, ppo.settings, first=False
        )
        found.append(figures)
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6)
    assert found[0]["ppo/ratio_max"] > 1.05


def test_what_the_pads_hold_changes_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, pads = [], []
    padded = experience_module.pad_batch

    def watched(*arguments: object, **options: object) -> TokenBatch:
        batch = padded(*arguments, **options)
        pads.append(set(batch.input_ids[~batch.attention_mask.bool()].tolist()))
        return batch

    monkeypatch.setattr(experience_module, "pad_batch", watched)
    for pad_id in (0, 9):
        ppo = phase(settings())
        monkeypatch.setattr(ppo.shared.template, "pad_id", pad_id)
        rows = Lines()
        for step in (0, 1):
            rows.write(step + 1, ppo.advance(step))
        lines.append(rows.plain())
    assert lines[0] == lines[1]
    assert {0} in pads and {9} in pads, "there were no pads that differ"


def test_each_epoch_takes_every_row_once_in_an_order_of_its_own() -> None:
    chosen = settings(batch_size=12, minibatch_size=4, microbatch_tokens=25)
    batch = pad_batch([Encoded((7,) * (1 + n % 3), (8,) * (1 + n % 5)) for n in range(12)], pad_id=0)
    seen = []
    for iteration in range(2):
        for epoch in range(3):
            minibatches = minibatches_of(batch, chosen, seed=0, iteration=iteration, epoch=epoch)
            rows = [[row for part in minibatch for row in part] for minibatch in minibatches]
            assert [len(members) for members in rows] == [4, 4, 4]
            assert sorted(row for members in rows for row in members) == list(range(12))
            seen.append(tuple(tuple(sorted(members)) for members in rows))
    assert len(set(seen)) == 6


def test_on_a_cpu_minibatches_are_divided_into_the_cheapest_passes_for_a_cpu() -> None:
    lengths, chosen = [2] * 6 + [60] * 2, settings(batch_size=8, minibatch_size=8, microbatch_tokens=512)
    batch = pad_batch([Encoded((7,) * (length - 1), (8,)) for length in lengths], pad_id=0)
    (minibatch,) = minibatches_of(batch, chosen, seed=0, iteration=0, epoch=0)
    assert sorted(sorted(lengths[row] for row in part) for part in minibatch) == [[2] * 6, [60] * 2]
    assert len(microbatches(lengths, max_tokens=512, on_card=True)) == 1


# The KL coefficient


@pytest.mark.parametrize(("target", "rises"), [(1e-3, True), (1e3, False)])
def test_the_adaptive_coefficient_moves_towards_its_target_and_is_the_next_iterations(
    target: float, rises: bool
) -> None:
    ppo = phase(settings(kl_target=target, kl_horizon=100.0, kl_coefficient=0.1))
    used = []
    for iteration in range(3):
        metrics = ppo.advance(iteration)
        used.append(metrics["ppo/kl_coefficient"])
        error = min(max(metrics["ppo/reference_kl"] / target - 1, -0.2), 0.2)
        assert ppo.state.values.kl_coefficient == pytest.approx(used[-1] * (1 + error * 8 / 100))
    assert used[0] == 0.1
    assert (used[2] > used[1]) is rises  # the first rollout is the reference's own: its KL is 0


def test_a_fixed_coefficient_stays() -> None:
    ppo = phase(settings(kl_coefficient=0.1))
    assert [ppo.advance(iteration)["ppo/kl_coefficient"] for iteration in range(2)] == [0.1, 0.1]


# Interruptions


def whole_state(ppo: PPOPhase) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in ppo.state.updater.tensors().items()}


def resumed_after_cuts(
    begin: Callable[[], PPOPhase], folder: Path, cuts: Iterable[int]
) -> Iterator[tuple[PPOPhase, Lines]]:
    """Phases that were cut off after an iteration, whose metrics are written and whose checkpoint is not, and begun
    again; each at its end, with its metrics."""
    for cut in cuts:
        kept = Lines()

        def fail(_: object, kept: Lines = kept, cut: int = cut) -> None:
            if len(kept.rows) == cut:
                raise RuntimeError("power cut")

        with pytest.raises(RuntimeError, match="power cut"):
            run_loop(begin(), LoopOptions(folder / f"{cut}", kept, keep=1, on_step=fail))
        resumed = begin()
        run_loop(resumed, LoopOptions(folder / f"{cut}", kept, keep=1))
        yield resumed, kept


def test_after_a_cut_at_any_iteration_the_end_is_the_same_to_the_bit(tmp_path: Path) -> None:
    chosen = settings(iterations=4, kl_target=0.5, kl_horizon=50.0)
    expected, lines = phase(chosen), Lines()
    run_loop(expected, LoopOptions(tmp_path / "whole", lines, keep=1))
    assert any(name.startswith("exp_avg_sq.") for name in whole_state(expected))
    for resumed, kept in resumed_after_cuts(lambda: phase(chosen), tmp_path, range(1, 4)):
        assert whole_state(resumed) == whole_state(expected)
        assert resumed.state.values == expected.state.values
        assert kept.plain() == lines.plain()


class OneOfTwo(Strategy):
    """The first of two ranks, which hears what must be the same on both."""

    world = 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    def require_same(self, what: str, digest: str) -> None:
        self.asked.append(f"{what}: {digest}")


def test_two_ranks_compare_what_is_frozen(tmp_path: Path) -> None:
    ppo = phase(settings())
    ppo.strategy = both = OneOfTwo()
    ppo.open(tmp_path)
    assert both.asked == [f"the frozen weights: {FrozenWeights(ppo.shared).digest}"]


# Rollouts gone wrong


SHOWN = {"score_head": "scores", "value_head": "values", "a scorer": "scores"}


class NoScore(Scorer):
    name = "mine"

    def score(self, answers: Sequence[Answer]) -> Scores:
        return Scores((math.nan,) * len(answers))


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("score_head", "The reward model caused it for 8 of 8 responses"),
        ("value_head", "Lower ppo.optimizer.learning_rate"),
        ("a scorer", "The scorer mine returned null, NaN or infinity for 8 of 8 responses"),
    ],
)
def test_a_rollout_with_a_nan_teaches_nothing_and_is_kept(
    head: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo = phase(settings())
    ppo.directory = tmp_path
    if head == "a scorer":
        ppo.scorer = NoScore()
    else:
        with torch.no_grad():
            getattr(ppo.shared, head).linear.bias.fill_(math.nan)
    before, advised = ppo.shared.adapters.state(POLICY), []
    monkeypatch.setattr(ppo.state.updater, "skip_step", lambda names, *, advice: advised.append((tuple(names), advice)))
    metrics = ppo.advance(0)
    assert [(names, told in advice) for names, advice in advised] == [((SHOWN[head],), True)], advised
    assert metrics["ppo/skipped_steps"] == 1 and metrics["ppo/steps"] == 0
    assert all(torch.equal(value, before[name]) for name, value in ppo.shared.adapters.state(POLICY).items())
    assert (tmp_path / "bad" / "000001.safetensors").exists()


def test_one_episode_alone_is_a_batch() -> None:
    metrics = phase(settings(batch_size=1, minibatch_size=1, epochs=1)).advance(0)
    assert metrics["ppo/steps"] == 1 and metrics["ppo/skipped_steps"] == 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(f"ppo/seconds_{part}" in metrics for part in ("generation", "scoring", "update"))


@pytest.mark.parametrize(("schedule", "factors"), [("restart", (1, 1, 1 / 2)), ("stretch", (1, 2 / 3, 1 / 3))])
def test_the_learning_rate_of_an_extended_run_follows_its_schedule(schedule: str, factors: tuple[float, ...]) -> None:
    """One step per iteration, linear to 0: over 1 iteration, then anew over the 2 that were added, or over all 3."""
    extensions = [{"at": 1, "schedule": schedule}]
    ppo = phase(settings(batch_size=2, minibatch_size=2, epochs=1, extensions=extensions))
    found = [ppo.advance(iteration)["ppo/learning_rate"] for iteration in range(3)]
    assert found == pytest.approx([2e-3 * factor for factor in factors])
