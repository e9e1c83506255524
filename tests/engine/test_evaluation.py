"""Evaluating one checkpoint or several, without training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from ddep.checkpoint import read_checkpoint
from ddep.engine import main
from ddep.errors import UserError
from tests.engine.tiny_runs import arguments, denoising_config, one_thread, write_images

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a run with two numbered checkpoints, averaged weights and the final one."""
    folder = tmp_path_factory.mktemp("evaluation")
    config = denoising_config(folder, write_images(folder / "images"))
    main(
        arguments(
            *("--config-file", config, "SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1),
            *("SOLVER.EMA.ENABLED", True),
        )
    )
    return config


def evaluate(config: str, folder: Path, weights: object, *words: object) -> dict:
    return main(
        arguments(
            *("--config-file", config, "--eval-only"),
            *("MODEL.WEIGHTS", weights, "OUTPUT_DIR", folder, *words),
        )
    )


@pytest.fixture(scope="module")
def run(config: str) -> Path:
    return Path(config).parent / "pretrain"


def test_several_checkpoints_end_in_one_table(config: str, run: Path, tmp_path: Path) -> None:
    names = ["model_0000000", "model_0000001", "model_final"]
    results = evaluate(config, tmp_path, run / "model_*.pth")
    assert list(results) == names
    for name in names:
        alone = evaluate(config, tmp_path / "alone", run / f"{name}.pth")
        assert results[name] == alone
        written = json.loads((tmp_path / name / "inference" / "results.json").read_text())
        assert written == alone
    assert results["model_0000000"] != results["model_0000001"] == results["model_final"]
    header, *rows = csv.reader((tmp_path / "inference" / "results.csv").open())
    assert header == ["task", "metric", *names]
    assert {
        (task, metric): [float(value) for value in values] for task, metric, *values in rows
    } == {
        ("denoising", metric): [results[name]["denoising"][metric] for name in names]
        for metric in results["model_final"]["denoising"]
    }
    assert json.loads((tmp_path / "inference" / "results.json").read_text()) == results
    assert (tmp_path / "inference" / "results.md").read_text() in (tmp_path / "log.txt").read_text()


def test_checkpoints_of_one_name_are_told_apart_by_their_folders(
    config: str, run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "model_final.pth"
    other.parent.mkdir()
    content = read_checkpoint(str(run / "model_0000000.pth"))
    torch.save({"model": content["model"]}, other)
    results = evaluate(config, tmp_path / "out", f"{other},{run / 'model_0000000.pth'}")
    first, second = results
    assert first.endswith("other/model_final")
    assert second.endswith("pretrain/model_0000000")
    assert results[first] == results[second]
    assert (tmp_path / "out" / first / "inference" / "results.json").is_file()


def test_averaged_weights_are_evaluated_too(config: str, run: Path, tmp_path: Path) -> None:
    weights = run / "model_0000001.pth"
    results = evaluate(config, tmp_path, weights, "SOLVER.EMA.ENABLED", True)
    raw = evaluate(config, tmp_path / "raw", weights)
    assert results == {**raw, "ema": results["ema"]}
    assert results["ema"] != raw
    content = read_checkpoint(str(weights))
    averaged = tmp_path / "averaged.pth"
    torch.save({"model": content["model"] | content["ema"]["model"]}, averaged)
    assert evaluate(config, tmp_path / "averaged", averaged) == results["ema"]
    table = evaluate(config, tmp_path / "two", run / "model_000*.pth", "SOLVER.EMA.ENABLED", True)
    assert table["model_0000001"] == results
    rows = csv.reader((tmp_path / "two" / "inference" / "results.csv").open())
    assert {row[0] for row in rows} == {"task", "denoising", "ema/denoising"}


def test_resuming_evaluates_the_last(config: str, run: Path) -> None:
    results = main(arguments("--config-file", config, "--eval-only", "--resume"))
    written = json.loads((run / "inference" / "results.json").read_text())
    assert results == written


def test_a_pattern_that_matches_nothing_ends_before_any_work(
    config: str, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS has '.*/best_\*.pth', which matches no"):
        evaluate(config, tmp_path / "out", run / "best_*.pth")
    with pytest.raises(UserError, match=r"absent\.pth does not exist"):
        evaluate(config, tmp_path / "out", f"{run / 'model_final.pth'},absent.pth")
    assert not (tmp_path / "out").exists()
