from __future__ import annotations

import argparse
import io
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ddep.checkpoint import local_path, read_checkpoint, read_settings
from ddep.errors import UserError

WEIGHTS = {"backbone.conv.weight": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2])}


class Evil:
    """Creates the file that the environment variable EVIL names when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {os.environ['EVIL']}",)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "evil"
    monkeypatch.setenv("EVIL", str(path))
    return path


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_a_state_dict_is_found_under_its_usual_keys(
    tmp_path: Path, key: str | None, new_format: bool
) -> None:
    path = str(tmp_path / "model.pth")
    data = WEIGHTS if key is None else {key: WEIGHTS, "iteration": 7}
    torch.save(data, path, _use_new_zipfile_serialization=new_format)
    checkpoint = read_checkpoint(path)
    assert_equal(checkpoint.pop("model"), WEIGHTS)
    assert checkpoint == ({} if key is None else {"iteration": 7})


@pytest.mark.parametrize("name", ["new.pth", "legacy.pth", "model.pkl"])
def test_views_of_storages_are_read(tmp_path: Path, name: str) -> None:
    numbers = torch.arange(24.0)
    weights = {
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.0),
        "part": numbers[4:10],
        "transposed": numbers.view(4, 6).T,
        "expanded": torch.ones(1).expand(3, 5),
        "half": numbers.half(),
        "brain": numbers.bfloat16(),
        "flags": numbers > 4,
        "parameter": nn.Parameter(numbers),
    }
    path = tmp_path / name
    if name.endswith(".pkl"):
        path.write_bytes(pickle.dumps({"model": weights, "__author__": "them"}))
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=name == "new.pth")
    assert_equal(read_checkpoint(str(path))["model"], weights)


@pytest.mark.parametrize("new_format", [True, False])
def test_training_states_are_read(tmp_path: Path, new_format: bool) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 5])
    states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    data = {"model": model.state_dict(), **states, "size": torch.Size([2, 3]), "text": b"bytes"}
    path = tmp_path / "model.pth"
    torch.save(data, path, _use_new_zipfile_serialization=new_format)
    found = read_checkpoint(str(path))
    assert found["scheduler"] == states["scheduler"]
    assert found["optimizer"]["param_groups"] == states["optimizer"]["param_groups"]
    for index, state in states["optimizer"]["state"].items():
        assert_equal(found["optimizer"]["state"][index], state)
    assert (found["size"], found["text"]) == (torch.Size([2, 3]), b"bytes")


def test_version_numbers_of_modules_are_read(tmp_path: Path) -> None:
    path = str(tmp_path / "model.pth")
    torch.save({"model": nn.BatchNorm2d(2).state_dict()}, path)
    assert read_checkpoint(path)["model"]._metadata[""] == {"version": 2}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_model_zoo_pickle_holds_arrays_or_tensors(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.pkl"
    arrays = OrderedDict((name, tensor.numpy()) for name, tensor in WEIGHTS.items())
    for model in (arrays, WEIGHTS, {k: nn.Parameter(v, False) for k, v in WEIGHTS.items()}):
        data = {"model": model, "__author__": "them", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(data, protocol=protocol))
        checkpoint = read_checkpoint(str(path))
        assert_equal(checkpoint["model"], WEIGHTS)
        assert checkpoint["__author__"] == "them"
        assert checkpoint["matching_heuristics"] is True


def test_detectrons_pickles_are_recognised_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "R-50.pkl"
    blobs = {"conv1_w": np.ones(3, np.float32), "conv1_w_momentum": np.ones(3, np.float32)}
    for data in (blobs, {"blobs": blobs, "cfg": "a text"}):
        path.write_bytes(pickle.dumps(data, protocol=2))
        checkpoint = read_checkpoint(str(path))
        assert checkpoint["__author__"] == "Caffe2"
        assert_equal(checkpoint["model"], {"conv1_w": torch.ones(3)})


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pkl"
    # pickle.dumps({'model': {'a.b': np.array([1.5, -2], np.float32)}, '__author__': 'x'}, 2) with
    # Python 2, where the array's bytes are a str.
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt\x85R"
        b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\xc0?\x00\x00\x00\xc0tb"
    ).replace(b"bt\x85R", b"btR")
    path.write_bytes(b"\x80\x02}(U\x05model}U\x03a.b" + array + b"sU\n__author__U\x01xu.")
    assert_equal(read_checkpoint(str(path))["model"], {"a.b": torch.tensor([1.5, -2.0])})


def test_arrays_keep_their_values_whatever_their_layout(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    numbers = np.arange(24).reshape(2, 3, 4)
    arrays = {
        "a.big_endian": numbers.astype(">f4"),
        "a.fortran": np.asfortranarray(numbers.astype(np.float64)),
        "a.half": numbers.astype(np.float16)[:, ::2],
        "a.flags": numbers % 2 == 0,
        "a.scalar": np.array(3, np.int64),
        "a.empty": np.zeros((0, 3), np.float32),
    }
    for protocol in range(6):
        path.write_bytes(pickle.dumps({"model": arrays, "epoch": np.float32(1.5)}, protocol))
        checkpoint = read_checkpoint(str(path))
        assert checkpoint["epoch"] == 1.5
        for name, array in arrays.items():
            found = checkpoint["model"][name].numpy()
            assert found.dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found, array)


def test_safetensors_are_read_alone_and_in_folders(tmp_path: Path) -> None:
    first = {"a.b": torch.arange(6.0).view(2, 3)}
    second = {"c": torch.arange(3).to(torch.bfloat16)}
    save_file({**first, **second}, tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", tmp_path):
        assert_equal(read_checkpoint(str(path))["model"], {**first, **second})

    folder = tmp_path / "sharded"
    folder.mkdir()
    save_file(first, folder / "one.safetensors")
    save_file(second, folder / "two.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.b": "one.safetensors", "c": "two.safetensors"}}))
    assert_equal(read_checkpoint(str(folder))["model"], {**first, **second})
    for weight_map, message in [
        ({"a.b": "three.safetensors"}, r"names three\.safetensors, which is not in its folder"),
        ({"a.b": "../model.safetensors"}, "which is not in its folder"),
        ({"a.b": "one.safetensors", "d": "one.safetensors"}, "names d, which is in none"),
        ([], "has no weight_map"),
    ]:
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(UserError, match=message):
            read_checkpoint(str(folder))
    index.write_text("{")
    with pytest.raises(UserError, match=r"index\.json cannot be read \(JSONDecodeError\)"):
        read_checkpoint(str(folder))


def test_settings_are_read_from_the_weights_folder(tmp_path: Path) -> None:
    assert read_settings(str(tmp_path)) == {}
    (tmp_path / "config.json").write_text('{"architecture": "convnext_tiny"}')
    for path in (tmp_path, tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin"):
        assert read_settings(str(path)) == {"architecture": "convnext_tiny"}
    assert read_settings(str(tmp_path / "model.pth")) == {}
    for content in ("[1]", "{", "\xff", "[" * 100_000):
        (tmp_path / "config.json").write_text(content, encoding="latin1")
        with pytest.raises(UserError, match=r"config\.json .*expected a JSON object"):
            read_settings(str(tmp_path))


def test_no_code_of_a_torch_file_is_run(tmp_path: Path, evil: Path) -> None:
    path = str(tmp_path / "model.pth")
    torch.save({"model": WEIGHTS, "more": Evil()}, path)
    with pytest.raises(UserError, match=r"holds a Python object \((posix|os)\.system\)"):
        read_checkpoint(path)
    assert not evil.exists()


def test_no_code_of_a_pickle_is_run(tmp_path: Path, evil: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": Evil(), "__author__": "them"}))
    with pytest.raises(UserError, match=r"holds a Python object \((posix|os)\.system\)"):
        read_checkpoint(str(path))
    assert not evil.exists()


def test_no_code_of_a_file_within_a_pickle_is_run(tmp_path: Path, evil: Path) -> None:
    class Storage:
        """Pickles like a tensor's storage, whose bytes are a file of torch.save."""

        def __reduce__(self) -> tuple[Any, ...]:
            file = io.BytesIO()
            torch.save(Evil(), file, _use_new_zipfile_serialization=False)
            return torch.storage._load_from_bytes, (file.getvalue(),)

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": Storage()}, "__author__": "them"}))
    with pytest.raises(UserError, match="could run code"):
        read_checkpoint(str(path))
    assert not evil.exists()


def test_objects_are_refused_with_their_type(tmp_path: Path) -> None:
    path = str(tmp_path / "model.pth")
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(UserError, match=r"holds a Python object \(argparse.Namespace\).*state d"):
        read_checkpoint(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_truncated_file_is_named_wherever_it_ends(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": WEIGHTS}, path, _use_new_zipfile_serialization=new_format)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, len(whole) // 25):
        path.write_bytes(whole[:length])
        # A file cut within the name of a type seems to hold an unknown type.
        with pytest.raises(UserError, match=r"model\.pth cannot be read: it (is truncated|holds)"):
            read_checkpoint(str(path))


@pytest.mark.parametrize("name", ["model.pth", "model.pkl", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256)) * 9, b"text\n"])
def test_another_kind_of_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} cannot be read: .* copy or download it again"):
        read_checkpoint(str(path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([WEIGHTS], "holds a list; expected a dict of named tensors"),
        ({"model": {"a": 3}}, "holds a int named 'a'"),
        ({"model": {}}, "holds no weights"),
        ({}, "holds no weights"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, data: Any, message: str) -> None:
    path = str(tmp_path / "model.pth")
    torch.save(data, path)
    with pytest.raises(UserError, match=message):
        read_checkpoint(path)


def test_missing_files_folders_and_other_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.pth does not exist or is not a file"):
        local_path(str(tmp_path / "no.pth"))
    with pytest.raises(UserError, match="does not exist or is not a file"):
        local_path(str(tmp_path))
    with pytest.raises(UserError, match=r"is a folder without model\.safetensors, .* name a file"):
        read_checkpoint(str(tmp_path))
    with pytest.raises(UserError, match=r"checkpoint http://127.0.0.1:9/m.pth cannot be fetched"):
        local_path("http://127.0.0.1:9/m.pth")
