"""Generated videos of textured shapes that move, cross, leave and come back, with a mask and an
identity for each shape in each frame.

A second annotation file of the same videos has one class for all shapes: small models learn to
follow objects in minutes, but not to tell the classes apart.

Every video has its own random numbers, seeded by (seed, split, index): the same seed gives the same
files, and generating more videos does not change the first ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddep.data.datasets.declaration import DatasetDeclaration, Option, Preparation, declare
from ddep.data.datasets.label_kinds import TRACKING, VIDEO
from ddep.data.datasets.moving_scenes import draw_clip
from ddep.data.datasets.numbered_files import numbered, remove_surplus
from ddep.data.datasets.panoptic import Category
from ddep.data.datasets.preparation import write_png
from ddep.data.datasets.shape_scenes import CATEGORIES, MIN_SIZE
from ddep.data.datasets.shape_things import NUM_THINGS
from ddep.data.datasets.video import register_videos
from ddep.data.datasets.video_writer import VideoWriter
from ddep.errors import UserError

SPLITS = ("train", "val")
_THINGS = CATEGORIES[:NUM_THINGS]
_OBJECTS: list[Category] = [{"id": 1, "name": "object", "isthing": 1, "color": [230, 60, 60]}]
# The end of a registered name's and a file's first part, and the classes.
_ANNOTATIONS = {"": _THINGS, "_objects": _OBJECTS}


def register_moving_shapes(root: Path) -> None:
    """Register ``moving_shapes_{train,val}`` and ``moving_shapes_objects_{train,val}``, which are
    the same with one class, below ``root``."""
    folder = root / "moving_shapes"
    for ending, categories in _ANNOTATIONS.items():
        for split in SPLITS:
            register_videos(
                f"moving_shapes{ending}_{split}",
                folder / split,
                folder / f"{split}{ending}.json",
                categories,
                labelled_for=(*VIDEO, *TRACKING),
            )


def generate_moving_shapes(
    target: Path,
    *,
    seed: int = 0,
    train: int = 60,
    val: int = 20,
    frames: int = 12,
    size: int = 96,
) -> dict[str, dict[str, int]]:
    """Write the data set: for each split, a folder of PNG files for each video, and JSON files in
    YouTube-VIS's format: with the classes of shapes, and with one class for all of them.

    Removes surplus videos and frames of an earlier, larger run.

    Args:
        target: folder to write to.
        seed: not negative.
        train, val: number of videos.
        frames: of each video.
        size: height and width of the frames, pixels.

    Returns:
        For each split, the number of videos and of tracks.

    Raises:
        UserError: an argument out of range.
    """
    numbers = {"train": train, "val": val}
    for what, found, least in [
        ("--seed", seed, 0),
        ("--frames", frames, 1),
        ("--size", size, MIN_SIZE),
        *((f"--{name}", number, 1) for name, number in numbers.items()),
    ]:
        if found < least:
            raise UserError(f"{what} is {found}; expected at least {least}")
    counts = {}
    for split_index, (split, number) in enumerate(numbers.items()):
        folder = target / split
        writers = [
            VideoWriter(target / f"{split}{ending}.json", categories)
            for ending, categories in _ANNOTATIONS.items()
        ]
        for index in tqdm(range(number), desc=f"moving-shapes {split}", disable=None):
            clip = draw_clip(np.random.default_rng([seed, split_index, index]), size, frames)
            names = [f"{numbered(index)}/{numbered(frame)}.png" for frame in range(frames)]
            for name, image in zip(names, clip.images, strict=True):
                write_png(folder / name, image)
            shapes = {number: _THINGS[kind]["id"] for number, kind in clip.class_ids.items()}
            objects = dict.fromkeys(clip.class_ids, _OBJECTS[0]["id"])
            for writer, category_ids in zip(writers, (shapes, objects), strict=True):
                writer.add(names, clip.tracks, category_ids)
            remove_surplus(folder / numbered(index), frames)
        remove_surplus(folder, number)
        for writer in writers:
            writer.finish()
        counts[split] = {"videos": number, "tracks": len(writers[0].annotations)}
    return counts


_HELP = {
    "seed": "the same seed gives the same files",
    "train": "number of training videos",
    "val": "number of validation videos",
    "frames": "number of frames of each video",
    "size": "height and width of the frames in pixels",
}
declare(
    DatasetDeclaration(
        name="moving-shapes",
        how_to_get={"moving_shapes_*": "make it with python datasets/prepare.py moving-shapes"},
        register=register_moving_shapes,
        preparation=Preparation(
            summary="generated videos of shapes that cross, with masks and identities",
            folder="moving_shapes",
            folder_help="folder to write to",
            prepare=generate_moving_shapes,
            options={
                name: Option(default, _HELP[name])
                for name, default in generate_moving_shapes.__kwdefaults__.items()
            },
        ),
    )
)
