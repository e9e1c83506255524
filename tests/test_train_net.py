"""Pretrain, fine-tune, evaluate, resume: the commands that a user types, on tiny models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ddep.checkpoint import read_checkpoint
from ddep.checkpoint.conversion import convert
from ddep.checkpoint.groups import group_of
from ddep.data.datasets import dataset_root, register_all
from ddep.data.datasets.shapes import generate_shapes
from ddep.engine import Trainer, main, run, stop_signals
from ddep.errors import UserError
from tests.engine.tiny_runs import (
    arguments,
    denoising_config,
    metrics,
    one_thread,
    write_config,
)

ROOT = Path(__file__).parents[1]
__all__ = ["one_thread"]


def train_net(*words: object, datasets: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "train_net.py", *map(str, words)]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(datasets), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with generated shapes in ``datasets``, which is $DETECTRON2_DATASETS."""
    folder = tmp_path_factory.mktemp("train_net")
    usual = dataset_root()
    generate_shapes(folder / "datasets" / "shapes", train=3, val=2, unlabelled=3, size=48)
    register_all(folder / "datasets")
    yield folder
    register_all(usual)


@pytest.fixture(scope="module")
def pretrained(folder: Path) -> Path:
    """The checkpoint of a pretraining run that ``python train_net.py`` made."""
    config = denoising_config(folder, Path("shapes/unlabelled"))
    result = train_net(
        *("--config-file", config, "MODEL.DDEP.MULTI_SCALE", True, "DATALOADER.NUM_WORKERS", 1),
        datasets=folder / "datasets",
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert re.search(
        r"iter 6/6  eta 0:00:00  [\d.]+ images/s  total_loss [\d.]+  loss_denoise [\d.]+  "
        r"loss_denoise_s8 .*  lr [\d.e-]+  time [\d.]+ s  data_time",
        result.stdout,
    )
    assert "Warning" not in result.stderr
    return folder / "pretrain" / "model_final.pth"


@pytest.fixture(scope="module")
def panoptic_config(folder: Path, pretrained: Path) -> str:
    return write_config(
        folder,
        "panoptic",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__WEIGHTS=str(pretrained),
        MODEL__SEM_SEG_HEAD={"NUM_CLASSES": 8},
        MODEL__MASK_FORMER={"TEST": {"PANOPTIC_ON": True}},
        DATASETS__TRAIN=["shapes_panoptic_train"],
        DATASETS__TEST=["shapes_panoptic_val"],
        INPUT__DATASET_MAPPER_NAME="mask_former_panoptic",
        OUTPUT_DIR=str(folder / "finetune"),
    )


@pytest.fixture(scope="module")
def finetuned(folder: Path, panoptic_config: str) -> dict:
    """The results of fine-tuning from the pretrained checkpoint, in folder/finetune."""
    return main(arguments("--config-file", panoptic_config))


def reported(log: Path) -> dict[str, set[str]]:
    """What the log reports about the weights: fate -> names."""
    fates: dict[str, set[str]] = {}
    pattern = r"^(loaded|left out|shape mismatch|new|unused) +([\w.]+)$"
    for fate, name in re.findall(pattern, log.read_text(), re.MULTILINE):
        fates.setdefault(fate, set()).add(name)
    return fates


def test_fine_tuning_reports_what_it_loads(folder: Path, pretrained: Path, finetuned: dict) -> None:
    fates = reported(folder / "finetune" / "log.txt")
    source = read_checkpoint(str(pretrained))["model"]
    model = read_checkpoint(str(folder / "finetune" / "model_final.pth"))["model"]
    shared = {"backbone", "encoder", "fpn", "mask_features"}
    assert fates["loaded"] == {name for name in model if group_of(name) in shared}
    assert {group_of(name) for name in fates["loaded"]} == shared
    assert fates["unused"] == {name for name in source if name.startswith("denoising_head.")}
    assert any(".multi_scale." in name for name in fates["unused"])
    # What the config determines is neither taken over nor learned.
    assert fates["new"] == set(model) - fates["loaded"] - {"criterion.empty_weight"}
    assert {group_of(name) for name in fates["new"]} == {"predictor"}
    assert fates.keys() == {"loaded", "new", "unused"}


def test_evaluation_repeats_the_end_of_training_exactly(
    folder: Path, panoptic_config: str, finetuned: dict
) -> None:
    assert {"panoptic_seg", "sem_seg"} <= finetuned.keys()
    words = ["--config-file", panoptic_config, "--eval-only", "OUTPUT_DIR", folder / "evaluation"]
    weights = folder / "finetune" / "model_final.pth"
    # NaN, for classes that do not occur, does not equal itself.
    found = json.dumps(main(arguments(*words, "MODEL.WEIGHTS", weights)), default=float)
    assert found == json.dumps(finetuned, default=float)
    assert "partly random" not in (folder / "evaluation" / "log.txt").read_text()
    last = metrics(folder / "finetune")[-1]
    assert last["panoptic_seg/PQ"] == finetuned["panoptic_seg"]["PQ"]


def test_evaluating_a_partly_random_model_is_warned_about(
    folder: Path, panoptic_config: str, capsys: pytest.CaptureFixture
) -> None:
    main(
        arguments("--config-file", panoptic_config, "--eval-only", "OUTPUT_DIR", folder / "random")
    )
    assert re.search(
        r"WARNING.*31 weights of the model, such as sem_seg_head", capsys.readouterr().out
    )


def test_the_slim_checkpoint_replaces_the_whole_one(
    folder: Path, pretrained: Path, panoptic_config: str, finetuned: dict
) -> None:
    slim = folder / "slim.pth"
    torch.save({"model": convert(read_checkpoint(str(pretrained))["model"], "auto").weights}, slim)
    words = ["MODEL.WEIGHTS", slim, "OUTPUT_DIR", folder / "from_slim"]
    main(arguments("--config-file", panoptic_config, *words))
    fates = reported(folder / "from_slim" / "log.txt")
    assert fates["loaded"] == reported(folder / "finetune" / "log.txt")["loaded"]
    assert "unused" not in fates
    ends = [
        read_checkpoint(str(folder / name / "model_final.pth"))["model"]
        for name in ("finetune", "from_slim")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_selective_transfer_is_only_for_the_start(
    folder: Path, panoptic_config: str, pretrained: Path
) -> None:
    output = folder / "selective"
    words = ["--config-file", panoptic_config, "OUTPUT_DIR", output, "DATASETS.TEST", "()"]
    words += ["MODEL.DDEP.TRANSFER", "['backbone', 'mask_features']", "SOLVER.BASE_LR", 0.0]
    words += ["SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR"]
    main(arguments(*words, "SOLVER.MAX_ITER", 1))
    fates = reported(output / "log.txt")
    assert {group_of(name) for name in fates["loaded"]} == {"backbone", "mask_features"}
    assert {group_of(name) for name in fates["left out"]} == {"encoder", "fpn"}
    source = read_checkpoint(str(pretrained))["model"]
    # Nothing was learned, so training started from these.
    start = read_checkpoint(str(output / "model_final.pth"))["model"]
    assert all(torch.equal(start[name], source[name]) for name in fates["loaded"])
    assert not torch.equal(start[FPN], source[FPN])

    (output / "log.txt").unlink()
    main(arguments("--resume", *words, "SOLVER.MAX_ITER", 2, "OUTPUT_DIR", output))
    resumed = read_checkpoint(str(output / "model_final.pth"))
    assert resumed["iteration"] == 1
    assert torch.equal(resumed["model"][FPN], start[FPN])


FPN = "sem_seg_head.pixel_decoder.layer_1.weight"


def test_a_checkpoint_of_another_model_stops_the_run(
    folder: Path, panoptic_config: str, capsys: pytest.CaptureFixture
) -> None:
    torch.save({"features.0.weight": torch.ones(3)}, folder / "vgg.pth")
    words = ["--config-file", panoptic_config, "MODEL.WEIGHTS", folder / "vgg.pth"]
    with pytest.raises(SystemExit) as end:
        run([str(word) for word in [*words, "OUTPUT_DIR", folder / "vgg"]])
    assert re.fullmatch(
        r"error: none of the 1 weights in .*vgg\.pth fits the model: found features\.0\.weight.*",
        end.value.code,
    )


@pytest.mark.slow
def test_a_mistake_is_one_line_and_status_1(folder: Path) -> None:
    result = train_net("--config-file", "configs/no.yaml", datasets=folder / "datasets")
    assert result.returncode == 1
    assert result.stderr.startswith("error: config file configs/no.yaml does not exist")
    assert result.stderr.count("\n") == 1


def test_a_mistake_that_a_worker_process_finds_is_one_line(
    folder: Path, pretrained: Path, capsys: pytest.CaptureFixture
) -> None:
    images = folder / "datasets" / "broken"
    images.mkdir()
    (images / "0.png").write_bytes(b"")
    config = denoising_config(folder, images)
    words = ["DATALOADER.NUM_WORKERS", 1, "INPUT.MAX_UNREADABLE", 0, "SOLVER.IMS_PER_BATCH", 1]
    with pytest.raises(SystemExit) as end:
        run(["--config-file", config, *map(str, words), "OUTPUT_DIR", str(folder / "broken")])
    assert re.fullmatch(
        r"error: 1 training images cannot be read, but INPUT\.MAX_UNREADABLE allows 0; the last: "
        r"image .*broken/0\.png cannot be read: .*",
        end.value.code,
    )
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["DATASETS.TEST", "('shapes_panoptic_val', 'images:{}/datasets/shapes/unlabelled')"],
            "nothing to evaluate on data set images:.*unlabelled: it is labelled for nothing",
        ),
        (
            [
                *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False),
                *("MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False),
                *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True),
            ],
            "nothing to evaluate on data set shapes_panoptic_val",
        ),
    ],
)
@pytest.mark.parametrize("option", [(), ("--eval-only",)])
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(
    folder: Path, panoptic_config: str, option: tuple[str], overrides: list, message: str
) -> None:
    output = folder / "nothing_to_evaluate"
    overrides = [str(word).format(folder) for word in overrides]
    words = ["--config-file", panoptic_config, *option, *overrides, "OUTPUT_DIR", output]
    with pytest.raises(UserError, match=message):
        main(arguments(*words))
    assert not output.exists()


def test_training_that_diverges_ends_with_one_line(
    folder: Path, panoptic_config: str, capsys: pytest.CaptureFixture
) -> None:
    words = ["SOLVER.BASE_LR", "1e30", "SOLVER.CLIP_GRADIENTS.ENABLED", False]
    words += ["SOLVER.MAX_SKIPPED_STEPS", 2]
    with pytest.raises(SystemExit) as end:
        run(["--config-file", panoptic_config, *map(str, words), "OUTPUT_DIR", str(folder / "nan")])
    assert re.fullmatch(r"error: .*(NaN|infinite).*", end.value.code)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    assert "Traceback" not in (folder / "nan" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (1, r"stopped by SIGINT after iteration 2 of 3; saved .*model_0000001\.pth; --resume .*"),
        (2, "interrupted"),
    ],
)
def test_ctrl_c_ends_training_with_one_line(
    times: int,
    message: str,
    folder: Path,
    panoptic_config: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    run_step = Trainer.run_step

    def interrupted(self: Trainer) -> None:
        if self.iter == 1:
            monkeypatch.setattr(stop_signals, "_ONE_REQUEST", 0.0)
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        run_step(self)

    monkeypatch.setattr(Trainer, "run_step", interrupted)
    output = folder / f"interrupted-{times}"
    with pytest.raises(SystemExit) as end:
        run(["--config-file", panoptic_config, "SOLVER.MAX_ITER", "3", "OUTPUT_DIR", str(output)])
    assert end.value.code == 130
    captured = capsys.readouterr()
    assert re.fullmatch(message, captured.err.splitlines()[-1])
    assert (output / "model_0000001.pth").exists() == (times == 1)
    log = (output / "log.txt").read_text()
    assert "SIGINT: training stops after this iteration and saves a checkpoint; a second" in log
    assert "Traceback" not in captured.out + captured.err + log
