from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ddep.checkpoint import Checkpointer
from ddep.errors import UserError
from tests.checkpoint.full_disk import full_disk


class Counter:
    """Something with a state, like a trainer."""

    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"]


def make_model(width: int = 2) -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": nn.Linear(width, 2), "predictor": nn.Linear(2, 1)})


def test_training_continues_from_the_latest_checkpoint(tmp_path: Path) -> None:
    model = make_model()
    checkpointer = Checkpointer(model, str(tmp_path), trainer=Counter(7))
    assert not checkpointer.has_checkpoint()
    checkpointer.save("model_0000001", iteration=1)
    with torch.no_grad():
        model["predictor"].bias.fill_(5)
    checkpointer.save("model_final", iteration=2)
    assert sorted(os.listdir(tmp_path)) == [
        "last_checkpoint",
        "model_0000001.pth",
        "model_0000001.pth.sha256",
        "model_final.pth",
        "model_final.pth.sha256",
    ]

    other, counter = make_model(), Counter(0)
    resumed = Checkpointer(other, str(tmp_path), trainer=counter)
    rest = resumed.resume_or_load("ignored.pth", resume=True)
    assert rest["iteration"] == 2
    assert counter.value == 7
    assert other["predictor"].bias.item() == 5
    assert resumed.report is not None
    assert resumed.report.loaded == list(model.state_dict())


def test_starting_loads_weights_and_no_state(tmp_path: Path) -> None:
    Checkpointer(make_model(), str(tmp_path), trainer=Counter(7)).save("model_final")
    counter = Counter(0)
    checkpointer = Checkpointer(make_model(3), trainer=counter)
    checkpointer.load(str(tmp_path / "model_final.pth"), checkpointables=[])
    assert counter.value == 0
    assert checkpointer.report is not None
    assert list(checkpointer.report.mismatched) == ["backbone.weight"]


@pytest.mark.parametrize("name", ["model.pth", "model.pkl", "model.safetensors"])
def test_weights_may_come_in_files_of_three_kinds(tmp_path: Path, name: str) -> None:
    weights = make_model().state_dict()
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save(weights, path)
    elif name.endswith(".pkl"):
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "them"}))
    else:
        save_file(weights, path)
    model = make_model()
    checkpointer = Checkpointer(model)
    checkpointer.load(str(path), checkpointables=[])
    assert checkpointer.report is not None
    assert checkpointer.report.loaded == list(weights)
    assert all(torch.equal(model.state_dict()[key], weights[key]) for key in weights)


def test_a_full_disk_leaves_all_earlier_files_intact(tmp_path: Path) -> None:
    model = make_model()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001")
    with torch.no_grad():
        model["predictor"].bias.fill_(5)
    with full_disk(1000):
        with pytest.raises(UserError, match=r"model_0000001\.pth cannot be written: File too"):
            checkpointer.save("model_0000001")
        with pytest.raises(UserError, match=r"model_final\.pth cannot be written"):
            checkpointer.save("model_final")
    assert sorted(os.listdir(tmp_path)) == [
        "last_checkpoint",
        "model_0000001.pth",
        "model_0000001.pth.sha256",
    ]
    Checkpointer(model, str(tmp_path)).resume_or_load("", resume=True)
    assert model["predictor"].bias.item() != 5


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    class Gathered(Counter):
        def state_dict(self) -> dict[str, Any]:
            calls.append(1)
            return super().state_dict()

    calls: list[int] = []
    checkpointer = Checkpointer(
        make_model(), str(tmp_path), save_to_disk=False, trainer=Gathered(1)
    )
    checkpointer.save("model_final")
    assert os.listdir(tmp_path) == []
    assert calls == [1], "the main process waits for the state of the others"


def test_every_weight_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Checkpointer(make_model(3), str(tmp_path))
    source.save("model_final")
    with caplog.at_level(logging.DEBUG, logger="ddep"):
        Checkpointer(make_model()).load(str(tmp_path / "model_final.pth"))
    levels: dict[int, str] = {}
    for record in caplog.records:
        levels[record.levelno] = levels.get(record.levelno, "") + record.getMessage()
    assert "backbone" in levels[logging.INFO]
    assert "backbone.weight is (2, 3) in" in levels[logging.WARNING]
    assert "shape mismatch  backbone.weight" in levels[logging.DEBUG]
    assert "loaded          backbone.bias" in levels[logging.DEBUG]
    assert "loaded          predictor.weight" in levels[logging.DEBUG]


def test_many_mismatches_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make(width: int) -> nn.ModuleDict:
        layers = nn.ModuleList([nn.Linear(width, 2) for _ in range(5)])
        return nn.ModuleDict({"backbone": layers, "predictor": nn.Linear(2, 1)})

    Checkpointer(make(3), str(tmp_path)).save("model_final")
    with caplog.at_level(logging.DEBUG, logger="ddep"):
        Checkpointer(make(2)).load(str(tmp_path / "model_final.pth"))
    [warning] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "another shape: 5, all are in log.txt; the first: backbone.0.weight is (2, 3)" in warning
    debug = [r.getMessage() for r in caplog.records if r.levelno == logging.DEBUG]
    assert "backbone.4.weight is (2, 3) in" in debug[-1]


def test_resuming_needs_a_state_to_resume(tmp_path: Path) -> None:
    Checkpointer(make_model(), str(tmp_path)).save("slim")
    with pytest.raises(UserError, match=r"slim\.pth holds weights but no state .*\(trainer\)"):
        Checkpointer(make_model(), str(tmp_path), trainer=Counter(0)).resume_or_load("")


def test_resuming_needs_the_same_model(tmp_path: Path) -> None:
    Checkpointer(make_model(3), str(tmp_path), trainer=Counter(0)).save("model_final")
    with pytest.raises(UserError, match=r"of another model \(1 weights differ, such as backbone.w"):
        Checkpointer(make_model(), str(tmp_path), trainer=Counter(0)).resume_or_load("")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    checkpointer = Checkpointer(make_model(), str(tmp_path))
    with pytest.raises(UserError, match=r"no\.pth does not exist"):
        checkpointer.load(str(tmp_path / "no.pth"))


def test_the_best_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    checkpointer = Checkpointer(make_model(), str(tmp_path))
    checkpointer.save("model_0000001")
    checkpointer.save("model_best", is_last=False, best=0.5)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")
    assert checkpointer.load(str(tmp_path / "model_best.pth"))["best"] == 0.5


def test_damaged_weights_are_not_loaded(tmp_path: Path) -> None:
    model = make_model()
    Checkpointer(model, str(tmp_path)).save("model_final")
    path = tmp_path / "model_final.pth"
    data = bytearray(path.read_bytes())
    weights = model["backbone"].weight.detach().numpy().tobytes()
    data[data.index(weights)] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"model_final\.pth is damaged: its checksum is not"):
        Checkpointer(make_model()).load(str(path), checkpointables=[])
    os.remove(f"{path}.sha256")
    Checkpointer(make_model()).load(str(path), checkpointables=[])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=r"run/model_final\.pth cannot be written: No such file"):
        Checkpointer(make_model(), str(folder)).save("model_final")
    assert not folder.exists()
