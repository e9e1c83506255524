"""What setup.py compiles, its messages if it cannot, and kernels without warnings."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import setuptools
import torch
from torch.utils import cpp_extension

from tests.ops.native_build import check_quiet

pytestmark = pytest.mark.native

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "ddep" / "ops" / "csrc"
COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]


@pytest.fixture
def setup_py(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module that installs nothing, without user variables, GPU and toolkit."""
    for name in ("DDEP_OPS", "FORCE_CUDA", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    spec = importlib.util.spec_from_file_location("setup_of_ddep", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setenv("DDEP_OPS", "reference")  # so that importing it decides nothing
        spec.loader.exec_module(module)
    return module


def toolkit(folder: Path, release: str) -> str:
    """A CUDA toolkit that only knows its version."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.88'\n")
    nvcc.chmod(0o755)
    return str(folder)


def warned(setup_py: ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one warning, or an empty string if something is compiled."""
    capsys.readouterr()
    arguments = setup_py.what_to_compile()
    output = capsys.readouterr()
    lines = [line for line in output.err.splitlines() if not line.startswith("note:")]
    assert not output.out
    if arguments:
        assert not lines
        assert [extension.name for extension in arguments["ext_modules"]] == ["ddep._C"]
        assert arguments["cmdclass"] == {"build_ext": cpp_extension.BuildExtension}
        return ""
    (line,) = lines
    assert line.startswith("warning: the operators are not compiled, ")
    return line


@pytest.mark.skipif(not COMPILERS, reason="needs a C++ compiler")
def test_compiles_by_default(setup_py, capsys, monkeypatch):
    monkeypatch.setenv("CXX", COMPILERS[0])
    assert warned(setup_py, capsys) == ""


def test_reference_on_demand(setup_py, capsys, monkeypatch):
    monkeypatch.setenv("DDEP_OPS", "reference")
    assert warned(setup_py, capsys).endswith(": DDEP_OPS is 'reference'")


def test_without_compiler(setup_py, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "there is no C++ compiler 'no-such-compiler'" in warned(setup_py, capsys)


def test_without_torch(setup_py, capsys, monkeypatch):
    """As pip builds without --no-build-isolation."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "add --no-build-isolation" in warned(setup_py, capsys)


def test_without_headers_of_python(setup_py, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", sys.executable)  # any program that exists
    monkeypatch.setattr(setup_py.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "Python's headers are missing" in warned(setup_py, capsys)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("compiled", "error: DDEP_OPS is 'compiled', but there is no C++ compiler 'no-such-"),
        ("compield", "error: DDEP_OPS is 'compield'; expected 'compiled', 'reference' or nothing"),
    ],
)
def test_an_impossible_choice_is_an_error(setup_py, monkeypatch, choice, message):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("DDEP_OPS", choice)
    with pytest.raises(SystemExit) as stopped:
        setup_py.what_to_compile()
    assert str(stopped.value).startswith(message)


def test_without_gpu(setup_py, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert setup_py.why_no_cuda().startswith("no GPU is visible (FORCE_CUDA=1")
    monkeypatch.setenv("FORCE_CUDA", "1")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", toolkit(tmp_path, "13.2"))
    assert setup_py.why_no_cuda() == ""


@pytest.mark.parametrize(
    ("force", "message"),
    [
        ("1", "error: FORCE_CUDA is 1, but there is no CUDA toolkit (set CUDA_HOME"),
        ("yes", "error: FORCE_CUDA is 'yes'; expected 1, 0 or nothing"),
    ],
)
def test_forcing_cuda_in_vain_is_an_error(setup_py, monkeypatch, force, message):
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setenv("FORCE_CUDA", force)
    with pytest.raises(SystemExit) as stopped:
        setup_py.why_no_cuda()
    assert str(stopped.value).startswith(message)


def test_torch_without_cuda(setup_py, monkeypatch):
    """Such as a build for AMD's GPUs, which claims that CUDA is available."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert setup_py.why_no_cuda() == "this PyTorch is built without CUDA"


def test_gpu_without_toolkit(setup_py, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    assert setup_py.why_no_cuda().startswith("there is no CUDA toolkit (set CUDA_HOME")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    assert setup_py.why_no_cuda().startswith("there is no CUDA toolkit (set CUDA_HOME")


@pytest.mark.parametrize(("release", "fits"), [("13.0", True), ("13.2", True), ("12.9", False)])
def test_gpu_with_toolkit(setup_py, monkeypatch, tmp_path, release, fits):
    """The toolkit's major version has to be that of PyTorch's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", toolkit(tmp_path, release))
    reason = setup_py.why_no_cuda()
    assert fits or reason == "the toolkit is of release 12, PyTorch of CUDA 13.2 (set CUDA_HOME)"
    assert not fits or reason == ""


@pytest.mark.skipif(not COMPILERS, reason="needs a C++ compiler")
def test_what_is_compiled_for_the_cpu(setup_py, capsys, monkeypatch):
    monkeypatch.setenv("CXX", COMPILERS[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    extension = setup_py.operators()
    output = capsys.readouterr().err
    assert output.startswith("note: the CUDA kernels are not compiled: there is no CUDA toolkit")
    assert output.count("\n") == 1
    sources = sorted(str(path.relative_to(ROOT)) for path in CSRC.rglob("*.cpp"))
    assert extension.sources == sources
    assert not extension.define_macros
    headers = {str(path.relative_to(ROOT)) for path in CSRC.rglob("*.h")}
    assert headers <= set(extension.depends)
    assert ("-fopenmp" in extension.extra_compile_args["cxx"]) == (sys.platform == "linux")


@pytest.mark.skipif(not COMPILERS, reason="needs a C++ compiler")
def test_what_is_compiled_for_cuda(setup_py, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", COMPILERS[0])
    monkeypatch.setenv("FORCE_CUDA", "1")
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", toolkit(tmp_path, "13.2"))
    extension = setup_py.operators()
    assert capsys.readouterr().err == ""
    sources = [*CSRC.rglob("*.cpp"), *CSRC.rglob("*.cu")]
    assert extension.sources == sorted(str(path.relative_to(ROOT)) for path in sources)
    assert any(source.endswith(".cu") for source in extension.sources)
    assert ("DDEP_WITH_CUDA", None) in extension.define_macros


def test_headers_that_the_toolkit_lacks(setup_py, monkeypatch, tmp_path):
    """They come from PyTorch's packages, after the toolkit's own."""
    site_packages = tmp_path / "site-packages"
    ours = site_packages / "nvidia" / "cu13" / "include"
    ours.mkdir(parents=True)
    monkeypatch.setattr(torch, "__file__", str(site_packages / "torch" / "__init__.py"))
    home = tmp_path / "cuda"
    (home / "include").mkdir(parents=True)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(home))
    assert setup_py.arguments_for_nvcc() == ["-O3", f"-Xcompiler=-idirafter,{ours}"]
    (home / "include" / "cusparse.h").touch()
    assert setup_py.arguments_for_nvcc() == ["-O3"]


@pytest.mark.parametrize("source", ["kernels_default.cpp", "kernels_avx2.cpp"])
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_kernels_compile_without_warnings(tmp_path, compiler, source):
    """Optimised and without sanitizers, where compilers find other problems."""
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    command = [compiler, "-std=c++17", "-O3", "-Wall", "-Wextra", "-c", str(CSRC / "cpu" / source)]
    result = subprocess.run(
        [*command, "-o", str(tmp_path / "kernels.o")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    check_quiet(result.stderr)
