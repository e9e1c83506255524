"""The moving average of the weights, against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddep.engine.ema import WeightAverage
from ddep.errors import UserError


def make_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).double()
    model[2].requires_grad_(False)
    return model


def test_average_follows_its_formula() -> None:
    model = make_model()
    average = WeightAverage(model, 0.3)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for n in range(1, 6):
        model(torch.randn(4, 3, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        average.update()
        decay = min(0.3, (1 + n) / (10 + n))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with average.in_place():
        inside = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(inside[name], expected[name], rtol=1e-12, atol=1e-15)
        assert not torch.equal(inside[name], weights[name])
    # What is not trained is not copied, and counters are not averaged.
    saved = average.state_dict()
    assert not {"2.weight", "2.bias", "1.num_batches_tracked"} & saved["model"].keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_state_comes_back_and_must_fit() -> None:
    model = make_model()
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model[0].weight += 1
    average.update()
    saved = {
        "model": {name: value.clone() for name, value in average.state_dict()["model"].items()},
        "updates": 1,
    }
    other = WeightAverage(make_model(), 0.9)
    other.load_state_dict(saved)
    assert other.updates == 1
    for name, value in other.state_dict()["model"].items():
        assert torch.equal(value, saved["model"][name])
    model[2].requires_grad_(True)
    with pytest.raises(UserError, match=r"trained other parameters \(2\.bias\)"):
        WeightAverage(model, 0.9).load_state_dict(saved)


def test_restart_forgets() -> None:
    model = make_model()
    average = WeightAverage(model, 0.9)
    average.update()
    with torch.no_grad():
        model[0].weight.fill_(7)
    average.restart()
    assert average.updates == 0
    assert (average.state_dict()["model"]["0.weight"] == 7).all()
