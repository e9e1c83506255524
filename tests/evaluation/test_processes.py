"""Every evaluator finds in three processes, one of them without images, what it finds in one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
import torch.distributed as dist
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BitMasks, Instances
from PIL import Image
from torch.multiprocessing import start_processes

from ddep.data.datasets import dataset_root, register_all
from ddep.data.datasets.cityscapes import THINGS
from ddep.data.datasets.shapes import generate_shapes
from ddep.data.image_reader import read_labels, read_panoptic
from ddep.evaluation import (
    CheckedSemSegEvaluator,
    CityscapesAPEvaluator,
    ClassificationEvaluator,
    DenoisingEvaluator,
    MaskAPEvaluator,
    PanopticQualityEvaluator,
    TrackingEvaluator,
    VideoAPEvaluator,
)
from tests.evaluation.small_videos import registered, right_output, video

pytestmark = pytest.mark.slow

PROCESSES, SIZE = 3, 48
CITYSCAPES, COCO = "cityscapes_of_processes", "coco_of_processes"
VIDEOS = "videos_of_processes"
Evaluation = tuple[DatasetEvaluator, list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two generated images with all kinds of labels, and ground truth as Cityscapes has it."""
    folder = tmp_path_factory.mktemp("processes")
    usual = dataset_root()
    generate_shapes(folder / "shapes", train=1, val=PROCESSES - 1, unlabelled=1, size=SIZE)
    register_all(folder)
    (folder / "gt" / "bonn").mkdir(parents=True)
    for i, columns in enumerate((20, 30)):
        ids = np.full((SIZE, SIZE), 26001, dtype=np.uint16)
        ids[:, columns:] = 26002
        Image.fromarray(ids).save(folder / f"gt/bonn/bonn_{i}_0_gtFine_instanceIds.png")
    write_coco(folder / "coco.json")
    MetadataCatalog.get(COCO).set(
        json_file=str(folder / "coco.json"), thing_dataset_id_to_contiguous_id={3: 0, 8: 1}
    )
    things = {thing["id"]: i for i, thing in enumerate(THINGS)}
    MetadataCatalog.get(CITYSCAPES).set(
        gt_dir=str(folder / "gt"), thing_dataset_id_to_contiguous_id=things
    )
    with registered(VIDEOS, lambda: [video(1), video(2)]):
        yield folder
    MetadataCatalog.pop(CITYSCAPES)
    MetadataCatalog.pop(COCO)
    register_all(usual)


def write_coco(path: Path) -> None:
    """Two images, each with an object of one class on the left and one of another on the right."""
    annotations = []
    for image in range(2):
        for category, columns in ((3, slice(0, 20)), (8, slice(20, SIZE))):
            mask = np.zeros((SIZE, SIZE), dtype=np.uint8, order="F")
            mask[:, columns] = 1
            code = mask_util.encode(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "segmentation": {**code, "counts": code["counts"].decode()},
                    "area": int(mask.sum()),
                    "bbox": mask_util.toBbox(code).tolist(),
                    "iscrowd": 0,
                }
            )
    images = [{"id": image, "height": SIZE, "width": SIZE} for image in range(2)]
    categories = [{"id": 3, "name": "left"}, {"id": 8, "name": "right"}]
    path.write_text(
        json.dumps({"images": images, "categories": categories, "annotations": annotations})
    )


def panoptic(folder: Path) -> Evaluation:
    """The true segments, moved by some pixels."""
    name = "shapes_panoptic_val"
    metadata = MetadataCatalog.get(name)
    records, outputs = DatasetCatalog.get(name), []
    for shift, record in enumerate(records, 2):
        truth = read_panoptic(record["pan_seg_file_name"])
        segments = []
        for segment in record["segments_info"]:
            number = segment["category_id"]
            isthing = number in metadata.thing_dataset_id_to_contiguous_id.values()
            segments.append({"id": segment["id"], "category_id": number, "isthing": isthing})
        moved = np.roll(truth, shift, axis=1).astype(np.int64)
        outputs.append({"panoptic_seg": (torch.from_numpy(moved), segments)})
    return PanopticQualityEvaluator(name, str(folder / "panoptic")), records, outputs


def semantic(folder: Path) -> Evaluation:
    name = "shapes_panoptic_val"
    records, outputs = DatasetCatalog.get(name), []
    number = len(MetadataCatalog.get(name).stuff_classes)
    for shift, record in enumerate(records, 2):
        labels = np.roll(read_labels(record["sem_seg_file_name"]), shift, axis=1)
        scores = torch.from_numpy(labels)[None] == torch.arange(number)[:, None, None]
        outputs.append({"sem_seg": scores.float()})
    return CheckedSemSegEvaluator(name, str(folder / "semantic")), records, outputs


def two_halves(image: int, classes: list[int]) -> Instances:
    masks = torch.zeros(2, SIZE, SIZE)
    masks[0, :, : 22 + image] = masks[1, :, 22 + image :] = 1
    return Instances(
        (SIZE, SIZE),
        pred_masks=masks,
        pred_boxes=BitMasks(masks).get_bounding_boxes(),
        scores=torch.tensor([0.9 - 0.3 * image, 0.5 + 0.3 * image]),
        pred_classes=torch.tensor(classes),
    )


def cityscapes_instances(folder: Path) -> Evaluation:
    car = [thing["id"] for thing in THINGS].index(26)
    inputs = [{"file_name": f"bonn/bonn_{i}_0_leftImg8bit.png"} for i in range(2)]
    outputs = [{"instances": two_halves(i, [car, car])} for i in range(2)]
    return CityscapesAPEvaluator(CITYSCAPES), inputs, outputs


def denoising(folder: Path) -> Evaluation:
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = [], []
    for _ in range(2):
        image, noise, guess = torch.randn(3, 3, 8, 9, generator=generator)
        inputs.append({"image": image, "noise": noise, "sigma": 0.3})
        outputs.append({"noise": noise + 0.1 * guess, "denoised": image + 0.1 * guess})
    evaluator = DenoisingEvaluator(
        "images",
        formulation="additive",
        pixel_mean=[120.0] * 3,
        pixel_std=[60.0] * 3,
        image_format="RGB",
        output_dir=str(folder / "denoising"),
    )
    return evaluator, inputs, outputs


def instances(folder: Path) -> Evaluation:
    inputs = [{"image_id": i} for i in range(2)]
    outputs = [{"instances": two_halves(i, [0, 1 - i])} for i in range(2)]
    return MaskAPEvaluator(COCO, str(folder / "instances")), inputs, outputs


def one_class(folder: Path, multi_label: bool = False) -> Evaluation:
    name = f"test_processes_classes_{multi_label}"
    if name not in MetadataCatalog:
        names = list("abcdef")
        MetadataCatalog.get(name).set(classes=names, multi_label=multi_label)
    generator = torch.Generator().manual_seed(0)
    inputs = [{"classes": torch.tensor([i, 5][: 1 + multi_label])} for i in range(2)]
    outputs = [{"classes": torch.rand(6, generator=generator)} for _ in inputs]
    outputs[0]["classes"][0], outputs[1]["classes"][1] = 1.0, 0.0
    return ClassificationEvaluator(name, str(folder)), inputs, outputs


def videos(folder: Path, kind: type[DatasetEvaluator] = VideoAPEvaluator) -> Evaluation:
    """Two videos; in the second one no right object is found."""
    outputs = [right_output() for _ in range(2)]
    outputs[1]["pred_labels"] = [0, 0]
    return kind(VIDEOS, str(folder / "videos")), [{"video_id": 1}, {"video_id": 2}], outputs


def tracking(folder: Path) -> Evaluation:
    return videos(folder, TrackingEvaluator)


def several_classes(folder: Path) -> Evaluation:
    return one_class(folder, multi_label=True)


KINDS = (
    panoptic,
    semantic,
    instances,
    cityscapes_instances,
    denoising,
    one_class,
    several_classes,
    videos,
    tracking,
)


def evaluate(kind: Callable[[Path], Evaluation], folder: Path) -> dict[str, dict[str, float]]:
    evaluator, inputs, outputs = kind(folder)
    evaluator.reset()
    for i in InferenceSampler(len(inputs)):
        evaluator.process(inputs[i : i + 1], outputs[i : i + 1])
    return evaluator.evaluate()


def work(rank: int, folder: str) -> None:
    # As in a data loader's worker; a forked process has none of its parent's other threads.
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    assert len(list(InferenceSampler(PROCESSES - 1))) == (rank < PROCESSES - 1)
    found = {kind.__name__: evaluate(kind, Path(folder)) for kind in KINDS}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each process returned."""
    start_processes(work, args=(str(folder),), nprocs=PROCESSES, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_one_process(
    kind: Callable[[Path], Evaluation], folder: Path, found: list[dict[str, Any]]
) -> None:
    expected = evaluate(kind, folder)
    assert all(not process[kind.__name__] for process in found[1:])
    results = found[0][kind.__name__]
    assert results.keys() == expected.keys()
    values = []
    for task, metrics in expected.items():
        assert results[task] == pytest.approx(metrics, rel=1e-12, nan_ok=True)
        values += metrics.values()
    # The numbers could tell a lost image from one that counts twice.
    assert sum(0 < value < 100 for value in values if not math.isnan(value)) > 1
