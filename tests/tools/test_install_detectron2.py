"""The three ways in which tools/install-detectron2.py gets detectron2.

Only the network is replaced: a local git repository stands in for the official one, and a package
index on the loopback address for the real one. pip and git are the real ones; they install into a
folder of the test.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.detectron2_source import USE_EVERYTHING, write_sdist

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, as a module."""
    monkeypatch.syspath_prepend(str(TOOLS))
    spec = importlib.util.spec_from_file_location(
        "install_detectron2", TOOLS / "install-detectron2.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["install-detectron2.py"])
    return module


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip installs into and that Python searches before a broken detectron2.

    No index can be reached, and nothing stands in for the official repository yet.
    """
    target, broken = tmp_path / "target", tmp_path / "broken"
    write_package(broken, 'raise ImportError("built for another torch")\n')
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(target), str(broken))))
    monkeypatch.setenv("PIP_TARGET", str(target))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    redirect_git(monkeypatch, str(tmp_path / "no-such-repository"))
    return target


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: ModuleType) -> Iterator[Path]:
    """The folder of a package index that has the stand-in source package, with the right digest."""
    folder = tmp_path / "index"
    project = folder / "simple" / "detectron2-cdo"
    project.mkdir(parents=True)
    sdist = write_sdist(project / "detectron2_cdo-0.5.tar.gz")
    (project / "index.html").write_text(f'<a href="{sdist.name}">{sdist.name}</a>')
    monkeypatch.setattr(tool, "SDIST_SHA256", hashlib.sha256(sdist.read_bytes()).hexdigest())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def write_package(folder: Path, init: str) -> None:
    """Write a package ``detectron2`` with ``init`` as its ``__init__.py`` below ``folder``."""
    package = folder / "detectron2"
    package.mkdir(parents=True)
    for name, text in {"__init__.py": init, "engine.py": "", "evaluation.py": ""}.items():
        (package / name).write_text(text)


def redirect_git(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let git use ``url`` instead of the official repository's address."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{url}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/facebookresearch/detectron2")


def write_repository(folder: Path, setup: str, init: str = '__version__ = "0.6"\n') -> str:
    """Create a git repository with a ``detectron2`` 0.6 and ``setup.py``. Returns its commit."""
    write_package(folder, init)
    (folder / "setup.py").write_text(setup)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "0.6"]):
        subprocess.run(["git", "-C", str(folder), *identity, *command], check=True)
    # A second commit, so that the pinned one is not the newest.
    (folder / "detectron2" / "__init__.py").write_text('__version__ = "0.7"\n')
    commit = subprocess.check_output(["git", "-C", str(folder), "rev-parse", "HEAD"], text=True)
    subprocess.run(
        ["git", "-C", str(folder), *identity, "commit", "--quiet", "-am", "0.7"], check=True
    )
    return commit.strip()


def use_everything() -> dict[str, object]:
    """Use the installed stand-in in a fresh Python and return what it saw."""
    return json.loads(subprocess.check_output([sys.executable, "-c", USE_EVERYTHING], text=True))


def test_keeps_a_detectron2_that_imports(
    tool: ModuleType, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_package(target, '__version__ = "9.9"\n')
    assert tool.main() == 0
    assert capfd.readouterr().out == (
        f"detectron2: keeping version 9.9 in {target / 'detectron2'}\n"
    )
    assert [path.name for path in target.iterdir()] == ["detectron2"]


def test_builds_the_official_repository_at_the_pinned_commit(
    tool: ModuleType,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Its setup.py imports an installed package, as the official one imports torch, and requires an
    # unavailable one: this fails without --no-build-isolation or --no-deps.
    commit = write_repository(
        tmp_path / "official",
        "import numpy\nfrom setuptools import setup\n"
        'setup(name="detectron2", version="0.6", packages=["detectron2"],'
        ' install_requires=["cannot-be-had"])\n',
    )
    redirect_git(monkeypatch, (tmp_path / "official").as_uri())
    monkeypatch.setattr(tool, "COMMIT", commit)
    assert tool.main() == 0
    output = capfd.readouterr().out
    assert "does not import and will be replaced (ImportError: built for another torch)" in output
    assert f"installed version 0.6 in {target / 'detectron2'}" in output
    (origin,) = target.glob("detectron2-0.6*.dist-info/direct_url.json")
    assert json.loads(origin.read_text()) == {
        "url": "https://github.com/facebookresearch/detectron2",
        "vcs_info": {"vcs": "git", "requested_revision": commit, "commit_id": commit},
    }


def test_takes_the_source_package_when_the_official_one_does_not_build(
    tool: ModuleType,
    target: Path,
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    commit = write_repository(tmp_path / "official", 'raise RuntimeError("no C++ compiler")\n')
    redirect_git(monkeypatch, (tmp_path / "official").as_uri())
    monkeypatch.setattr(tool, "COMMIT", commit)
    assert tool.main() == 0
    output = capfd.readouterr().out
    assert "does not install (RuntimeError: no C++ compiler); taking the source package" in output
    assert f"installed version 0.5 in {target / 'detectron2'}, without compiled ops" in output


def test_takes_the_source_package_when_the_host_does_not_answer(
    tool: ModuleType,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tool, "REACH_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        redirect_git(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert tool.install_official() is False
    output = capfd.readouterr().out
    assert "cannot be reached (no answer within 0.5 seconds); taking the source package" in output


def test_says_that_git_is_missing(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert tool.why_unreachable() == "git is not installed"


def test_fixes_and_installs_the_source_package(
    tool: ModuleType, target: Path, index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tool.main() == 0
    output = capfd.readouterr().out
    assert "the official repository cannot be reached" in output
    assert f"installed version 0.5 in {target / 'detectron2'}, without compiled ops" in output
    seen = use_everything()
    compiled_op = seen.pop("compiled_op")
    assert compiled_op.startswith("box_iou_rotated is a compiled op, and this detectron2 is a pure")
    assert seen == {
        "kinds": "iUbfibbb",
        "interpolation": 2,  # Pillow's number for bilinear
        "colour": [0.0, 0.5, 1.0],
        "config": "../../model_zoo/configs/Base.yaml",
        "config_exists": True,
        "projects": ["PointRend", "DeepLab", "Panoptic-DeepLab"],
        "environment": "not built: this detectron2 is pure Python",
        "version": "0.5+ddep.pure",
        "summary": "detectron2 0.5 without its compiled ops, fixed for current NumPy and Pillow",
    }


def test_only_builds_the_wheel(
    tool: ModuleType, target: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["install-detectron2.py", "--wheel-dir", f"{tmp_path}/wheels"])
    assert tool.main() == 0
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == [
        "detectron2-0.5+ddep.pure-py3-none-any.whl"
    ]
    assert not target.exists()


def test_refuses_another_source_package(
    tool: ModuleType,
    target: Path,
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found, expected = tool.SDIST_SHA256, "0" * 64
    monkeypatch.setattr(tool, "SDIST_SHA256", expected)
    assert tool.main() == 1
    assert capfd.readouterr().err == (
        f"error: detectron2_cdo-0.5.tar.gz has sha256 {found}, expected {expected}: "
        "nothing installed\n"
    )
    assert not target.exists()


def test_fails_when_a_fix_finds_nothing_to_fix(
    tool: ModuleType,
    target: Path,
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sdist = write_sdist(
        index / "simple" / "detectron2-cdo" / "detectron2_cdo-0.5.tar.gz",
        {"detectron2/structures/masks.py": "def keep(): pass\n"},
    )
    monkeypatch.setattr(tool, "SDIST_SHA256", hashlib.sha256(sdist.read_bytes()).hexdigest())
    assert tool.main() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: fix 'np.bool, np.float, np.int and np.str")
    assert line.endswith("is not in detectron2/structures/masks.py")
    assert not target.exists()


def test_fails_in_one_line_without_an_index(
    tool: ModuleType, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tool.main() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: cannot fetch detectron2_cdo-0.5.tar.gz: ")
    assert not target.exists()


def test_fails_when_the_index_lacks_the_file(
    tool: ModuleType, target: Path, index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (index / "simple" / "detectron2-cdo" / "index.html").write_text("<html></html>")
    assert tool.main() == 1
    assert capfd.readouterr().err == (
        "error: the package index has detectron2-cdo, but no detectron2_cdo-0.5.tar.gz\n"
    )


def test_a_bare_python_needs_the_requirements_first(
    tool: ModuleType,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pypi_simple", None)
    assert tool.main() == 1
    assert capfd.readouterr().err == (
        f"error: {sys.executable} has no package pypi_simple; "
        "run `pip install -r requirements.txt` first, then this again\n"
    )


def test_an_official_detectron2_without_its_dependencies_is_kept(
    tool: ModuleType,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    commit = write_repository(
        tmp_path / "official",
        "from setuptools import setup\n"
        'setup(name="detectron2", version="0.6", packages=["detectron2"])\n',
        init='import no_such_fvcore.common\n__version__ = "0.6"\n',
    )
    redirect_git(monkeypatch, (tmp_path / "official").as_uri())
    monkeypatch.setattr(tool, "COMMIT", commit)
    for expected in ("building commit", ""):  # built, then found
        assert tool.main() == 1
        output = capfd.readouterr()
        assert expected in output.out if expected else not output.out
        assert "taking the source package" not in output.out
        assert output.err.splitlines()[-1] == (
            f"error: detectron2 is installed, but {sys.executable} has no package no_such_fvcore, "
            "which it needs; run `pip install -r requirements.txt` first, then this again "
            "(or `pip uninstall detectron2`, if that is not enough)"
        )
    assert 'version__ = "0.6"' in (target / "detectron2" / "__init__.py").read_text()
