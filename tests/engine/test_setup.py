from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ddep.device import adapt_to_device
from ddep.engine import main, setup
from ddep.engine.processes import check_processes
from ddep.errors import UserError
from ddep.files import atomic_write
from ddep.tasks import load_config
from tests.engine.tiny_runs import arguments, denoising_config, write_config, write_images


@pytest.fixture
def config(tmp_path: Path) -> str:
    return denoising_config(tmp_path, write_images(tmp_path / "images"))


def assert_fails(message: str, *words: object) -> None:
    with pytest.raises(UserError, match=message) as error:
        setup(arguments(*words))
    assert "\n" not in str(error.value)


def test_a_config_file_is_needed_and_must_exist(tmp_path: Path) -> None:
    assert_fails("--config-file is missing")
    assert_fails(r"no\.yaml does not exist", "--config-file", tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SOLVER.BASE_LEARNING_RATE", 1], "unknown config key SOLVER.BASE_LEARNING_RATE"),
        (["MODEL.META_ARCHITECTURE", "Denoiser"], "is 'Denoiser'; did you mean Den.*MaskFormer"),
        (["MODEL.BACKBONE.NAME", "Swin"], "BACKBONE.NAME is 'Swin'; expected .*D2SwinTransformer"),
        (["MODEL.DDEP.TRANSFER", "['decoder']"], "TRANSFER has 'decoder'; expected any of backb"),
        (
            ["INPUT.DATASET_MAPPER_NAME", "mask_former_semantic"],
            "takes ddep_denoising; without",
        ),
        (["SOLVER.MAX_ITER", 0], "MAX_ITER is 0; expected at least 1"),
        (["SOLVER.IMS_PER_BATCH", 0], "SOLVER.IMS_PER_BATCH is 0; expected at least 1"),
        (["SOLVER.CHECKPOINT_PERIOD", 0], "CHECKPOINT_PERIOD is 0; expected at least 1"),
        (["TEST.EVAL_PERIOD", -1], "TEST.EVAL_PERIOD is -1; expected at least 0"),
        (["DATALOADER.NUM_WORKERS", -1], "DATALOADER.NUM_WORKERS is -1; expected at least 0"),
        (["MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 0], "TRAIN_NUM_POINTS is 0; expected at least 1"),
        (["MODEL.DEVICE", "gpu"], "MODEL.DEVICE is 'gpu'; expected cpu, cuda or cuda:N"),
        (["MODEL.DEVICE", "None"], "MODEL.DEVICE is None; expected cpu"),
        (
            ["INPUT.MIN_SIZE_TRAIN", "()"],
            r"INPUT.MIN_SIZE_TRAIN is \(\); expected a list of numbers",
        ),
        (["INPUT.MIN_SIZE_TRAIN", "(48, 0)"], r"MIN_SIZE_TRAIN is \(48, 0\); expected a list"),
        (["INPUT.CROP.SIZE", "[0.5, 0.5]"], "SIZE is .*TYPE absolute needs two whole numbers"),
        (["INPUT.CROP.TYPE", "square"], "INPUT.CROP.TYPE is 'square'; expected one of"),
        (["MODEL.DDEP.SIGMA", "['a']"], r"MODEL.DDEP.SIGMA is \['a'\]; expected \[sigma\]"),
        (["MODEL.DDEP.NOISE", "salt"], "MODEL.DDEP.NOISE is 'salt'; expected one of scaled"),
        (
            [
                *("MODEL.META_ARCHITECTURE", "MaskFormer", "MODEL.SEM_SEG_HEAD.NAME", "Head"),
                *("INPUT.DATASET_MAPPER_NAME", "mask_former_semantic"),
            ],
            "MODEL.SEM_SEG_HEAD.NAME is 'Head'; expected one of .*MaskFormerHead",
        ),
        (
            [
                *("MODEL.META_ARCHITECTURE", "MaskFormer"),
                *("MODEL.SEM_SEG_HEAD.NAME", "PerPixelBaselineHead"),
                *("INPUT.DATASET_MAPPER_NAME", "mask_former_semantic"),
            ],
            "NAME is 'PerPixelBaselineHead', which classifies pixels; .* such as MaskFormerHead",
        ),
        (
            [
                *("MODEL.META_ARCHITECTURE", "MaskFormer", "MODEL.DDEP.MASK_LOSS", "focal"),
                *("INPUT.DATASET_MAPPER_NAME", "mask_former_semantic"),
            ],
            "MODEL.DDEP.MASK_LOSS is 'focal'; expected auto, points or dense",
        ),
        (["MODEL.WEIGHTS", "no.pth"], r"checkpoint no\.pth does not exist"),
        (["DATASETS.TRAIN", "('camvid_semseg_train',)"], "DATASETS.TRAIN: unknown data set 'camv"),
        (["DATASETS.TEST", "('images:nowhere',)"], "DATASETS.TEST: .*nowhere"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (
            ["MODEL.DDEP.FREEZE_BACKBONE", True],
            r"frozen.*MODEL.WEIGHTS is empty.*MODEL.WEIGHTS to .*FREEZE_BACKBONE False",
        ),
        (
            ["MODEL.BACKBONE.FROZEN_WEIGHTS", "a.pth"],
            r"FROZEN_WEIGHTS is for a checkpoint that lacks .* to start from in MODEL\.WEIGHTS$",
        ),
        (["MODEL.BACKBONE.FREEZE", True], r"FREEZE_BACKBONE, .*in denoising, is False; set both"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    tmp_path: Path, config: str, overrides: list[Any], message: str
) -> None:
    assert_fails(message, "--config-file", config, *overrides)
    assert not (tmp_path / "pretrain").exists()


def test_a_folder_without_images_is_named(tmp_path: Path, config: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    words = ["--config-file", config, "DATASETS.TRAIN", f"['images:{folder}']"]
    assert_fails(f"no images in {folder} ", *words)


def test_evaluation_needs_weights_and_data(config: str) -> None:
    words = ["--config-file", config, "--eval-only"]
    assert_fails("--eval-only needs weights, but MODEL.WEIGHTS is empty", *words)
    weights = Path(config).parent / "w.pth"
    weights.write_bytes(b"")
    assert_fails("DATASETS.TEST is empty", *words, "MODEL.WEIGHTS", weights, "DATASETS.TEST", "()")


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path: Path, config: str) -> None:
    (tmp_path / "file").write_text("")
    assert_fails(
        "OUTPUT_DIR .* cannot be made",
        "--config-file",
        config,
        "OUTPUT_DIR",
        tmp_path / "file" / "x",
    )


@pytest.mark.parametrize(("there", "wanted", "most"), [(0, 8, 1), (0, 2, 1), (4, 8, 4)])
def test_more_gpus_than_there_are_is_an_error(
    monkeypatch: pytest.MonkeyPatch, config: str, there: int, wanted: int, most: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    batch = ("SOLVER.IMS_PER_BATCH", 8)
    words = ["--config-file", config, "--num-gpus"]
    with pytest.raises(
        UserError,
        match=f"--num-gpus {wanted}, but this machine has {there}.*{most}.*MODEL.DEVICE cpu",
    ):
        check_processes(arguments(*words, wanted, *batch))
    expected = "cuda" if there else "cpu"
    assert check_processes(arguments(*words, most, *batch)) == expected
    assert check_processes(arguments("--config-file", config)) == expected
    assert check_processes(arguments(*words, wanted, *batch, "MODEL.DEVICE", "cpu")) == "cpu"


def test_several_machines_need_a_gpu_each_or_the_cpu(
    monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    words = ["--config-file", config, "--num-machines", 2]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="2 processes are asked for, but torch can use no GPU"):
        check_processes(arguments(*words))
    assert check_processes(arguments(*words, "MODEL.DEVICE", "cpu")) == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert check_processes(arguments(*words)) == "cuda"
    with pytest.raises(UserError, match="MODEL.DEVICE is cuda:0, one GPU, but 2 processes"):
        check_processes(arguments(*words, "MODEL.DEVICE", "cuda:0"))


@pytest.mark.parametrize(("images", "steps"), [(3, 1), (6, 2), (1, 1)])
def test_a_batch_that_processes_cannot_share_is_an_error(
    config: str, images: int, steps: int
) -> None:
    words = ["--config-file", config, "--num-gpus", 2]
    overrides = ["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", images]
    overrides += ["SOLVER.ACCUMULATION_STEPS", steps]
    with pytest.raises(
        UserError, match=f"IMS_PER_BATCH is {images}; expected a multiple of {2 * steps}"
    ):
        check_processes(arguments(*words, *overrides))
    assert check_processes(arguments(*words, "--eval-only", *overrides)) == "cpu"


def test_without_a_gpu_everything_runs_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = load_config(config)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", True, "MODEL.RESNETS.NORM", "SyncBN"]
    )
    notes = adapt_to_device(cfg)
    assert (cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED, cfg.MODEL.RESNETS.NORM) == (
        "cpu",
        False,
        "BN",
    )
    assert cfg.MODEL.SEM_SEG_HEAD.NORM == "GN"
    assert len(notes) == 3
    assert adapt_to_device(cfg) == []


def test_with_a_gpu_nothing_is_changed(monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = load_config(config, ["SOLVER.AMP.ENABLED", "True", "MODEL.RESNETS.NORM", "SyncBN"])
    assert adapt_to_device(cfg) == []
    assert cfg.SOLVER.AMP.ENABLED
    # Unless the config asks for the CPU.
    cfg.MODEL.DEVICE = "cpu"
    assert len(adapt_to_device(cfg)) == 2


def log_lines(folder: Path, text: str) -> list[str]:
    return [line for line in (folder / "log.txt").read_text().splitlines() if text in line]


def test_every_line_is_logged_once_and_details_stay_in_the_file(
    tmp_path: Path, config: str, capsys: pytest.CaptureFixture
) -> None:
    for name in ("one", "two"):
        capsys.readouterr()
        cfg = setup(arguments("--config-file", config, "OUTPUT_DIR", tmp_path / name))
        assert cfg.is_frozen()
        for logger in ("ddep.engine", "detectron2.engine", "fvcore.common"):
            logging.getLogger(logger).info(f"from {logger}")
        logging.getLogger("ddep.checkpoint").debug("a detail")
        console = capsys.readouterr().out
        for logger in ("ddep.engine", "detectron2.engine", "fvcore.common"):
            assert console.count(f"from {logger}") == 1
            assert len(log_lines(tmp_path / name, f"from {logger}")) == 1
        assert "a detail" not in console
        assert "FREEZE_BACKBONE" not in console
        assert len(log_lines(tmp_path / name, "a detail")) == 1
        assert len(log_lines(tmp_path / name, "FREEZE_BACKBONE")) >= 1


def test_an_earlier_run_in_the_folder_is_mentioned(
    tmp_path: Path, config: str, capsys: pytest.CaptureFixture
) -> None:
    setup(arguments("--config-file", config, "--resume"))
    assert "has no checkpoint: starting from random numbers" in capsys.readouterr().out
    with atomic_write(str(tmp_path / "pretrain" / "last_checkpoint")) as file:
        file.write(b"model_final.pth")
    setup(arguments("--config-file", config))
    assert "holds an earlier run" in capsys.readouterr().out
    setup(arguments("--config-file", config, "--resume"))
    console = capsys.readouterr().out
    assert "Config and log" in console
    assert "earlier run" not in console
    assert "no checkpoint" not in console


def test_a_truncated_image_among_good_ones_is_skipped_and_named(
    tmp_path: Path, config: str
) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "images" / "bad.jpg")
    data = (tmp_path / "images" / "bad.jpg").read_bytes()
    (tmp_path / "images" / "bad.jpg").write_bytes(data[: len(data) // 2])
    words = ["--config-file", config, "DATASETS.TEST", "()"]
    main(arguments(*words))
    assert len(log_lines(tmp_path / "pretrain", "skipped: ")) == 1
    assert len(log_lines(tmp_path / "pretrain", "images/bad.jpg")) == 1

    # With none allowed training stops, and the log has no traceback.
    with pytest.raises(UserError, match=r"1 training images cannot be read, but INPUT\.MAX_UNR"):
        main(arguments(*words, "INPUT.MAX_UNREADABLE", 0, "OUTPUT_DIR", tmp_path / "stopped"))
    assert "Traceback" not in (tmp_path / "stopped" / "log.txt").read_text()


def test_a_label_out_of_range_stops_training(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", number=1)
    Image.new("L", (36, 40), 7).save(tmp_path / "label.png")
    record = {
        "file_name": str(images / "0.png"),
        "sem_seg_file_name": str(tmp_path / "label.png"),
        "height": 40,
        "width": 36,
    }
    DatasetCatalog.register("tiny_bad_labels", lambda: [record])
    MetadataCatalog.get("tiny_bad_labels").set(
        evaluator_type="sem_seg", stuff_classes=["a", "b"], ignore_label=255
    )
    config = write_config(
        tmp_path,
        "semantic",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__SEM_SEG_HEAD={"NUM_CLASSES": 2},
        DATASETS__TRAIN=["tiny_bad_labels"],
        DATASETS__TEST=[],
        OUTPUT_DIR=str(tmp_path / "out"),
    )
    try:
        with pytest.raises(UserError, match=r"label\.png.* 7"):
            main(arguments("--config-file", config))
    finally:
        DatasetCatalog.pop("tiny_bad_labels")
        MetadataCatalog.pop("tiny_bad_labels")
