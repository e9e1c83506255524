from __future__ import annotations

from pathlib import Path

import pytest

from ddep.checkpoint.listing import list_checkpoints
from ddep.errors import UserError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("model_final", "model_0000003", "model_0000001", "[odd], name"):
        (tmp_path / "run" / f"{name}.pth").touch()
        (tmp_path / "run" / f"{name}.pth.sha256").touch()
    (tmp_path / "run" / "model_folder.pth").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ("run/model_final.pth", ["run/model_final.pth"]),
        ("run/[odd], name.pth", ["run/[odd], name.pth"]),
        ("absent.pth", ["absent.pth"]),
        ("https://host/a.pth?x=1, run/b.pth", ["https://host/a.pth?x=1", "run/b.pth"]),
        (
            "run/model_*.pth",
            ["run/model_0000001.pth", "run/model_0000003.pth", "run/model_final.pth"],
        ),
        (
            "run/model_final.pth,run/model_*[13].pth,run/model_*.pth",
            ["run/model_final.pth", "run/model_0000001.pth", "run/model_0000003.pth"],
        ),
    ],
)
def test_commas_and_wildcards(run: Path, weights: str, names: list[str]) -> None:
    assert list_checkpoints(weights) == names


def test_a_pattern_or_part_that_names_nothing(run: Path) -> None:
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS has 'run/x\*', which matches no file"):
        list_checkpoints("run/model_final.pth,run/x*")
    with pytest.raises(UserError, match="expected a checkpoint before and after each comma"):
        list_checkpoints("run/model_final.pth,")
