"""The choice of the implementation, and what is logged about it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from types import SimpleNamespace

import pytest
import torch

from ddep.errors import UserError
from ddep.ops import extension
from tests.ops.formula import apply, random_inputs, relative_error, tent_formula

NOT_COMPILED = ModuleNotFoundError("No module named 'ddep._C'", name="ddep._C")
UNLOADABLE = ImportError("undefined symbol: _ZN2at4_ops", name="ddep._C", path="_C.so")
LIBRARY = SimpleNamespace(with_cuda=0, cpu_kernels="AVX2")
LIBRARY_WITH_CUDA = SimpleNamespace(with_cuda=1, cpu_kernels="AVX2")


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DDEP_OPS", raising=False)
    extension._decide.cache_clear()
    yield
    extension._decide.cache_clear()


def decide(monkeypatch, caplog, library, choice: str, device: str = "cpu") -> tuple[bool, str, str]:
    """Return the decision, and the level and text of the log message."""
    monkeypatch.setattr(extension, "_LIBRARY", library)
    monkeypatch.setenv("DDEP_OPS", choice)
    with caplog.at_level(logging.INFO):
        decision = extension.use_compiled(device)
        assert extension.use_compiled(device) == decision
    (record,) = caplog.records  # logged once
    return decision, record.levelname, record.message


@pytest.mark.parametrize("choice", ["", "compiled"])
def test_compiled(monkeypatch, caplog, choice):
    expected = "Operators on cpu: compiled (AVX2 kernels)"
    assert decide(monkeypatch, caplog, LIBRARY, choice) == (True, "INFO", expected)


def test_compiled_for_cuda(monkeypatch, caplog):
    expected = "Operators on cuda: compiled"
    found = decide(monkeypatch, caplog, LIBRARY_WITH_CUDA, "", device="cuda")
    assert found == (True, "INFO", expected)


def test_compiled_without_cuda(monkeypatch, caplog):
    decision, level, message = decide(monkeypatch, caplog, LIBRARY, "", device="cuda")
    assert not decision and level == "WARNING"
    assert message.startswith(
        "Operators on cuda: reference, as the operators were compiled without CUDA; run "
        "'FORCE_CUDA=1 pip install"
    )


@pytest.mark.parametrize("library", [LIBRARY, NOT_COMPILED, UNLOADABLE])
@pytest.mark.parametrize("device", ["cpu", "cuda", "xpu"])
def test_reference_on_demand(monkeypatch, caplog, library, device):
    found = decide(monkeypatch, caplog, library, "reference", device)
    expected = f"Operators on {device}: reference, as DDEP_OPS says"
    assert found == (False, "INFO", expected)


def test_not_compiled(monkeypatch, caplog):
    decision, level, message = decide(monkeypatch, caplog, NOT_COMPILED, "")
    assert not decision and level == "WARNING"
    assert message == (
        "Operators on cpu: reference, as the operators were not compiled; run 'pip "
        "install -e . --no-build-isolation' with a C++ compiler"
    )


def test_unloadable(monkeypatch, caplog):
    """As after an update of PyTorch."""
    decision, level, message = decide(monkeypatch, caplog, UNLOADABLE, "")
    assert not decision and level == "WARNING"
    assert "the compiled operators cannot be loaded (undefined symbol: _ZN2at4_ops)" in message
    assert "pip install -e . --no-build-isolation" in message


def test_other_devices(monkeypatch, caplog):
    decision, level, message = decide(monkeypatch, caplog, LIBRARY, "", device="xpu")
    assert not decision and level == "WARNING"
    assert message.endswith("reference, as the compiled operators are for CPU and CUDA")


@pytest.mark.parametrize(
    ("library", "device", "reason"),
    [
        (NOT_COMPILED, "cpu", "the operators were not compiled; run 'pip install"),
        (UNLOADABLE, "cpu", "the compiled operators cannot be loaded (undefined symbol"),
        (LIBRARY, "cuda", "the operators were compiled without CUDA; run 'FORCE_CUDA=1 pip"),
        (LIBRARY, "xpu", "the compiled operators are for CPU and CUDA"),
    ],
)
def test_compiled_is_not_replaced(monkeypatch, library, device, reason):
    monkeypatch.setattr(extension, "_LIBRARY", library)
    monkeypatch.setenv("DDEP_OPS", "compiled")
    with pytest.raises(UserError) as error:
        extension.use_compiled(device)
    assert str(error.value).startswith(f"DDEP_OPS is 'compiled', but {reason}")


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("DDEP_OPS", "fast")
    with pytest.raises(UserError) as error:
        extension.use_compiled("cpu")
    assert str(error.value) == ("DDEP_OPS is 'fast'; expected 'compiled', 'reference' or nothing")


@pytest.mark.parametrize("fused", [False, True])
def test_functions_run_what_was_decided(monkeypatch, fused):
    calls = []
    suffix = "_fused" if fused else ""
    name = f"ms_deform_attn{suffix}_reference"
    functions = sys.modules["ddep.ops.ms_deform_attn"]
    reference = getattr(functions, name)
    monkeypatch.setattr(
        functions, name, lambda *arguments: calls.append(1) or reference(*arguments)
    )
    inputs = random_inputs([(3, 5), (2, 4)], fused)
    monkeypatch.setenv("DDEP_OPS", "reference")
    found = apply(inputs)
    assert calls == [1]
    assert relative_error(found, tent_formula(inputs)) < 1e-14
    if isinstance(extension._LIBRARY, ImportError):
        pytest.skip("the operators were not compiled")
    extension._decide.cache_clear()
    monkeypatch.setenv("DDEP_OPS", "compiled")
    torch.testing.assert_close(apply(inputs), found, rtol=0, atol=1e-12)
    assert calls == [1]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleSpec | None], None]:
    """A function that loads the library again, from the given spec."""

    def load(spec: ModuleSpec | None) -> None:
        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "ddep._C" and spec is None:
                    raise ModuleNotFoundError(f"No module named '{name}'", name=name)
                return spec if name == "ddep._C" else None

        monkeypatch.delitem(sys.modules, "ddep._C", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
        monkeypatch.setattr(extension, "_LIBRARY", extension._load())

    return load


def check_reference_runs(monkeypatch: pytest.MonkeyPatch, caplog) -> str:
    """Return the one warning."""
    for fused in (False, True, False):
        inputs = random_inputs([(3, 5), (2, 4)], fused)
        assert relative_error(apply(inputs), tent_formula(inputs)) < 1e-14
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    extension._decide.cache_clear()
    monkeypatch.setenv("DDEP_OPS", "compiled")
    with pytest.raises(UserError, match="^DDEP_OPS is 'compiled', but the "):
        apply(inputs)
    return record.message


def test_without_library_the_reference_runs(monkeypatch, caplog, loads):
    loads(None)
    message = check_reference_runs(monkeypatch, caplog)
    assert "reference, as the operators were not compiled" in message


def test_with_a_damaged_library_the_reference_runs(monkeypatch, caplog, loads, tmp_path):
    damaged = tmp_path / "_C.so"
    damaged.write_bytes(b"no library")
    loads(spec_from_file_location("ddep._C", str(damaged)))
    message = check_reference_runs(monkeypatch, caplog)
    assert f"the compiled operators cannot be loaded ({damaged}: " in message


def test_with_a_library_of_an_earlier_version_the_reference_runs(
    monkeypatch, caplog, loads, tmp_path
):
    """It is there and loads, and lacks an operator."""

    def refuse(name: str) -> None:
        raise RuntimeError(f"operator {name} does not exist")

    (tmp_path / "_C.py").write_text("")
    monkeypatch.setattr(torch.library, "register_fake", refuse)
    loads(spec_from_file_location("ddep._C", str(tmp_path / "_C.py")))
    message = check_reference_runs(monkeypatch, caplog)
    assert "the compiled operators cannot be loaded (operator ddep::ms_deform_attn does" in message
