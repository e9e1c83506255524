"""COCO panoptic with semantic labels, under the names that Mask2Former gave them.

detectron2's ``coco_2017_{train,val}_panoptic`` have no semantic labels of all 133 classes.
``..._with_sem_seg`` adds them, so that mIoU can be measured besides PQ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ddep.data.datasets.declaration import WORKERS, DatasetDeclaration, Preparation, declare
from ddep.data.datasets.label_kinds import INSTANCE, panoptic_labels
from ddep.data.datasets.panoptic import (
    IGNORE_LABEL,
    PanopticSplit,
    load_annotations,
    register_panoptic,
)
from ddep.data.datasets.preparation import do_jobs, write_png
from ddep.data.image_reader import read_panoptic
from ddep.errors import UserError
from ddep.parallel import check_workers

SPLITS = ("train", "val")


def coco_split(folder: Path, split: str) -> PanopticSplit:
    """The paths of a COCO 2017 split below ``folder``, in COCO's and Mask2Former's layout."""
    return PanopticSplit(
        image_root=folder / f"{split}2017",
        panoptic_root=folder / f"panoptic_{split}2017",
        panoptic_json=folder / "annotations" / f"panoptic_{split}2017.json",
        sem_seg_root=folder / f"panoptic_semseg_{split}2017",
    )


def register_coco(root: Path) -> None:
    """Register ``coco_2017_{train,val}_panoptic_with_sem_seg`` below ``root``.

    ``coco_2017_{train,val}`` and ``..._panoptic`` stay where detectron2 registered them.
    """
    folder = root / "coco"
    for split in SPLITS:
        register_panoptic(
            f"coco_2017_{split}_panoptic_with_sem_seg",
            coco_split(folder, split),
            COCO_CATEGORIES,
            evaluator_type="coco_panoptic_seg",
            json_file=str(folder / "annotations" / f"instances_{split}2017.json"),
        )
        MetadataCatalog.get(f"coco_2017_{split}").set(
            labelled_for=INSTANCE, required_files=("image_root", "json_file")
        )
        MetadataCatalog.get(f"coco_2017_{split}_panoptic").set(
            labelled_for=panoptic_labels(semantic=False, instances=True),
            required_files=("image_root", "panoptic_json", "panoptic_root"),
        )


def prepare_coco(folder: Path, workers: int) -> dict[str, dict[str, int]]:
    """Write semantic labels made from COCO's panoptic ones, for the existing splits.

    Args:
        folder: COCO as distributed; the labels go to ``panoptic_semseg_*2017`` in it.
        workers: number of processes.

    Returns:
        For each split, the number of labels.

    Raises:
        UserError: no panoptic JSON file; a PNG file that is missing or does not fit the JSON.
    """
    check_workers(workers)
    splits = {name: coco_split(folder, name) for name in SPLITS}
    present = {name: split for name, split in splits.items() if split.panoptic_json.exists()}
    if not present:
        raise UserError(
            f"{splits['train'].panoptic_json} does not exist, nor that of val; expected COCO's "
            f"panoptic annotations, unpacked as datasets/README.md shows"
        )
    return {name: _prepare_split(split, name, workers) for name, split in present.items()}


def _prepare_split(split: PanopticSplit, name: str, workers: int) -> dict[str, int]:
    annotations = load_annotations(split.panoptic_json, COCO_CATEGORIES)
    jobs = [
        (
            split.panoptic_root / annotation["file_name"],
            split.sem_seg_root / annotation["file_name"],
            {segment["id"]: segment["category_id"] for segment in annotation["segments_info"]},
        )
        for annotation in annotations
    ]
    for _ in do_jobs(_write_semantic, jobs, lambda job: job[0], workers, f"coco {name}"):
        pass
    return {"semantic labels": len(jobs)}


def _write_semantic(job: tuple[Path, Path, dict[int, int]]) -> None:
    source, target, class_of_segment = job
    write_png(target, semantic_from_panoptic(read_panoptic(str(source)), class_of_segment, source))


def semantic_from_panoptic(
    panoptic: np.ndarray, class_of_segment: dict[int, int], source: Path
) -> np.ndarray:
    """Replace each segment id of a panoptic label by its class.

    Args:
        panoptic: (H, W) integers, segment ids; 0 is void.
        class_of_segment: contiguous class id of each segment id.
        source: the label's path, for the error message.

    Returns:
        (H, W) uint8, contiguous class ids, 255 for void.

    Raises:
        UserError: a segment id that the JSON file does not list.
    """
    ids, inverse = np.unique(panoptic, return_inverse=True)
    classes = {0: IGNORE_LABEL, **class_of_segment}
    unknown = [int(segment_id) for segment_id in ids if int(segment_id) not in classes]
    if unknown:
        raise UserError(f"{source}: segment {unknown[0]} is not listed in the panoptic JSON file")
    lookup = np.array([classes[int(segment_id)] for segment_id in ids], dtype=np.uint8)
    return lookup[inverse].reshape(panoptic.shape)


declare(
    DatasetDeclaration(
        name="coco",
        how_to_get={
            "coco_2017_*_panoptic_with_sem_seg": "unpack COCO, then run python "
            "datasets/prepare.py coco",
            "coco_2017_*_panoptic": "unpack COCO's images and panoptic annotations",
            "coco_2017_train": "unpack COCO's images and instance annotations",
            "coco_2017_val": "unpack COCO's images and instance annotations",
        },
        register=register_coco,
        preparation=Preparation(
            summary="semantic labels of COCO's 133 panoptic classes, to measure mIoU besides PQ",
            folder="coco",
            folder_help="with annotations/ and panoptic_{train,val}2017/; "
            "panoptic_semseg_{train,val}2017/ are written into it",
            prepare=prepare_coco,
            options=WORKERS,
        ),
    )
)
