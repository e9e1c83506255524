"""Helpers for preparing data sets: pair files, and write them safely.

A file appears under its name only when it is complete, and a split's JSON file is written last:
after an interrupted preparation the data set counts as missing, and can be prepared again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from ddep.data.datasets.panoptic import Category, PanopticSplit, encode_panoptic, segments_info
from ddep.errors import UserError
from ddep.files import atomic_write
from ddep.parallel import Crash, parallel_map

SOURCE_SUFFIXES = (".png", ".jpg", ".jpeg")

Job = TypeVar("Job")
Result = TypeVar("Result")


def do_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    source: Callable[[Job], Path],
    workers: int,
    progress: str,
) -> Iterator[Result]:
    """Call ``function`` on each job, in worker processes; yield the results in the jobs' order.

    Args:
        function: picklable, like jobs and results.
        jobs: the arguments.
        source: the file that a job reads, for the error message.
        workers: number of processes.
        progress: name of the progress bar.

    Raises:
        UserError: the worker process that did a job died.
    """
    results = tqdm(
        parallel_map(function, jobs, workers), total=len(jobs), desc=progress, disable=None
    )
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, Crash):
            raise UserError(
                f"the process that prepared {source(job)} died; check the file, and free memory"
            )
        yield result


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing bytes; the file appears when it is complete. Makes its folder.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: its folder cannot be made ({error.strerror}); choose "
            "another folder"
        ) from error
    with atomic_write(path, durable=False) as file:
        yield file


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) uint8 or uint16, or (H, W, 3) uint8, as a PNG file."""
    with new_file(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")


def label_pixels(ids: np.ndarray, count: int) -> np.ndarray:
    """(H, W) integers below ``count`` as uint8, or as uint16 if they need 16 bits."""
    return ids.astype(np.uint8 if count <= 256 else np.uint16)


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint8, RGB, as a high-quality JPEG file."""
    with new_file(path) as file:
        Image.fromarray(pixels).save(file, format="JPEG", quality=95)


def write_tiff(path: Path, labels: np.ndarray) -> None:
    """Write (H, W) uint16 as a compressed TIFF file."""
    with new_file(path) as file:
        Image.fromarray(labels).save(file, format="TIFF", compression="tiff_deflate")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as a JSON file."""
    with new_file(path) as file:
        file.write(json.dumps(content).encode())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, unless ``target`` is that very file."""
    if target.exists() and os.path.samefile(source, target):
        return
    with source.open("rb") as old, new_file(target) as new:
        shutil.copyfileobj(old, new)


def image_pairs(
    images: Path, labels: Path, label_suffix: str, expected: str
) -> list[tuple[Path, Path]]:
    """Pair the images of one folder with the label files of another, by name.

    Args:
        images: folder with NAME.png or NAME.jpg.
        labels: folder with NAME + ``label_suffix``.
        label_suffix: for example "_mask.png".
        expected: the tree that is expected, for the error message.

    Returns:
        (image, label) paths, sorted by name.

    Raises:
        UserError: a missing folder, no images, two images with one name, an image without a label
            or a label without an image.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; expected {expected}")
    by_name: dict[str, Path] = {}
    for path in sorted(images.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SOURCE_SUFFIXES:
            continue
        if path.stem in by_name:
            raise UserError(f"{path} and {by_name[path.stem].name} have the same name; keep one")
        by_name[path.stem] = path
    if not by_name:
        raise UserError(f"{images}: no .png or .jpg images in it; expected {expected}")
    label_names = {
        path.name[: -len(label_suffix)]
        for path in labels.iterdir()
        if path.name.endswith(label_suffix) and not path.name.startswith(".")
    }
    for name in sorted(by_name.keys() - label_names):
        raise UserError(f"{by_name[name]}: its label {labels / (name + label_suffix)} is missing")
    for name in sorted(label_names - by_name.keys()):
        raise UserError(f"{labels / (name + label_suffix)}: there is no such image in {images}")
    return [(by_name[name], labels / (name + label_suffix)) for name in sorted(by_name)]


def check_same_size(image: Path, pixels: np.ndarray, label: Path, ids: np.ndarray) -> None:
    """Raise UserError unless the image (H, W, 3) and its label (H, W) have the same size."""
    if pixels.shape[:2] != ids.shape:
        raise UserError(
            f"{label}: {ids.shape[1]}x{ids.shape[0]} pixels, but its image {image} has "
            f"{pixels.shape[1]}x{pixels.shape[0]}; a label must have its image's size"
        )


def check_range(label: Path, ids: np.ndarray, highest: int, expected: str) -> None:
    """Raise UserError unless all ``ids`` are in 0..highest."""
    for found in (ids.min(), ids.max()):
        if not 0 <= found <= highest:
            raise UserError(f"{label}: label {found} is out of range; expected {expected}")


class PanopticWriter:
    """Writes the labels of one split: semantic and panoptic PNG files, and the JSON file last."""

    def __init__(self, split: PanopticSplit, categories: Sequence[Category]) -> None:
        self.split = split
        self.categories = list(categories)
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        split.panoptic_json.unlink(missing_ok=True)

    def add(
        self,
        image_name: str,
        sem_seg: np.ndarray,
        panoptic: np.ndarray,
        category_ids: Mapping[int, int],
    ) -> None:
        """Write the labels of one image, which belongs in ``split.image_root``.

        Args:
            image_name: file name of the image.
            sem_seg: (H, W) uint8, contiguous class ids, 255 for void.
            panoptic: (H, W) integers, segment ids, 0 for void.
            category_ids: category id of each segment id.
        """
        label_name = Path(image_name).stem + ".png"
        height, width = panoptic.shape
        image_id = len(self.images) + 1
        write_png(self.split.sem_seg_root / label_name, sem_seg)
        write_png(self.split.panoptic_root / label_name, encode_panoptic(panoptic))
        self.images.append(
            {"id": image_id, "file_name": image_name, "height": height, "width": width}
        )
        self.annotations.append(
            {
                "image_id": image_id,
                "file_name": label_name,
                "segments_info": segments_info(panoptic, category_ids),
            }
        )

    def finish(self) -> None:
        """Write the JSON file, which makes the split complete."""
        write_json(
            self.split.panoptic_json,
            {
                "images": self.images,
                "annotations": self.annotations,
                "categories": self.categories,
            },
        )
