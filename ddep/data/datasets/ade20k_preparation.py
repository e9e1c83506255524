"""Convert ADE20K's labels to semantic, panoptic and instance labels that detectron2 reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddep.data.datasets.ade20k_classes import (
    CATEGORIES,
    FOLDERS,
    THINGS,
    ade20k_split,
    instances_json,
)
from ddep.data.datasets.instances import describe_mask
from ddep.data.datasets.panoptic import IGNORE_LABEL, encode_panoptic, segments_info
from ddep.data.datasets.preparation import (
    check_range,
    check_same_size,
    do_jobs,
    image_pairs,
    write_json,
    write_png,
)
from ddep.data.image_reader import read_image, read_labels, read_panoptic
from ddep.errors import UserError
from ddep.parallel import check_workers

_EXPECTED = "ADEChallengeData2016: {images,annotations}/{training,validation}"
_EXPECTED_INSTANCES = "annotations_instance/{training,validation}, as in annotations_instance.tar"


@dataclass(frozen=True)
class _Job:
    """One image: its files, and the labels to write. Without instances the last two are None."""

    image: Path
    labels: Path
    semantic: Path
    instances: Path | None = None
    panoptic: Path | None = None


@dataclass(frozen=True)
class _Labels:
    """The JSON entries of one image; ``objects`` are COCO's annotations without their id."""

    image: dict[str, Any]
    annotation: dict[str, Any]
    objects: list[dict[str, Any]]


def prepare_ade20k(folder: Path, workers: int) -> dict[str, dict[str, int]]:
    """Write semantic labels in which classes start at 0, and panoptic and instance labels.

    The last two need ``annotations_instance``; without it they are left out. Panoptic labels are
    the stuff of the semantic labels with the instances on top; things without an instance are void.

    Args:
        folder: ADEChallengeData2016, whose labels are 1..150, and 0 for unlabelled pixels, which
            become 255.
        workers: number of processes.

    Returns:
        For each split, the number of labels.

    Raises:
        UserError: a file missing or unreadable, a label out of range, sizes that differ.
    """
    check_workers(workers)
    jobs = {split: _list_jobs(folder, split) for split in FOLDERS}
    return {split: _prepare_split(folder, split, jobs[split], workers) for split in FOLDERS}


def _list_jobs(folder: Path, split: str) -> list[_Job]:
    target, name = ade20k_split(folder, split), FOLDERS[split]
    pairs = image_pairs(target.image_root, folder / "annotations" / name, ".png", _EXPECTED)
    instances = folder / "annotations_instance"
    if not instances.exists():
        return [_Job(image, labels, target.sem_seg_root / labels.name) for image, labels in pairs]
    instance_pairs = image_pairs(target.image_root, instances / name, ".png", _EXPECTED_INSTANCES)
    return [
        _Job(
            image,
            labels,
            semantic=target.sem_seg_root / labels.name,
            instances=instances,
            panoptic=target.panoptic_root / labels.name,
        )
        for (image, labels), (_, instances) in zip(pairs, instance_pairs, strict=True)
    ]


def _prepare_split(folder: Path, split: str, jobs: Sequence[_Job], workers: int) -> dict[str, int]:
    panoptic_json = ade20k_split(folder, split).panoptic_json
    instance_json = instances_json(folder, split)
    with_instances = jobs[0].instances is not None
    if with_instances:
        panoptic_json.unlink(missing_ok=True)
        instance_json.unlink(missing_ok=True)
    labels = list(do_jobs(_prepare_image, jobs, lambda job: job.image, workers, f"ade20k {split}"))
    counts = {"semantic labels": len(jobs)}
    if not with_instances:
        return counts
    images = [label.image for label in labels]
    objects = [entry for label in labels for entry in label.objects]
    objects = [{"id": i, **entry} for i, entry in enumerate(objects, start=1)]
    write_json(instance_json, {"images": images, "annotations": objects, "categories": THINGS})
    annotations = [label.annotation for label in labels]
    write_json(
        panoptic_json, {"images": images, "annotations": annotations, "categories": CATEGORIES}
    )
    return {**counts, "panoptic labels": len(jobs), "instances": len(objects)}


def _prepare_image(job: _Job) -> _Labels | None:
    labels = read_labels(str(job.labels))
    check_range(job.labels, labels, len(CATEGORIES), "1..150 for the classes, 0 for unlabelled")
    sem_seg = labels.astype(np.uint8) - np.uint8(1)  # 0 wraps to 255
    write_png(job.semantic, sem_seg)
    if job.instances is None or job.panoptic is None:
        return None
    check_same_size(job.image, read_image(str(job.image)), job.labels, labels)
    # Red is the class, 1..100; green is the instance, 0 where there is none.
    coded = read_panoptic(str(job.instances))
    check_same_size(job.image, labels[..., None], job.instances, coded)
    classes, instances = coded & 255, coded >> 8 & 255
    class_of_instance = _classes_of_instances(job.instances, classes, instances)
    panoptic, category_ids = merge_instances(sem_seg, instances, class_of_instance)
    write_png(job.panoptic, encode_panoptic(panoptic))
    height, width = labels.shape
    image_id = job.image.stem
    return _Labels(
        image={"id": image_id, "file_name": job.image.name, "height": height, "width": width},
        annotation={
            "image_id": image_id,
            "file_name": job.panoptic.name,
            "segments_info": segments_info(panoptic, category_ids),
        },
        objects=[
            {
                "image_id": image_id,
                "category_id": category_id,
                "iscrowd": 0,
                **describe_mask(instances == instance),
            }
            for instance, category_id in class_of_instance.items()
        ],
    )


def _classes_of_instances(
    source: Path, classes: np.ndarray, instances: np.ndarray
) -> dict[int, int]:
    """Map each instance to its category id, given the (H, W) class and instance of each pixel."""
    category_ids = {}
    for instance in np.unique(instances[instances > 0]).tolist():
        numbers = np.unique(classes[instances == instance]).tolist()
        if len(numbers) > 1 or not 1 <= numbers[0] <= len(THINGS):
            raise UserError(
                f"{source}: instance {instance} (green) is of the classes {numbers} (red); "
                f"expected one of 1..{len(THINGS)}"
            )
        category_ids[instance] = THINGS[numbers[0] - 1]["id"]
    return category_ids


def merge_instances(
    sem_seg: np.ndarray, instances: np.ndarray, class_of_instance: Mapping[int, int]
) -> tuple[np.ndarray, dict[int, int]]:
    """Combine a semantic and an instance label into a panoptic one.

    Args:
        sem_seg: (H, W) uint8, classes 0..149, 255 for unlabelled.
        instances: (H, W) integers, 1..N for the objects, 0 elsewhere.
        class_of_instance: class of each object.

    Returns:
        segment ids (H, W) int32 with 0 for void; the class of each segment id. Stuff that objects
        cover has no pixels.
    """
    stuff = [
        class_id
        for class_id in np.unique(sem_seg[sem_seg != IGNORE_LABEL]).tolist()
        if not CATEGORIES[class_id]["isthing"]
    ]
    panoptic = np.zeros(sem_seg.shape, dtype=np.int32)
    category_ids: dict[int, int] = {}
    for segment_id, class_id in enumerate(stuff, start=1):
        panoptic[sem_seg == class_id] = segment_id
        category_ids[segment_id] = class_id
    for segment_id, instance in enumerate(class_of_instance, start=1 + len(stuff)):
        panoptic[instances == instance] = segment_id
        category_ids[segment_id] = class_of_instance[instance]
    return panoptic, category_ids
