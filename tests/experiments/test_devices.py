"""GPUs go to the runs that have the fewest others beside them."""

from __future__ import annotations

import pytest
import torch

from ddep.errors import UserError
from ddep.experiments.devices import Gpus, chosen_gpus


def test_gpus_with_the_fewest_runs_are_taken_first() -> None:
    gpus = Gpus(["0", "1", "2"])
    assert [gpus.take(1) for _ in range(4)] == [["0"], ["1"], ["2"], ["0"]]
    gpus.give_back(["1"])
    assert gpus.take(1) == ["1"]
    assert gpus.take(2) == ["1", "2"]
    with pytest.raises(UserError, match="num_gpus is 4, but there are 3 GPUs"):
        gpus.take(4)


def test_chosen_gpus_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert chosen_gpus(None) == ["0", "1"]
    assert chosen_gpus("1") == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert chosen_gpus(None) == ["5", "3"]
    with pytest.raises(UserError, match="--gpus 3,0: there is no GPU 0; expected some of 5, 3"):
        chosen_gpus("3,0")
