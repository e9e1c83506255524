"""Install detectron2, which no package index has under its own name.

Takes the first of these ways that works:
1. keep a detectron2 that already imports;
2. build the official repository at a pinned commit, if its host can be reached;
3. build a pure-Python wheel from the source package, which the package index does have.

Usage: ``python tools/install-detectron2.py``, with the Python that is to have detectron2 and that
already has ``requirements.txt``. ``--wheel-dir DIR`` only builds the wheel of way 3, for a machine
without network.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from detectron2_wheel import WheelError, build_pure_wheel

REPOSITORY = "https://github.com/facebookresearch/detectron2"
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"  # main on 2026-06-06, detectron2 0.6
SDIST_PROJECT = "detectron2-cdo"
SDIST_NAME = "detectron2_cdo-0.5.tar.gz"
SDIST_SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"

REACH_TIMEOUT = 8.0  # seconds to find out whether the repository can be reached
PIP_INSTALL = [sys.executable, "-m", "pip", "install", "--no-deps", "--force-reinstall"]
IMPORT_CHECK = (
    "import detectron2, detectron2.engine, detectron2.evaluation;"
    "print(detectron2.__version__, 'in', list(detectron2.__path__)[0])"
)


REQUIREMENTS_FIRST = "run `pip install -r requirements.txt` first, then this again"


class InstallError(Exception):
    """detectron2 cannot be installed. The message is one line."""


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Install detectron2.")
    parser.add_argument(
        "--wheel-dir", type=Path, help="only build the pure-Python wheel, into this folder"
    )
    args = parser.parse_args()
    try:
        if args.wheel_dir:
            say(f"built {build_wheel(args.wheel_dir)}")
        elif not (keep_installed() or install_official()):
            install_pure()
    except (InstallError, WheelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def keep_installed() -> bool:
    """Way 1: report a detectron2 that already imports. Returns whether there is one.

    Raises:
        InstallError: detectron2 is installed, but a package that it needs is not.
    """
    found, message = try_import()
    check_dependencies(message)
    if found:
        say(f"keeping version {message}")
    elif "No module named 'detectron2'" not in message:
        say(f"the installed one does not import and will be replaced ({message})")
    return found


def install_official() -> bool:
    """Way 2: build and install the official repository. Returns whether it is installed.

    Raises:
        InstallError: detectron2 is installed, but a package that it needs is not.
    """
    say(f"looking for {REPOSITORY}")
    reason = why_unreachable()
    if reason:
        say(f"the official repository cannot be reached ({reason}); taking the source package")
        return False
    say(f"building commit {COMMIT[:10]}; its C++ takes some minutes to compile")
    # git gives up on a transfer that stays below 1000 bytes a second for 30 seconds.
    stall = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "30"}
    result = subprocess.run(
        [*PIP_INSTALL, "--no-build-isolation", f"git+{REPOSITORY}@{COMMIT}"],
        env={**os.environ, **stall},
        stderr=subprocess.PIPE,  # its progress goes to the terminal
        text=True,
        check=False,
    )
    if result.returncode:
        reason = build_error(result.stderr)
        say(f"the official repository does not install ({reason}); taking the source package")
        return False
    found, message = try_import()
    check_dependencies(message)
    if not found:
        say(f"the official repository does not import ({message}); taking the source package")
        return False
    say(f"installed version {message}")
    return True


def install_pure() -> None:
    """Way 3: build and install the pure-Python wheel.

    Raises:
        InstallError: the source package cannot be fetched or is not the expected one, or the wheel
            cannot be installed or does not import.
        WheelError: the wheel cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="detectron2-") as work:
        wheel = build_wheel(Path(work))
        result = run([*PIP_INSTALL, "--no-index", str(wheel)])
        if result.returncode:
            raise InstallError(f"pip could not install {wheel.name}: {last_line(result.stderr)}")
    found, message = try_import()
    check_dependencies(message)
    if not found:
        raise InstallError(f"the pure-Python detectron2 is installed but fails: {message}")
    say(f"installed version {message}, without compiled ops")


def build_wheel(wheel_dir: Path) -> Path:
    """Fetch the source package, build the pure-Python wheel in ``wheel_dir`` and return its path.

    Raises:
        InstallError: the source package cannot be fetched or is not the expected one.
        WheelError: the wheel cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="detectron2-") as work:
        sdist = Path(work) / SDIST_NAME
        download_sdist(sdist)
        digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
        if digest != SDIST_SHA256:
            raise InstallError(
                f"{SDIST_NAME} has sha256 {digest}, expected {SDIST_SHA256}: nothing installed"
            )
        say("building a pure-Python wheel from it")
        return build_pure_wheel(sdist, wheel_dir)


def download_sdist(path: Path) -> None:
    """Download the source package to ``path``.

    pip cannot do this: the package requires a URL directly, which pip refuses from an index, and
    pip runs its setup.py just to download it.

    Raises:
        InstallError: the index cannot be reached or does not have the package, or this Python has
            no requirements.txt yet.
    """
    # Imported here, because ways 1 and 2 do not need them.
    try:
        import requests
        from pypi_simple import NoSuchProjectError, PyPISimple
    except ModuleNotFoundError as error:
        raise InstallError(
            f"{sys.executable} has no package {error.name}; {REQUIREMENTS_FIRST}"
        ) from error

    index = index_url()
    say(f"fetching {SDIST_NAME} from the package index")
    try:
        with PyPISimple(index) if index else PyPISimple() as client:
            packages = client.get_project_page(SDIST_PROJECT, timeout=30.0).packages
            sdists = [package for package in packages if package.filename == SDIST_NAME]
            if not sdists:
                raise InstallError(f"the package index has {SDIST_PROJECT}, but no {SDIST_NAME}")
            # The digest is checked by the caller, against the one pinned here.
            client.download_package(sdists[0], path, verify=False, timeout=30.0)
    except (NoSuchProjectError, requests.RequestException) as error:
        raise InstallError(f"cannot fetch {SDIST_NAME}: {error}") from error


def index_url() -> str | None:
    """Return the package index in pip's environment variable or settings, if there is one."""
    if "PIP_INDEX_URL" in os.environ:
        return os.environ["PIP_INDEX_URL"]
    result = run([sys.executable, "-m", "pip", "config", "get", "global.index-url"])
    return result.stdout.strip() or None


def try_import() -> tuple[bool, str]:
    """Import detectron2 in a fresh process.

    Returns:
        Whether it imports, and one line: its version and folder, or else the error.
    """
    result = run([sys.executable, "-c", IMPORT_CHECK])
    if result.returncode:
        return False, last_line(result.stderr)
    return True, last_line(result.stdout)


def check_dependencies(message: str) -> None:
    """Raise :class:`InstallError` if ``message`` says that detectron2 needs a missing package.

    Such a detectron2 is fine and must not be replaced.
    """
    missing = re.search(r"No module named '(?!detectron2\b)([\w.]+)'", message)
    if missing:
        raise InstallError(
            f"detectron2 is installed, but {sys.executable} has no package {missing[1]}, which it "
            f"needs; {REQUIREMENTS_FIRST} (or `pip uninstall detectron2`, if that is not enough)"
        )


def why_unreachable() -> str | None:
    """Return why git cannot reach the official repository, or None when it can."""
    try:
        process = subprocess.Popen(
            ["git", "ls-remote", "--exit-code", REPOSITORY, "HEAD"],
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except FileNotFoundError:
        return "git is not installed"
    try:
        _, errors = process.communicate(timeout=REACH_TIMEOUT)
    except subprocess.TimeoutExpired:
        # Kill the whole group: git's helper process would keep the pipe open.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"no answer within {REACH_TIMEOUT:g} seconds"
    if process.returncode == 0:
        return None
    fatal = re.search(r"^fatal: (.+)$", errors, re.MULTILINE)  # the first says why
    return fatal.group(1) if fatal else last_line(errors)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run ``command`` and return its status and output."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build_error(log: str) -> str:
    """Return the line of pip's error output that says what went wrong.

    pip's own last lines only say that building failed. The cause is the last error in the build
    output that pip quotes, if it does.
    """
    quoted, end, _ = log.rpartition("[end of output]")
    errors = re.findall(r"^.*\b(?:\w*[Ee]rror|fatal):.*$", quoted if end else log, re.MULTILINE)
    return errors[-1].strip(" |╰─>") if errors else last_line(log)


def last_line(output: str) -> str:
    """Return the last line of a command's output."""
    lines = output.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"detectron2: {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
