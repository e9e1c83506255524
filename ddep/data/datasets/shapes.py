"""The demo's data set: generated scenes of textured shapes, with panoptic labels.

The things are also annotated as instances, with boxes and masks. A CSV file lists the classes that
each image shows, including images without panoptic labels. The images of ``subjects`` show one
large thing each, as photographs for classification do.

With a shift, the scenes have another look, such as night: another domain. They are other scenes,
in a folder of their own.

Every image has its own random numbers, seeded by (seed, split, index, shift): the same seed gives
the same files, and generating more images does not change the first ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddep.data.datasets.catalog import register
from ddep.data.datasets.class_lists import ClassList, write_class_list
from ddep.data.datasets.declaration import DatasetDeclaration, Option, Preparation, declare
from ddep.data.datasets.image_folder import load_image_folder
from ddep.data.datasets.instance_writer import InstanceWriter
from ddep.data.datasets.instances import register_instances
from ddep.data.datasets.label_kinds import CLASSIFICATION
from ddep.data.datasets.numbered_files import numbered, remove_surplus
from ddep.data.datasets.panoptic import IGNORE_LABEL, PanopticSplit, register_panoptic
from ddep.data.datasets.preparation import PanopticWriter, write_png
from ddep.data.datasets.shape_scenes import CATEGORIES, MIN_SIZE, Scene, draw_scene
from ddep.data.datasets.shape_shifts import SHIFTS, shift_image
from ddep.errors import UserError

SPLITS = ("train", "val")
UNLABELLED = "unlabelled"
SUBJECTS = "subjects"
NO_SHIFT = "none"
LOOKS = (NO_SHIFT, *SHIFTS)
_NAMES = [category["name"] for category in CATEGORIES]
_THINGS = [category for category in CATEGORIES if category["isthing"]]


def register_shapes(root: Path) -> None:
    """Register ``shapes_panoptic_{train,val}``, ``shapes_instance_{train,val}``,
    ``shapes_classes_{train,val,unlabelled,subjects}``, and the same for each shift:
    ``shapes_night_panoptic_train`` and so on.
    """
    folder = root / "shapes"
    for prefix, below in (
        ("shapes", folder),
        *((f"shapes_{shift}", folder / shift) for shift in SHIFTS),
    ):
        for name in SPLITS:
            split = PanopticSplit.below(below, name)
            register_panoptic(f"{prefix}_panoptic_{name}", split, CATEGORIES)
            register_instances(
                f"{prefix}_instance_{name}", split.image_root, _instances(below, name), _THINGS
            )
        for name in (*SPLITS, UNLABELLED, SUBJECTS):
            _register_classes(f"{prefix}_classes_{name}", below, name)


def _register_classes(registered: str, folder: Path, split: str) -> None:
    """Register the classes that each image of a split shows."""
    images, path = folder / split, _class_list(folder, split)
    register(
        registered,
        lambda: ClassList.read(path, _NAMES).records(load_image_folder(f"images:{images}")),
        evaluator_type="classification",
        labelled_for=CLASSIFICATION,
        classes=_NAMES,
        multi_label=True,
        image_root=str(images),
        class_list=str(path),
        required_files=("image_root", "class_list"),
    )


def _instances(folder: Path, split: str) -> Path:
    return folder / f"instances_{split}.json"


def _class_list(folder: Path, split: str) -> Path:
    return folder / f"classes_{split}.csv"


def generate_shapes(
    target: Path,
    *,
    seed: int = 0,
    train: int = 40,
    val: int = 60,
    unlabelled: int = 1000,
    subjects: int = 0,
    size: int = 128,
    shift: str = NO_SHIFT,
) -> dict[str, dict[str, int]]:
    """Write the data set: labelled splits train and val, unlabelled images, and subjects, which are
    images of one thing each; for each of them a CSV file with the classes of its images.

    Removes surplus images of an earlier, larger run.

    Args:
        target: folder to write to.
        seed: not negative.
        train, val, unlabelled, subjects: number of images.
        size: height and width of the images, pixels.
        shift: a name in SHIFTS writes scenes with that look to the folder of this name in
            ``target``; "none" writes to ``target`` itself.

    Returns:
        For each split, the number of images and of things.

    Raises:
        UserError: an argument out of range.
    """
    numbers = {"train": train, "val": val, UNLABELLED: unlabelled, SUBJECTS: subjects}
    for what, found, least in [
        ("--seed", seed, 0),
        ("--size", size, MIN_SIZE),
        *((f"--{name}", n, 0 if name == SUBJECTS else 1) for name, n in numbers.items()),
    ]:
        if found < least:
            raise UserError(f"{what} is {found}; expected at least {least}")
    if shift not in LOOKS:
        raise UserError(f"--shift is {shift}; expected one of {', '.join(LOOKS)}")
    shifted = shift != NO_SHIFT
    target = target / shift if shifted else target
    counts = {}
    for split_index, (name, number) in enumerate(numbers.items()):
        split = PanopticSplit.below(target, name)
        writer = PanopticWriter(split, CATEGORIES) if name in SPLITS else None
        things = InstanceWriter(_instances(target, name), _THINGS) if writer else None
        shown: dict[str, list[str]] = {}
        for index in tqdm(range(number), desc=f"shapes {name}", disable=None):
            rng = np.random.default_rng(
                [seed, split_index, index, *(shift.encode() if shifted else b"")]
            )
            scene = draw_scene(rng, size, subject=name == SUBJECTS)
            image_name = f"{numbered(index)}.png"
            image = shift_image(rng, scene.image, shift) if shifted else scene.image
            write_png(split.image_root / image_name, image)
            shown[image_name] = [_NAMES[i - 1] for i in sorted(set(scene.category_ids.values()))]
            if writer and things:
                writer.add(image_name, _semantic(scene), scene.panoptic, scene.category_ids)
                things.add(writer.images[-1], scene.panoptic, scene.category_ids)
        counts[name] = {"images": number}
        if writer and things:
            things.finish()
            writer.finish()
            counts[name]["things"] = len(things.annotations)
        for folder in (split.image_root, split.panoptic_root, split.sem_seg_root):
            remove_surplus(folder, number)
        if shown:
            write_class_list(_class_list(target, name), shown)
        else:
            _class_list(target, name).unlink(missing_ok=True)
    return counts


def _semantic(scene: Scene) -> np.ndarray:
    class_of_segment = np.full(1 + max(scene.category_ids), IGNORE_LABEL, dtype=np.uint8)
    for segment_id, category_id in scene.category_ids.items():
        class_of_segment[segment_id] = category_id - 1
    return class_of_segment[scene.panoptic]


_HELP = {
    "seed": "the same seed gives the same files",
    "train": "number of labelled training images",
    "val": "number of labelled validation images",
    "unlabelled": "number of images without panoptic labels, to pretrain on",
    "subjects": "number of images of one large thing each, to pretrain encoders by classification",
    "size": "height and width of the images in pixels",
    "shift": f"another look, in a folder of its own below FOLDER: one of {', '.join(LOOKS)}",
}
declare(
    DatasetDeclaration(
        name="shapes",
        how_to_get={"shapes_*": "make it with python datasets/prepare.py shapes"},
        register=register_shapes,
        preparation=Preparation(
            summary="generated images of textured shapes, with panoptic labels: the demo's",
            folder="shapes",
            folder_help="folder to write to",
            prepare=generate_shapes,
            options={
                name: Option(default, _HELP[name])
                for name, default in generate_shapes.__kwdefaults__.items()
            },
        ),
    )
)
