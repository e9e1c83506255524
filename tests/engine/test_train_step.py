"""A step: whole-batch gradients, numbers that go wrong, precision, state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddep.engine.train_step import TrainStep


class LineFit(nn.Module):
    """Weighted least squares: the loss is a sum over the images by the sum of their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.25], dtype=torch.float64))
        self.norm = nn.BatchNorm1d(2, affine=False).double()
        self.autocast: list[bool] = []

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def normalisers(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        return {"shares": sum(x["share"] for x in batch)}

    def forward(
        self, batch: list[dict[str, Any]], normalisers: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        x = torch.stack([image["x"] for image in batch])
        self.norm(x)  # for its statistics alone
        y = torch.tensor([image["y"] for image in batch], dtype=x.dtype)
        shares = torch.tensor([image["share"] for image in batch], dtype=x.dtype)
        squares = shares * (x @ self.weight.to(x.dtype) - y) ** 2
        return {
            "loss_square": squares.sum() / normalisers["shares"],
            "loss_weight": self.weight.abs().sum() * shares.sum() / normalisers["shares"],
        }


def make_batch(size: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "x": torch.randn(2, generator=generator, dtype=torch.float64),
            "y": float(index),
            "share": 1.0 + index % 3,
            "file_name": f"{seed}/{index}.png",
        }
        for index in range(size)
    ]


def make_step(*batches: list[dict[str, Any]], lr: float = 0.1, **options: Any) -> TrainStep:
    model = LineFit()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, fused=True)
    return TrainStep(model, batches, optimizer, normalisers=model.normalisers, **options)


def true_gradient(batch: list[dict[str, Any]], weight: Tensor) -> Tensor:
    total = sum(x["share"] for x in batch)
    squares = sum(2 * x["share"] * (x["x"] @ weight - x["y"]) * x["x"] for x in batch)
    return squares / total + weight.sign()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_gradients_and_losses_are_those_of_the_whole_batch(parts: int) -> None:
    batch = make_batch()
    step = make_step(batch, parts=parts)
    start = step.model.weight.detach().clone()
    result = step.run()
    assert len(step.model.autocast) == parts
    expected = true_gradient(batch, start)
    torch.testing.assert_close(step.model.weight.grad, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(step.model.weight.detach(), start - 0.1 * expected)
    assert result.grad_norm == pytest.approx(expected.norm().item())
    total = sum(x["share"] for x in batch)
    assert result.losses == pytest.approx(
        {
            "loss_square": sum(x["share"] * (x["x"] @ start - x["y"]).item() ** 2 for x in batch)
            / total,
            "loss_weight": 0.75,
        }
    )
    assert not result.skipped
    assert result.problem == ""


def test_gradients_are_scaled_down_to_the_largest_norm() -> None:
    batch = make_batch()
    step = make_step(batch, max_grad_norm=0.5)
    start = step.model.weight.detach().clone()
    result = step.run()
    expected = true_gradient(batch, start)
    assert result.grad_norm == pytest.approx(expected.norm().item())
    assert result.grad_norm > 0.5
    torch.testing.assert_close(
        step.model.weight.detach(),
        start - 0.1 * 0.5 * expected / expected.norm(),
        rtol=1e-5,
        atol=0,
    )


def test_gradients_of_a_small_norm_stay_as_they_are() -> None:
    with_limit, without = make_step(make_batch(), max_grad_norm=1e4), make_step(make_batch())
    assert with_limit.run().losses == without.run().losses
    assert torch.equal(with_limit.model.weight, without.model.weight)


@pytest.mark.parametrize("poison", [math.inf, math.nan])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_poisoned_batch_changes_nothing_and_is_named(poison: float, parts: int) -> None:
    bad = make_batch(seed=1)
    bad[1]["x"][0] = poison
    step = make_step(make_batch(), bad, make_batch(seed=2), parts=parts)
    step.run()
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    momentum = step.optimizer.state[step.model.weight]["momentum_buffer"].clone()
    result = step.run()
    assert result.skipped
    assert "loss_square is nan" in result.problem or "loss_square is inf" in result.problem
    assert "loss_weight" not in result.problem
    assert all(f"1/{index}.png" in result.problem for index in range(8))
    for name, value in step.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(step.optimizer.state[step.model.weight]["momentum_buffer"], momentum)
    assert step.last.skipped_in_a_row == 1
    # What comes next is as if the batch had never been.
    result = step.run()
    assert not result.skipped
    assert step.last.skipped_in_a_row == 0
    other = make_step(make_batch(), make_batch(seed=2), parts=parts)
    other.run()
    other.run()
    for name, value in step.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_gradients_that_go_wrong_with_a_finite_loss_are_noticed() -> None:
    step = make_step(make_batch(), make_batch(), make_batch())
    handle = step.model.weight.register_hook(lambda gradient: gradient * math.nan)
    before = step.model.weight.detach().clone()
    result = step.run()
    assert result.problem.startswith("the norm of the gradients is nan; the images: 0/0.png, ")
    step.run()
    assert step.last.skipped_in_a_row == 2
    assert torch.equal(step.model.weight, before)
    handle.remove()
    assert not step.run().skipped
    assert not torch.equal(step.model.weight, before)


def test_float16_scales_the_loss_and_skips_overflows() -> None:
    batch = make_batch()
    # The limit is above the gradients, but not above scaled ones.
    step = make_step(batch, batch, batch, precision=torch.float16, max_grad_norm=1000.0)
    start = step.model.weight.detach().clone()
    scale = step.state_dict()["grad_scaler"]["scale"]
    assert scale > 1
    result = step.run()
    expected = true_gradient(batch, start)
    torch.testing.assert_close(step.model.weight.detach(), start - 0.1 * expected)
    assert result.grad_norm == pytest.approx(expected.norm().item())
    # Gradients that overflow because of the scale are not the batch's fault.
    before = step.model.weight.detach().clone()
    handle = step.model.weight.register_hook(lambda gradient: gradient * math.inf)
    result = step.run()
    handle.remove()
    assert result.skipped
    assert result.problem == ""
    assert step.last.skipped_in_a_row == 0
    assert torch.equal(step.model.weight, before)
    assert step.state_dict()["grad_scaler"]["scale"] == scale / 2


def test_gradients_that_stay_infinite_without_a_scale_are_a_problem() -> None:
    batch = make_batch()
    step = make_step(*[batch] * 30, precision=torch.float16)
    step.model.weight.register_hook(lambda gradient: gradient * math.inf)
    results = [step.run() for _ in range(30)]
    assert all(result.skipped for result in results)
    assert not results[0].problem
    assert results[-1].problem
    assert step.last.skipped_in_a_row > 1


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
def test_the_forward_pass_runs_under_autocast_when_asked_to(precision: torch.dtype | None) -> None:
    step = make_step(make_batch(), precision=precision)
    step.run()
    assert step.model.autocast == [precision is not None]


def test_a_request_to_stop_is_passed_on() -> None:
    step = make_step(make_batch(), make_batch())
    assert step.run().stop == 0
    assert step.run(15).stop == 15


@pytest.mark.parametrize("precision", [None, torch.float16])
def test_a_restored_state_continues_in_the_same_way(precision: torch.dtype | None) -> None:
    batches = [make_batch(seed=seed) for seed in range(4)]
    whole = make_step(*batches, precision=precision)
    for _ in range(4):
        whole.run()
    first = make_step(*batches[:2], precision=precision)
    first.run()
    first.run()
    second = make_step(*batches[2:], precision=precision)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    second.run()
    second.run()
    assert torch.equal(second.model.weight, whole.model.weight)


def test_a_run_without_mixed_precision_is_resumed_with_it() -> None:
    first = make_step(make_batch())
    first.run()
    second = make_step(make_batch(), precision=torch.float16)
    second.load_state_dict(first.state_dict())
    assert second.state_dict()["grad_scaler"]["scale"] == 2.0**16
    first = make_step(make_batch())
    first.load_state_dict(second.state_dict())
    assert "grad_scaler" not in first.state_dict()


class TwoWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.tensor([w])) for w in (3.0, 5.0))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor]:
        return {"loss": (batch[0] * self.first * self.second).sum()}


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_held_parameters_stay_as_they_are(kind: str) -> None:
    model = TwoWeights()
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(
        [{"params": [model.first]}, {"params": [model.second]}],
        lr=0.1,
        weight_decay=0.5,
        fused=True,
        **options,
    )
    batches = [[torch.tensor([float(number)])] for number in (1, 2, 7)]
    step = TrainStep(model, batches, optimizer, max_grad_norm=1e9)
    for image in (1, 2):
        first = model.first.item()
        result = step.run(held=[model.second])
        assert result.losses == {"loss": pytest.approx(image * first * 5)}
        assert result.grad_norm == pytest.approx(image * 5)
        assert model.second.item() == 5
        assert model.second not in optimizer.state
        assert model.first.item() < first
    first = model.first.item()
    result = step.run()
    assert result.grad_norm == pytest.approx(7 * (first**2 + 5**2) ** 0.5)
    # Its first step: AdamW moves by the rate, SGD by rate times gradient; both decay.
    moved = 5 - 0.1 * 0.5 * 5 - 0.1 * (1 if kind == "AdamW" else 7 * first)
    assert model.second.item() == pytest.approx(moved)


class TwoNets(nn.Module):
    """Two weights, each with a loss of its own: ``x * first`` and ``-x * y * second``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([3.0, 4.0]))
        self.second = nn.Parameter(torch.tensor([-1.0, 2.0]))

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        x = torch.stack([image["x"] for image in batch]).mean(dim=0)
        return {
            "loss": (x * self.first).sum(),
            "d_loss": batch[0]["factor"] * (-x * self.second).sum(),
        }


def two_steps(*batches: list[dict[str, Any]], **options: Any) -> TrainStep:
    model = TwoNets()
    optimizer = torch.optim.SGD([model.first], lr=0.1, momentum=0.9, fused=True)
    other = torch.optim.Adam([model.second], lr=0.01, betas=(0.9, 0.99), fused=True)
    return TrainStep(model, batches, optimizer, more_optimizers=[other], **options)


def with_factor(factor: float, *xs: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"x": torch.tensor(x), "factor": factor} for x in xs]


@pytest.mark.parametrize("precision", [None, torch.float16])
@pytest.mark.parametrize("parts", [1, 2])
def test_each_optimizer_trains_its_own_parameters(
    parts: int, precision: torch.dtype | None
) -> None:
    batches = [with_factor(1.0, (1.0, 2.0), (3.0, -6.0)), with_factor(1.0, (0.0, 1.0), (2.0, 1.0))]
    step = two_steps(*batches, parts=parts, precision=precision)
    first, second = TwoNets().first, TwoNets().second
    sgd = torch.optim.SGD([first], lr=0.1, momentum=0.9)
    adam = torch.optim.Adam([second], lr=0.01, betas=(0.9, 0.99))
    for mean in ((2.0, -2.0), (1.0, 1.0)):
        first.grad, second.grad = torch.tensor(mean), -torch.tensor(mean)
        sgd.step()
        adam.step()
        result = step.run()
        assert result.grad_norms == pytest.approx([first.grad.norm().item()] * 2)
        assert result.grad_norm == result.grad_norms[0]
        torch.testing.assert_close(step.model.first, first)
        torch.testing.assert_close(step.model.second, second)


def test_the_norm_of_each_optimizer_is_limited_by_itself() -> None:
    step = two_steps(with_factor(100.0, (3.0, 4.0)), max_grad_norm=10.0)
    result = step.run()
    assert result.grad_norms == pytest.approx([5, 500])
    torch.testing.assert_close(step.model.first.grad, torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(step.model.second.grad, torch.tensor([-6.0, -8.0]))


def everything(step: TrainStep) -> dict[str, Tensor]:
    """Weights and the state of both optimizers."""
    states = {
        f"{i} {name}": value
        for i, optimizer in enumerate((step.optimizer, *step.more_optimizers))
        for state in optimizer.state.values()
        for name, value in state.items()
    }
    return {name: value.clone() for name, value in {**step.model.state_dict(), **states}.items()}


@pytest.mark.parametrize("wrong", ["first", "second", "d_loss"])
@pytest.mark.parametrize("precision", [None, torch.float16])
def test_one_bad_number_stops_all_optimizers(wrong: str, precision: torch.dtype | None) -> None:
    good, bad = with_factor(1.0, (1.0, 2.0)), with_factor(math.nan, (1.0, 2.0))
    step = two_steps(good, bad if wrong == "d_loss" else good, good, precision=precision)
    step.run()
    before = everything(step)
    if wrong != "d_loss":
        weight = getattr(step.model, wrong)
        handle = weight.register_hook(lambda gradient: gradient * math.inf)
        assert step.run().skipped
        handle.remove()
    else:
        assert "d_loss is nan" in step.run().problem
    after = everything(step)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert not step.run().skipped


def test_infinite_gradients_of_another_optimizer_are_named() -> None:
    step = two_steps(with_factor(1.0, (1.0, 2.0)))
    step.model.second.register_hook(lambda gradient: gradient * math.inf)
    result = step.run()
    assert result.problem.startswith("the norm of the gradients is inf; the images: ")


@pytest.mark.parametrize("precision", [None, torch.float16])
def test_all_optimizers_continue_from_a_restored_state(precision: torch.dtype | None) -> None:
    batches = [with_factor(0.5 + seed, (1.0 - seed, 2.0)) for seed in range(4)]
    whole = two_steps(*batches, precision=precision)
    for _ in batches:
        whole.run()
    first = two_steps(*batches[:2], precision=precision)
    first.run()
    first.run()
    second = two_steps(*batches[2:], precision=precision)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    second.run()
    second.run()
    expected = everything(whole)
    assert "1 exp_avg_sq" in expected
    for name, value in everything(second).items():
        assert torch.equal(value, expected[name]), name


def test_a_state_of_fewer_optimizers_is_refused() -> None:
    step = two_steps()
    state = step.state_dict()
    del state["more_optimizers"]
    with pytest.raises(ValueError, match="its optimizers were 1, not 2"):
        step.load_state_dict(state)
