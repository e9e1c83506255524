from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase

from ddep.checkpoint import read_checkpoint
from ddep.engine import Trainer, main, setup
from ddep.errors import UserError
from tests.engine.tiny_runs import arguments, denoising_config, metrics, write_images

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path) -> str:
    return denoising_config(tmp_path, write_images(tmp_path / "images"))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(str(path))["model"]


class RateRecorder(HookBase):
    """Notes iteration and learning rates, of the head and of the backbone, before each step."""

    def __init__(self) -> None:
        self.found: list[tuple[int, float, float]] = []

    def before_step(self) -> None:
        groups = {group["name"]: group["lr"] for group in self.trainer.optimizer.param_groups}
        rates = groups["head weight"], groups.get("backbone weight", 0.0)
        self.found.append((self.trainer.iter, *rates))


def train(config: str, *words: object, resume: bool = False) -> tuple[Trainer, RateRecorder]:
    options = ["--resume"] if resume else []
    cfg = setup(arguments("--config-file", config, *options, *words))
    trainer = Trainer(cfg)
    recorder = RateRecorder()
    trainer.register_hooks([recorder])
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer, recorder


def test_a_run_leaves_a_checkpoint_and_its_results(tmp_path: Path, config: str) -> None:
    results = main(arguments("--config-file", config, "TEST.EVAL_PERIOD", 2))
    folder = tmp_path / "pretrain"
    assert 0.5 < results["denoising"]["noise_mse"] < 2
    assert json.loads((folder / "inference" / "results.json").read_text()) == results
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    lines = metrics(folder)
    # Evaluated in between, and at the end.
    evaluated = [line for line in lines if "denoising/noise_mse" in line]
    assert [line["iteration"] for line in evaluated] == [1, 3, 6]
    assert evaluated[-1]["denoising/noise_mse"] == results["denoising"]["noise_mse"]
    assert {"total_loss", "lr", "time", "data_time", "eta_seconds"} <= {
        k for li in lines for k in li
    }
    assert list(folder.glob("events.out.tfevents.*"))
    assert not list(folder.glob("*.tmp"))


def test_a_seed_makes_runs_repeat(tmp_path: Path, config: str) -> None:
    for name, seed in [("a", 3), ("b", 3), ("c", 4)]:
        words = ["OUTPUT_DIR", tmp_path / name, "SEED", seed, "DATASETS.TEST", "()"]
        main(arguments("--config-file", config, *words))
    first, again, other = (weights(tmp_path / name / "model_final.pth") for name in "abc")
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "sem_seg_head.pixel_decoder.mask_features.weight"
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("schedule", ["WarmupCosineLR", "WarmupPolyLR"])
def test_a_resumed_run_continues(tmp_path: Path, config: str, schedule: str) -> None:
    words = ["DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 4, "SOLVER.MAX_ITER", 7]
    words += ["SOLVER.LR_SCHEDULER_NAME", schedule]
    _, whole = train(config, *words, "OUTPUT_DIR", tmp_path / "whole")
    assert [iteration for iteration, _, _ in whole.found] == list(range(7))
    assert all(head == pytest.approx(10 * backbone) for _, head, backbone in whole.found)

    # As if it had been killed after its fourth iteration.
    folder = tmp_path / "interrupted"
    folder.mkdir()
    shutil.copy(tmp_path / "whole" / "model_0000003.pth", folder)
    (folder / "last_checkpoint").write_text("model_0000003.pth")
    trainer, rest = train(config, *words, "OUTPUT_DIR", folder, resume=True)
    assert rest.found == whole.found[4:]
    assert read_checkpoint(str(folder / "model_final.pth"))["iteration"] == 6
    # Adam counts its steps.
    steps = {state["step"].item() for state in trainer.optimizer.state.values()}
    assert steps == {7}


@pytest.mark.parametrize("schedule", ["WarmupCosineLR", "WarmupPolyLR"])
def test_a_finished_run_can_be_resumed_with_more_iterations(config: str, schedule: str) -> None:
    words = ["DATASETS.TEST", "()", "SOLVER.LR_SCHEDULER_NAME", schedule]
    train(config, *words, "SOLVER.MAX_ITER", 3)
    _, rest = train(config, *words, "SOLVER.MAX_ITER", 8, resume=True)
    x = rest.found[-1][0] / 8
    factor = {"WarmupCosineLR": 0.5 + 0.5 * math.cos(math.pi * x), "WarmupPolyLR": (1 - x) ** 0.9}
    assert [iteration for iteration, _, _ in rest.found] == [3, 4, 5, 6, 7]
    assert rest.found[-1][1] == pytest.approx(0.001 * factor[schedule])


def test_the_moments_of_the_optimizer_are_resumed(tmp_path: Path, config: str) -> None:
    trainer, _ = train(config, "DATASETS.TEST", "()")
    expected = trainer.optimizer.state_dict()["state"]
    cfg = setup(arguments("--config-file", config, "--resume", "SOLVER.MAX_ITER", 9))
    resumed = Trainer(cfg)
    resumed.resume_or_load(resume=True)
    found = resumed.optimizer.state_dict()["state"]
    assert resumed.state.completed == 6
    assert found.keys() == expected.keys()
    for index, state in expected.items():
        assert torch.equal(found[index]["exp_avg_sq"], state["exp_avg_sq"])


def test_resuming_a_finished_run_only_evaluates(tmp_path: Path, config: str) -> None:
    first = main(arguments("--config-file", config))
    before = (tmp_path / "pretrain" / "model_final.pth").read_bytes()
    log = tmp_path / "pretrain" / "log.txt"
    assert "nothing is trained" not in log.read_text()
    assert main(arguments("--config-file", config, "--resume")) == first
    assert (tmp_path / "pretrain" / "model_final.pth").read_bytes() == before
    assert re.search(
        r"WARNING: SOLVER\.MAX_ITER is 6, and .*model_final\.pth has done 6 iterations",
        log.read_text(),
    )


def test_resuming_writes_the_checksums_that_a_kill_prevented(tmp_path: Path, config: str) -> None:
    words = ["TEST.EVAL_PERIOD", 2, "TEST.BEST_METRIC", "denoising/noise_mse"]
    main(arguments("--config-file", config, *words))
    sums = [tmp_path / "pretrain" / f"model_{name}.pth.sha256" for name in ("final", "best")]
    expected = [path.read_text() for path in sums]
    for path in sums:
        path.unlink()
    main(arguments("--config-file", config, "--resume", *words))
    assert [path.read_text() for path in sums] == expected


def test_resuming_from_a_missing_checkpoint_names_it(tmp_path: Path, config: str) -> None:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "last_checkpoint").write_text("model_0000003.pth")
    message = r"pretrain has no valid checkpoint .*model_0000003\.pth does not .*leave --resume out"
    with pytest.raises(UserError, match=message):
        main(arguments("--config-file", config, "--resume"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 2], "is of another model"),
        (["MODEL.DDEP.FREEZE_BACKBONE", True], "the run trained other parameters"),
        (["SOLVER.OPTIMIZER", "SGD"], r"had another SOLVER\.OPTIMIZER; --resume needs"),
    ],
)
def test_resuming_needs_the_same_config(config: str, words: list[Any], message: str) -> None:
    main(arguments("--config-file", config, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1))
    with pytest.raises(UserError, match=message):
        main(arguments("--config-file", config, "--resume", *words))


def test_a_frozen_backbone_needs_weights_and_keeps_them(tmp_path: Path, config: str) -> None:
    main(arguments("--config-file", config, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1))
    path = tmp_path / "pretrain" / "model_final.pth"
    words = ["DATASETS.TEST", "()", "MODEL.DDEP.FREEZE_BACKBONE", True]
    words += ["OUTPUT_DIR", tmp_path / "frozen"]

    decoder = {k: v for k, v in weights(path).items() if not k.startswith("backbone.")}
    torch.save(decoder, tmp_path / "decoder.pth")
    with pytest.raises(
        UserError, match=r"frozen but has no pretrained weights \(.*decoder\.pth has"
    ):
        train(config, *words, "MODEL.WEIGHTS", tmp_path / "decoder.pth")

    trainer, _ = train(config, *words, "MODEL.WEIGHTS", path)
    before, after = weights(path), weights(tmp_path / "frozen" / "model_final.pth")
    for name in before:
        unchanged = torch.equal(before[name], after[name])
        assert unchanged or not name.startswith("backbone."), name
    name = "sem_seg_head.pixel_decoder.mask_features.weight"
    assert not torch.equal(before[name], after[name])
    assert all("backbone" not in group["name"] for group in trainer.optimizer.param_groups)
    log = tmp_path / "frozen" / "log.txt"
    assert "stay random" not in log.read_text()

    partial = {k: v for k, v in before.items() if not k.startswith("backbone.layers.3.")}
    torch.save(partial, tmp_path / "partial.pth")
    train(config, *words, "MODEL.WEIGHTS", tmp_path / "partial.pth", "SOLVER.MAX_ITER", 1)
    assert re.search(
        r"5 weights of the frozen backbone, such as backbone\.layers\.3", log.read_text()
    )


def test_a_frozen_backbone_needs_weights_that_fit(tmp_path: Path, config: str) -> None:
    main(arguments("--config-file", config, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1))
    path = tmp_path / "pretrain" / "model_final.pth"
    words = ["MODEL.DDEP.FREEZE_BACKBONE", True, "OUTPUT_DIR", tmp_path / "frozen"]
    message = (
        r"frozen .* \(backbone\.patch_embed\.proj\.weight is \(8, 3, 4, 4\) in .*model_final\.pth "
        r"and \(16, 3, 4, 4\) in the model\)"
    )
    with pytest.raises(UserError, match=message):
        train(config, *words, "MODEL.WEIGHTS", path, "MODEL.SWIN.EMBED_DIM", 16)

    stem = {k: v for k, v in weights(path).items() if not k.startswith("backbone.layers.")}
    torch.save(stem, tmp_path / "stem.pth")
    message = r"stem\.pth has 1 of its \d+ weights, .* backbone\.layers\.0\.\S+ is missing"
    with pytest.raises(UserError, match=message):
        train(config, *words, "MODEL.WEIGHTS", tmp_path / "stem.pth")
