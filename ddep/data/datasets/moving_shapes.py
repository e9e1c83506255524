"""Generated videos of textured shapes that move, cross, leave and come back, with a mask and an
identity for each shape in each frame.

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
from ddep.data.datasets.preparation import write_png
from ddep.data.datasets.shape_scenes import CATEGORIES, MIN_SIZE
from ddep.data.datasets.shape_things import NUM_THINGS
from ddep.data.datasets.video import register_videos
from ddep.data.datasets.video_writer import VideoWriter
from ddep.errors import UserError

SPLITS = ("train", "val")
_THINGS = CATEGORIES[:NUM_THINGS]


def register_moving_shapes(root: Path) -> None:
    """Register ``moving_shapes_{train,val}`` below ``root``."""
    folder = root / "moving_shapes"
    for split in SPLITS:
        register_videos(
            f"moving_shapes_{split}",
            folder / split,
            folder / f"{split}.json",
            _THINGS,
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
    """Write the data set: for each split, a folder of PNG files for each video, and a JSON file in
    YouTube-VIS's format.

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
        writer = VideoWriter(target / f"{split}.json", _THINGS)
        for index in tqdm(range(number), desc=f"moving-shapes {split}", disable=None):
            clip = draw_clip(np.random.default_rng([seed, split_index, index]), size, frames)
            names = [f"{numbered(index)}/{numbered(frame)}.png" for frame in range(frames)]
            for name, image in zip(names, clip.images, strict=True):
                write_png(folder / name, image)
            writer.add(names, clip.tracks, {i: _THINGS[c]["id"] for i, c in clip.class_ids.items()})
            remove_surplus(folder / numbered(index), frames)
        remove_surplus(folder, number)
        writer.finish()
        counts[split] = {"videos": number, "tracks": len(writer.annotations)}
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
