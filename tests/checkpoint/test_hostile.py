"""Files that try to run a command, or that claim sizes and contents they do not have."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ddep.checkpoint import read_checkpoint
from ddep.errors import UserError
from tests.checkpoint import hostile

HUGE = 10**12


@pytest.mark.parametrize("name", hostile.FILES)
@pytest.mark.parametrize("how", hostile.PICKLES)
def test_no_command_is_run(tmp_path: Path, name: str, how: str) -> None:
    path, trace = hostile.write(tmp_path, name, how)
    # Without protection the command does run, so the test would notice it.
    with contextlib.suppress(Exception):
        hostile.read_carelessly(path)
    assert trace.exists()
    trace.unlink()
    with pytest.raises(UserError, match=rf"{name} cannot be read: it (holds|is)") as caught:
        read_checkpoint(str(path))
    assert "\n" not in str(caught.value)
    assert not trace.exists()


class Storage:
    """A storage of float32 numbers, kept outside the pickle as torch.save does."""

    def __init__(self, elements: int, kind: Any = torch.FloatStorage) -> None:
        self.id = ("storage", kind, "0", "cpu", elements)


class Tensor:
    """Pickles as a tensor with any claims."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any) -> None:
        self.claims = (storage, offset, size, stride, False, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.claims


def pickled(data: Any, view: tuple = ()) -> bytes:
    """Pickle like torch.save; ``view`` is the part that only the legacy format has of a storage."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=2)
    pickler.persistent_id = lambda o: (*o.id, *view) if isinstance(o, Storage) else None
    pickler.dump(data)
    return file.getvalue()


def archive(data: Any, compression: int = zipfile.ZIP_STORED, names: tuple = ("0",)) -> bytes:
    """A file of torch.save with 16 bytes in each storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as records:
        records.writestr("archive/data.pkl", data if isinstance(data, bytes) else pickled(data))
        for name in names:
            records.writestr(f"archive/data/{name}", np.arange(4, dtype=np.float32).tobytes())
        records.writestr("archive/version", "3\n")
    return file.getvalue()


def legacy(data: Any) -> bytes:
    """A file in the legacy format, with 16 bytes in one storage."""
    parts = [
        pickled(torch.serialization.MAGIC_NUMBER),
        pickled(torch.serialization.PROTOCOL_VERSION),
        pickled({"little_endian": True}),
        pickled(data, view=(None,)),
        pickled(["0"]),
        struct.pack("<q", 4) + np.arange(4, dtype=np.float32).tobytes(),
    ]
    return b"".join(parts)


def array(shape: Any, dtype: Any = "f4", data: bytes = bytes(16)) -> bytes:
    """A pickled array with any claims."""

    class Claims:
        def __reduce__(self) -> tuple[Any, ...]:
            function, arguments, _ = np.zeros(0).__reduce__()
            return function, arguments, (1, shape, np.dtype(dtype), False, data)

    return pickle.dumps({"model": {"a.b": Claims()}})


def deep(depth: int = 60) -> bytes:
    """A dict with a key that takes for ever to hash: each tuple holds the one before twice."""
    return b"}" + b")" + b"q\x00h\x00\x86" * depth + b"Ns."


def tensor(size: Any, stride: Any, offset: int = 0, elements: int = 4) -> dict[str, Any]:
    return {"a.b": Tensor(Storage(elements), offset, size, stride)}


def test_files_with_true_claims_are_read(tmp_path: Path) -> None:
    for name, content in {
        "a.pth": archive(tensor((2, 2), (2, 1))),
        "b.pth": legacy(tensor((2, 2), (2, 1))),
        "c.pkl": array((2, 2), data=np.arange(4, dtype=np.float32).tobytes()),
    }.items():
        (tmp_path / name).write_bytes(content)
        found = read_checkpoint(str(tmp_path / name))["model"]["a.b"]
        assert torch.equal(found, torch.tensor([[0.0, 1.0], [2.0, 3.0]]))


@pytest.mark.parametrize("wrap", [archive, legacy])
@pytest.mark.parametrize(
    "claims",
    [
        tensor((HUGE,), (1,)),
        tensor((HUGE,), (1,), elements=HUGE),
        tensor((HUGE,), (0,)),
        tensor((2, 2), (3, 1)),
        tensor((2, 2), (2, 1), offset=1),
        tensor((-1,), (1,)),
        tensor((2, 2), (2,)),
        tensor((2.5,), (1,)),
        tensor((True,), (1,)),
        tensor((4,), (1,), offset=-1),
        tensor((4,), (1,), elements=5 * 10**6),
        tensor((4,), (1,), elements=-4),
        {"a.b": Tensor(None, 0, (1,), (1,))},
    ],
)
def test_tensors_lie_within_the_file(
    tmp_path: Path, wrap: Callable[[Any], bytes], claims: dict[str, Any]
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(wrap(claims))
    # The error comes from our check, not from a lack of memory: nothing was allocated.
    with pytest.raises(UserError, match=r"not a checkpoint \(UnpicklingError\)"):
        read_checkpoint(str(path))


FINE = tensor((4,), (1,))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("compressed.pth", archive(FINE, zipfile.ZIP_DEFLATED)),
        ("twice.pth", archive(FINE, names=("a", "A"))),
        ("deep.pth", archive(deep())),
        ("deep.pkl", deep()),
        ("shape.pkl", array((HUGE,))),
        ("negative.pkl", array((-2, -2))),
        ("text.pkl", array((4,), data=bytes(15))),
        ("object.pkl", array((2,), "O", [1, 2])),
        ("record.pkl", array((2,), [("a", "f4")], bytes(8))),
        ("other.pkl", pickle.dumps({"model": {}}).replace(b"model", b"m\x8cod\x8c")),
    ],
)
def test_absurd_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} (cannot be read|holds)") as caught:
        read_checkpoint(str(path))
    assert "MemoryError" not in str(caught.value)


@pytest.mark.parametrize(
    "opcode",
    [
        b"\x8e" + struct.pack("<Q", 2**60),  # BINBYTES8
        b"\x96" + struct.pack("<Q", 2**60),  # BYTEARRAY8
        b"\x8d" + struct.pack("<Q", 2**60),  # BINUNICODE8
        b"B" + struct.pack("<I", 2**32 - 1),  # BINBYTES
        b"\x8b" + struct.pack("<i", 2**31 - 1),  # LONG4
        b"\x95" + struct.pack("<Q", 2**60),  # FRAME
    ],
)
@pytest.mark.parametrize("name", ["model.pkl", "model.pth", "legacy.pth"])
def test_lengths_in_pickles_are_not_trusted(tmp_path: Path, name: str, opcode: bytes) -> None:
    content = b"\x80\x04" + opcode
    if name == "model.pth":
        content = archive(content)
    elif name == "legacy.pth":
        content = legacy(FINE)[: len(pickled(torch.serialization.MAGIC_NUMBER))] + content
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="it is truncated") as caught:
        read_checkpoint(str(path))
    assert "MemoryError" not in str(caught.value)


def test_a_far_memo_takes_no_memory(tmp_path: Path) -> None:
    # pickle.load makes a table up to the number: 16 GB.
    content = pickle.dumps({"a.b": torch.ones(1).numpy()}, protocol=2)
    path = tmp_path / "model.pkl"
    path.write_bytes(content[:-1] + b"r" + struct.pack("<I", 2**31) + b".")
    assert torch.equal(read_checkpoint(str(path))["model"]["a.b"], torch.ones(1))


@pytest.mark.parametrize(
    "header",
    [
        b'{"a.b":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}',
        b'{"a.b":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,16]}}',
        b'{"a.b":{"dtype":"F32","shape":[4],"data_offsets":[4,20]}}',
        b'{"a.b":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}',
        b'{"a.b":' * 100_000,
        b"null",
    ],
)
def test_safetensors_hold_what_their_header_says(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    for length in (len(header), 2**62):
        path.write_bytes(struct.pack("<Q", length) + header + bytes(16))
        with pytest.raises(UserError, match=r"safetensors cannot be read: .*SafetensorError"):
            read_checkpoint(str(path))


def test_names_and_kinds_of_weights_are_checked(tmp_path: Path) -> None:
    path = str(tmp_path / "model.pth")
    for weights, message in [
        ({"a\nb": torch.ones(1)}, r"holds something named 'a\\nb'; expected names"),
        ({3: torch.ones(1)}, "holds something named 3; expected names"),
    ]:
        torch.save({"model": weights}, path)
        with pytest.raises(UserError, match=message):
            read_checkpoint(path)
    path = str(tmp_path / "model.safetensors")
    save_file({"a": torch.ones(2, dtype=torch.complex64)}, path)
    with pytest.raises(UserError, match="holds a, whose numbers are complex; expected real"):
        read_checkpoint(path)
