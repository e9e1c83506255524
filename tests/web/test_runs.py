from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddep.errors import UserError
from ddep.web.runs import data_folder, demo_run, find_runs


def write_run(folder: Path, quality: float | None = None) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.yaml", "last_checkpoint", "model_0000099.pth"):
        (folder / name).touch()
    if quality is not None:
        (folder / "inference").mkdir()
        results = {"panoptic_seg": {"PQ": quality}}
        (folder / "inference" / "results.json").write_text(json.dumps(results))
    return folder


def test_runs_are_found_at_any_depth_and_named_from_the_folder_that_holds_all(
    tmp_path: Path,
) -> None:
    b = write_run(tmp_path / "x" / "a" / "b")
    write_run(tmp_path / "x" / "c")
    write_run(tmp_path / "x" / "unfinished")
    (tmp_path / "x" / "unfinished" / "last_checkpoint").unlink()
    assert list(find_runs([tmp_path / "x"])) == ["a/b", "c"]
    write_run(tmp_path / "x" / "removed")
    (tmp_path / "x" / "removed" / "model_0000099.pth").unlink()
    (b / "last_checkpoint").unlink()  # as in a copy of the two files
    (b / "model_0000099.pth").rename(b / "model_final.pth")
    assert find_runs([b]) == {"b": b}
    assert list(find_runs([b, tmp_path / "x", b])) == ["a/b", "c"]


def test_folders_without_runs_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, message in (
        ("absent", "absent does not exist; expected the folder of a run"),
        ("file", "file is a file; expected the folder of a run"),
        ("", "has no run in it; expected a folder with config.yaml and a checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            find_runs([tmp_path / name])


def test_the_demonstrations_best_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model in .*: `make demo` trains"):
        demo_run(tmp_path)
    write_run(tmp_path / "comparison" / "all" / "a" / "seed0", 40.0)
    best = write_run(tmp_path / "comparison" / "all" / "b" / "seed0", 43.0)
    write_run(tmp_path / "comparison" / "all" / "b" / "seed1", 41.0)
    write_run(tmp_path / "comparison" / "all" / "b" / "seed2")
    write_run(tmp_path / "pretraining" / "denoising", 99.0)
    assert demo_run(tmp_path) == best


def test_an_experiments_runs_have_its_data_sets(tmp_path: Path) -> None:
    run = write_run(tmp_path / "comparison" / "all")
    assert data_folder(run) is None
    (tmp_path / "datasets").mkdir()
    (tmp_path / "commands.sh").touch()
    assert data_folder(run) == tmp_path / "datasets"
