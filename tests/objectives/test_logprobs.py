from typing import Any

import pytest
import torch
from tests.objectives.examples import noise
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Categorical
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from triphase import objectives
from triphase.objectives import softmax

N, D, V = 11, 5, 23
TARGETS = torch.arange(N) * 7 % V
OPTIONS = [(1.0, 4, True), (0.7, 4, False), (0.7, 1, True), (1.3, N, True), (2.0, 100, False)]


def head(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return noise(N, D, seed=1).to(dtype), (2 * noise(V, D, seed=2)).to(dtype)


def plain(hidden: Tensor, weight: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """By torch's own functions, not ours."""
    logits = hidden @ weight.T / temperature
    return -cross_entropy(logits, TARGETS, reduction="none"), Categorical(logits=logits).entropy()


# The definition


def test_hand_values() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
    target = torch.tensor([2])
    assert objectives.token_logprobs(logits, target, 1.0).exp().item() == pytest.approx(0.2)
    assert objectives.token_logprobs(logits + 100, target, 1.0).exp().item() == pytest.approx(0.2)
    squares = 0.25 + 0.09 + 0.04  # temperature 1/2 squares the probabilities
    assert objectives.token_logprobs(logits, target, 0.5).exp().item() == pytest.approx(0.04 / squares)
    assert objectives.entropy(logits, 1.0).item() == pytest.approx(1.0296530)
    assert objectives.entropy(torch.zeros(1, 8), 3.0).item() == pytest.approx(2.0794415)


def test_the_definition_agrees_with_torch() -> None:
    logits, targets = 3 * noise(2, 4, 9), torch.arange(8).reshape(2, 4)
    distribution = Categorical(logits=logits / 0.7)
    assert torch.allclose(objectives.token_logprobs(logits, targets, 0.7), distribution.log_prob(targets), atol=1e-12)
    assert torch.allclose(objectives.entropy(logits, 0.7), distribution.entropy(), atol=1e-12)
    with pytest.raises(ValueError, match="temperature"):
        objectives.entropy(logits, 0.0)


def test_half_precision_logits_are_normalized_in_float32() -> None:
    logits = noise(3, 1000).to(torch.bfloat16)
    found = objectives.token_logprobs(logits, torch.tensor([1, 2, 3]), 1.0)
    assert found.dtype == torch.float32
    exact = objectives.token_logprobs(logits.double(), torch.tensor([1, 2, 3]), 1.0)
    assert torch.allclose(found.double(), exact, atol=1e-5)
    assert objectives.entropy(logits, 1.0).dtype == torch.float32


# The fast path equals the definition


@pytest.mark.parametrize(("temperature", "chunk_size", "with_entropy"), OPTIONS)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_values_and_gradients_equal_torch(
    temperature: float, chunk_size: int, with_entropy: bool, trained: bool, dtype: torch.dtype, tolerance: float
) -> None:
    ours = [x.requires_grad_() for x in head(dtype)]
    ours[1].requires_grad_(trained)
    theirs = [x.double().requires_grad_() for x in head(dtype)]
    found = objectives.response_logprobs(
        *ours, TARGETS, temperature=temperature, chunk_size=chunk_size, with_entropy=with_entropy
    )
    logprobs, entropies = plain(*theirs, temperature)
    loss, wanted = (found.logprobs * noise(N, seed=3)).sum(), (logprobs * noise(N, seed=3)).sum()
    if with_entropy:
        assert found.entropy is not None
        assert torch.allclose(found.entropy.double(), entropies, atol=tolerance)
        loss, wanted = loss + (found.entropy * noise(N, seed=4)).sum(), wanted + (entropies * noise(N, seed=4)).sum()
    else:
        assert found.entropy is None
    assert torch.allclose(found.logprobs.double(), logprobs, atol=tolerance)
    loss.backward()
    wanted.backward()
    for mine, reference in zip(ours[: 1 + trained], theirs, strict=False):
        assert mine.grad is not None and reference.grad is not None
        assert mine.grad.dtype == dtype
        assert torch.allclose(mine.grad.double(), reference.grad, atol=10 * tolerance)
    if not trained:
        assert ours[1].grad is None


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_gradcheck(with_entropy: bool, trained: bool) -> None:
    hidden, weight = (x.requires_grad_() for x in head())

    def outputs(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        head = weight if trained else weight.detach()
        found = objectives.response_logprobs(
            hidden, head, TARGETS, temperature=0.7, chunk_size=4, with_entropy=with_entropy
        )
        return (found.logprobs,) if found.entropy is None else (found.logprobs, found.entropy)

    inputs = (hidden, weight) if trained else (hidden, weight.detach())
    assert torch.autograd.gradcheck(outputs, inputs)


@pytest.mark.parametrize("used", ["logprobs", "entropy"])
def test_one_output_alone_has_its_own_gradient(used: str) -> None:
    hidden, weight = head()
    hidden.requires_grad_()
    found = objectives.response_logprobs(hidden, weight, TARGETS, temperature=0.7, chunk_size=4, with_entropy=True)
    (gradient,) = torch.autograd.grad(getattr(found, used).sum(), hidden)
    logprobs, entropies = plain(hidden, weight, 0.7)
    (wanted,) = torch.autograd.grad((logprobs if used == "logprobs" else entropies).sum(), hidden)
    assert torch.allclose(gradient, wanted, atol=1e-12)


@pytest.mark.parametrize("hidden_dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("trained", [False, True])
def test_half_precision_weights(hidden_dtype: torch.dtype, trained: bool) -> None:
    hidden, weight = noise(64, 96, seed=5).to(hidden_dtype), (0.2 * noise(500, 96, seed=6)).to(torch.bfloat16)
    hidden.requires_grad_()
    weight.requires_grad_(trained)
    targets = torch.arange(64)
    found = objectives.response_logprobs(hidden, weight, targets, temperature=0.7, chunk_size=16, with_entropy=True)
    exact = hidden.detach().double().requires_grad_()
    logits = exact @ weight.detach().double().T
    assert found.logprobs.dtype == torch.float32 and found.entropy is not None
    assert torch.allclose(found.logprobs.double(), objectives.token_logprobs(logits, targets, 0.7), atol=0.05)
    assert torch.allclose(found.entropy.double(), objectives.entropy(logits, 0.7), atol=0.05)
    (gradient,) = torch.autograd.grad((found.logprobs + found.entropy).sum(), hidden)
    loss = (objectives.token_logprobs(logits, targets, 0.7) + objectives.entropy(logits, 0.7)).sum()
    (wanted,) = torch.autograd.grad(loss, exact)
    assert gradient.dtype == hidden_dtype
    assert (gradient.double() - wanted).norm() / wanted.norm() < 0.02


def test_the_gradient_of_a_sure_token_survives_half_precision() -> None:
    """Where p_y is near 1, W_y - pᵀW in bf16 is a difference of two equal numbers; the target is taken off before."""
    weight = torch.eye(4, dtype=torch.bfloat16)
    hidden = torch.tensor([[7.0, 0.0, 0.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    found = objectives.response_logprobs(
        hidden, weight, torch.tensor([0]), temperature=1.0, chunk_size=1, with_entropy=False
    )
    (gradient,) = torch.autograd.grad(found.logprobs.sum(), hidden)
    wanted = 1 - torch.softmax(torch.tensor([7.0, 0.0, 0.0, 0.0]), 0)[0]  # 0.0027, lost between 0.996 and 1 in bf16
    assert gradient[0, 0].item() == pytest.approx(wanted.item(), rel=0.01)


# Determinism and independence


@pytest.mark.parametrize("with_entropy", [False, True])
def test_rollout_and_training_pass_agree_to_the_bit(with_entropy: bool) -> None:
    hidden, weight = head(torch.float32)
    options: dict[str, Any] = {"temperature": 0.7, "chunk_size": 4, "with_entropy": with_entropy}
    with torch.no_grad():
        rollout = objectives.response_logprobs(hidden, weight, TARGETS, **options)
    training = objectives.response_logprobs(hidden.clone().requires_grad_(), weight, TARGETS, **options)
    assert training.logprobs.requires_grad and not rollout.logprobs.requires_grad
    assert torch.equal(rollout.logprobs, training.logprobs.detach())
    if with_entropy:
        assert rollout.entropy is not None and training.entropy is not None
        assert torch.equal(rollout.entropy, training.entropy.detach())


def test_a_position_does_not_depend_on_its_neighbors() -> None:
    hidden, weight = head()
    options: dict[str, Any] = {"temperature": 0.7, "chunk_size": 4, "with_entropy": True}
    whole = objectives.response_logprobs(hidden, weight, TARGETS, **options)
    alone = [objectives.response_logprobs(hidden[i : i + 1], weight, TARGETS[i : i + 1], **options) for i in range(N)]
    assert torch.allclose(whole.logprobs, torch.cat([one.logprobs for one in alone]), atol=1e-12)


def test_large_logits_stay_finite() -> None:
    hidden, weight = (100 * x for x in head(torch.float32))
    hidden.requires_grad_()
    found = objectives.response_logprobs(hidden, weight, TARGETS, temperature=0.1, chunk_size=4, with_entropy=True)
    assert found.entropy is not None
    (found.logprobs + found.entropy).sum().backward()
    assert hidden.grad is not None
    objectives.require_finite(logprobs=found.logprobs, entropy=found.entropy, gradient=hidden.grad)
    assert bool((found.entropy >= 0).all())


def test_the_inputs_stay_as_they_are() -> None:
    hidden, weight = head()
    before = hidden.clone(), weight.clone()
    objectives.response_logprobs(hidden, weight, TARGETS, temperature=0.7, chunk_size=4, with_entropy=True)
    assert torch.equal(hidden, before[0]) and torch.equal(weight, before[1])


# Memory


class Operations(TorchDispatchMode):
    """Counts matrix products, and tensors of positions × vocabulary: elements of the largest, and how many are new."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.products = 0
        self.buffers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket is torch.ops.aten.mm
        given = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor) and tensor.dim() == 2 and tensor.shape[1] == V and tensor.shape[0] != D:
                self.elements = max(self.elements, tensor.numel())
                self.buffers += tensor.shape[0] == N and tensor.untyped_storage().data_ptr() not in given
        return result


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_nothing_of_the_size_of_a_chunk_of_logits_is_kept(with_entropy: bool, trained: bool) -> None:
    chunk_size, saved = 6, []
    hidden, weight = head()
    hidden.requires_grad_()
    weight.requires_grad_(trained)

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() != weight.data_ptr():
            saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = objectives.response_logprobs(
            hidden, weight, TARGETS, temperature=0.7, chunk_size=chunk_size, with_entropy=with_entropy
        )
    assert found.logprobs.requires_grad
    assert saved and max(saved) <= N * D < chunk_size * V


@pytest.mark.parametrize("with_entropy", [False, True])
def test_no_operation_makes_more_than_a_chunk_of_logits(with_entropy: bool) -> None:
    hidden, weight = head()
    hidden.requires_grad_()
    with Operations() as operations:
        found = objectives.response_logprobs(
            hidden, weight, TARGETS, temperature=0.7, chunk_size=6, with_entropy=with_entropy
        )
        found.logprobs.sum().backward()
    assert operations.elements == 6 * V


@pytest.mark.parametrize(
    ("gradient", "with_entropy", "products"), [(False, True, 1), (True, False, 2), (True, True, 3)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_and_buffers_are_made_only_where_needed(
    gradient: bool, with_entropy: bool, products: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the products of a chunk only a few rows are in float32."""
    monkeypatch.setattr(softmax, "_LEAST_ROWS", 1)
    monkeypatch.setattr(softmax, "_CACHED_LOGITS", 2 * V)
    hidden, weight = (each.to(dtype) for each in head())
    with Operations() as operations, torch.set_grad_enabled(gradient):
        found = objectives.response_logprobs(
            hidden.requires_grad_(), weight, TARGETS, temperature=0.7, chunk_size=N, with_entropy=with_entropy
        )
        if gradient:
            found.logprobs.sum().backward()
    assert operations.products == products
    assert operations.buffers == 1 + (with_entropy and gradient)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("with_entropy", [False, True])
def test_rows_that_pass_the_cache_together_do_not_change_a_bit(
    with_entropy: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rows in (1, 3, N):
        monkeypatch.setattr(softmax, "_LEAST_ROWS", 1)
        monkeypatch.setattr(softmax, "_CACHED_LOGITS", rows * V)
        hidden, weight = head(dtype)
        made = objectives.response_logprobs(
            hidden.requires_grad_(), weight, TARGETS, temperature=0.7, chunk_size=N, with_entropy=with_entropy
        )
        total = made.logprobs.sum() if made.entropy is None else (made.logprobs + made.entropy).sum()
        total.backward()
        found.append((made.logprobs.detach(), hidden.grad))
    for logprob, gradient in found[1:]:
        assert torch.equal(logprob, found[0][0])
        assert gradient is not None and found[0][1] is not None and torch.equal(gradient, found[0][1])


def test_bad_input() -> None:
    hidden, weight = head()
    options: dict[str, Any] = {"temperature": 1.0, "chunk_size": 4, "with_entropy": False}
    with pytest.raises(ValueError, match="weight must have the shape"):
        objectives.response_logprobs(hidden, weight[:, :3], TARGETS, **options)
    with pytest.raises(ValueError, match="targets must have the shape"):
        objectives.response_logprobs(hidden, weight, TARGETS[:3], **options)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        objectives.response_logprobs(hidden, weight, TARGETS, **{**options, "temperature": 0.0})
    with pytest.raises(ValueError, match="chunk_size must be above 0"):
        objectives.response_logprobs(hidden, weight, TARGETS, **{**options, "chunk_size": 0})
    with pytest.raises(ValueError, match="temperature must be above 0"):
        objectives.token_logprobs(noise(2, 3), torch.zeros(2, dtype=torch.long), -1.0)
    with pytest.raises(ValueError, match="shape"):
        objectives.token_logprobs(noise(2, 3), torch.zeros(3, dtype=torch.long), 1.0)


# Heads that are more than a product

BIAS = torch.linspace(-1.0, 1.0, V, dtype=torch.float64)
MAPS = {
    "scaled": objectives.LogitMap(scale=0.3),
    "turned": objectives.LogitMap(scale=-1.5),
    "capped": objectives.LogitMap(cap=2.0),
    "with a bias": objectives.LogitMap(bias=BIAS),
    "all of it": objectives.LogitMap(scale=0.7, cap=1.5, bias=BIAS),
}


def mapped(products: Tensor, logit_map: objectives.LogitMap) -> Tensor:
    """z = c·tanh(s·(W h + b)/c), written out."""
    inner = logit_map.scale * (products + (0.0 if logit_map.bias is None else logit_map.bias))
    return inner if logit_map.cap is None else logit_map.cap * torch.tanh(inner / logit_map.cap)


def test_a_logit_map_by_hand() -> None:
    products = torch.tensor([[0.0, 1.0, -3.0]], dtype=torch.float64)
    found = objectives.LogitMap(scale=2.0, cap=4.0, bias=torch.tensor([1.0, 0.0, 0.0])).apply(products)
    # 4·tanh(2/4), 4·tanh(2/4), 4·tanh(-6/4)
    assert torch.allclose(found, torch.tensor([[1.8484686, 1.8484686, -3.6205932]], dtype=torch.float64), atol=1e-6)
    with pytest.raises(ValueError, match="cap"):
        objectives.LogitMap(cap=0.0)


@pytest.mark.parametrize("logit_map", MAPS.values(), ids=MAPS.keys())
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("with_entropy", [False, True])
def test_mapped_logits_have_torchs_values_and_gradients(
    logit_map: objectives.LogitMap, trained: bool, with_entropy: bool
) -> None:
    ours = [x.requires_grad_() for x in head()]
    ours[1].requires_grad_(trained)
    theirs = [x.requires_grad_() for x in head()]
    options = {"temperature": 0.7, "chunk_size": 4, "with_entropy": with_entropy, "logit_map": logit_map}
    found = objectives.response_logprobs(*ours, TARGETS, **options)
    logits = mapped(theirs[0] @ theirs[1].T, logit_map) / 0.7
    logprobs, entropies = -cross_entropy(logits, TARGETS, reduction="none"), Categorical(logits=logits).entropy()
    loss, wanted = (found.logprobs * noise(N, seed=3)).sum(), (logprobs * noise(N, seed=3)).sum()
    if with_entropy:
        assert found.entropy is not None and torch.allclose(found.entropy, entropies, atol=1e-12)
        loss, wanted = loss + (found.entropy * noise(N, seed=4)).sum(), wanted + (entropies * noise(N, seed=4)).sum()
    assert torch.allclose(found.logprobs, logprobs, atol=1e-12)
    loss.backward()
    wanted.backward()
    for mine, reference in zip(ours[: 1 + trained], theirs, strict=False):
        assert mine.grad is not None and reference.grad is not None
        assert torch.allclose(mine.grad, reference.grad, atol=1e-11)
    with torch.no_grad():  # the numbers of a rollout are those of training
        again = objectives.response_logprobs(*ours, TARGETS, **options)
    assert torch.allclose(again.logprobs, found.logprobs, atol=1e-12)


def test_a_plain_head_is_not_touched() -> None:
    assert objectives.LogitMap().is_identity
    hidden, weight = head(torch.float32)
    plainly, through = (
        objectives.response_logprobs(
            hidden, weight, TARGETS, temperature=0.7, chunk_size=4, with_entropy=True, logit_map=logit_map
        )
        for logit_map in (objectives.LogitMap(), objectives.LogitMap(scale=1.0, cap=None))
    )
    assert torch.equal(plainly.logprobs, through.logprobs)


def test_second_derivatives_through_a_frozen_head_are_refused_instead_of_wrong() -> None:
    hidden, weight = torch.ones(2, 3, requires_grad=True), torch.arange(12.0).view(4, 3)
    targets, options = torch.tensor([0, 3]), {"temperature": 1.0, "chunk_size": 2, "with_entropy": False}
    found = objectives.response_logprobs(hidden, weight, targets, **options)
    (slope,) = torch.autograd.grad(found.logprobs.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_a_gpu_takes_all_rows_at_once_and_a_processor_those_that_its_cache_holds() -> None:
    with FakeTensorMode():
        assert softmax.rows_at_once(torch.empty(300, 50_000, device="cuda")) == 300
    assert softmax.rows_at_once(torch.empty(300, 50_000)) == 5 and softmax.rows_at_once(torch.empty(3, 10**6)) == 4
