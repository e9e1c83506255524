"""The method on real images: pretrain on CamVid, fine-tune on CamVid and Penn-Fudan, evaluate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
Metrics = dict[str, dict[str, float]]


class Workspace:
    """Prepared data sets and a folder for runs, driven by the commands that a user types."""

    def __init__(self, folder: Path, shared_data: Path) -> None:
        self.folder = folder
        self.data = folder / "datasets"
        self.environment = {**os.environ, "DETECTRON2_DATASETS": str(self.data)}
        self.run("datasets/prepare.py", "camvid", shared_data / "camvid")
        self.run("datasets/prepare.py", "penn_fudan", shared_data / "penn_fudan")

    def run(self, *command: object) -> None:
        result = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]

    def train(self, config: str, name: str, *more: object) -> Metrics:
        """Run train_net.py into the folder ``name``; its evaluation, task -> metric -> number."""
        output = self.folder / name
        config_file = f"configs/demo/{config}.yaml"
        self.run("train_net.py", "--config-file", config_file, *more, "OUTPUT_DIR", output)
        return json.loads((output / "inference" / "results.json").read_text())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("real"), shared_data)


@pytest.fixture(scope="module")
def pretraining(workspace: Workspace) -> Metrics:
    return workspace.train("camvid_pretrain", "pretrain")


@pytest.fixture(scope="module")
def weights(workspace: Workspace, pretraining: Metrics) -> Path:
    return workspace.folder / "pretrain" / "model_final.pth"


def test_pretraining_predicts_the_noise(pretraining: Metrics) -> None:
    assert pretraining["denoising"]["noise_mse"] < 0.6  # predicting nothing scores 1.0
    assert pretraining["denoising"]["psnr_denoised"] > pretraining["denoising"]["psnr_noisy"]


@pytest.fixture(scope="module")
def fine_tunings(workspace: Workspace, weights: Path) -> dict[str, tuple[Metrics, Metrics]]:
    """The results at the end of training, and of --eval-only on its checkpoint, of each config."""

    def fine_tune(config: str) -> tuple[Metrics, Metrics]:
        shorter = {
            "camvid_semantic": ("SOLVER.MAX_ITER", 240),
            "camvid_per_pixel": ("SOLVER.MAX_ITER", 60, "SOLVER.WARMUP_ITERS", 5),
        }
        more = shorter.get(config, ())
        metrics = workspace.train(config, config, "MODEL.WEIGHTS", weights, *more)
        checkpoint = workspace.folder / config / "model_final.pth"
        evaluate = ("--eval-only", "MODEL.WEIGHTS", checkpoint)
        return metrics, workspace.train(config, f"{config}_again", *evaluate)

    # Two processes of one thread each use two cores better than one process of two.
    workspace.environment["OMP_NUM_THREADS"] = "1"
    configs = ("camvid_semantic", "penn_fudan_panoptic", "camvid_per_pixel")
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(configs, pool.map(fine_tune, configs), strict=True))


@pytest.mark.parametrize("config", ["camvid_semantic", "camvid_per_pixel"])
def test_semantic_fine_tuning_on_camvid(
    config: str, workspace: Workspace, fine_tunings: dict[str, tuple[Metrics, Metrics]]
) -> None:
    metrics, again = fine_tunings[config]
    assert metrics["sem_seg"]["mIoU"] > 4 * best_constant_miou(workspace.data)
    assert again == metrics


def test_panoptic_fine_tuning_on_penn_fudan(
    workspace: Workspace, fine_tunings: dict[str, tuple[Metrics, Metrics]]
) -> None:
    metrics, again = fine_tunings["penn_fudan_panoptic"]
    assert metrics["panoptic_seg"]["PQ"] > best_constant_pq(workspace.data) + 5
    assert again == metrics


@pytest.mark.parametrize(
    ("config", "data_set", "task", "evaluated"),
    [
        ("camvid_semantic", "camvid_panoptic", "panoptic", {"sem_seg", "panoptic_seg"}),
        ("penn_fudan_panoptic", "penn_fudan_instance", "instance", {"segm"}),
    ],
)
def test_two_iterations_of_the_other_tasks(
    workspace: Workspace, config: str, data_set: str, task: str, evaluated: set[str]
) -> None:
    instances = task == "instance"
    metrics = workspace.train(
        config,
        data_set,
        *("MODEL.WEIGHTS", "''"),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1 if instances else 11),
        *("MODEL.MASK_FORMER.TEST.SEMANTIC_ON", not instances),
        *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", not instances),
        *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", instances),
        *("DATASETS.TRAIN", f"('{data_set}_train',)"),
        *("DATASETS.TEST", f"('{data_set}_val',)"),
        *("INPUT.DATASET_MAPPER_NAME", f"mask_former_{task}"),
        *("SOLVER.MAX_ITER", 2),
    )
    assert metrics.keys() == evaluated


SMALL_MASK_RCNN = {
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 300,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 200,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 100,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 64,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 128,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 64,
    "INPUT.MIN_SIZE_TRAIN": "(128,)",
    "INPUT.MIN_SIZE_TEST": 128,
    "SOLVER.MAX_ITER": 60,
    "SOLVER.STEPS": "()",
    "SOLVER.WARMUP_ITERS": 10,
    "TEST.EVAL_PERIOD": 0,
    "DATALOADER.NUM_WORKERS": 0,
    "SEED": 1,
}


def test_a_small_mask_rcnn_finds_people_from_random_numbers(workspace: Workspace) -> None:
    config = "../finetune/penn_fudan/instance/mask_rcnn_R50_FPN"
    words = [word for pair in SMALL_MASK_RCNN.items() for word in pair]
    metrics = workspace.train(config, "mask_rcnn", *words)
    assert metrics.keys() == {"bbox", "segm"}
    # The mean box of the training images, in every image, has an AP50 of 2.9.
    assert metrics["bbox"]["AP50"] > 10


def best_constant_miou(data: Path) -> float:
    """Mean IoU of predicting the most frequent class everywhere, in percent."""
    counts = np.zeros(256, dtype=np.int64)
    for path in (data / "camvid" / "sem_seg_val").iterdir():
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=256)
    counts = counts[:11]
    return 100 * counts.max() / counts.sum() / np.count_nonzero(counts)


def best_constant_pq(data: Path) -> float:
    """PQ of predicting one background segment for every image, in percent; people score 0.

    It matches where the background covers more than half of the image, with that share as IoU.
    """
    truth = json.loads((data / "penn_fudan" / "panoptic_val.json").read_text())
    background = next(c["id"] for c in truth["categories"] if not c["isthing"])
    sizes = {image["id"]: image["height"] * image["width"] for image in truth["images"]}
    shares = np.array(
        [
            sum(s["area"] for s in annotation["segments_info"] if s["category_id"] == background)
            / sizes[annotation["image_id"]]
            for annotation in truth["annotations"]
        ]
    )
    matched = shares > 0.5
    # PQ = sum of IoU / (TP + FP / 2 + FN / 2); an unmatched image is one of each.
    pq_background = shares[matched].sum() / len(shares)
    return 100 * pq_background / 2
