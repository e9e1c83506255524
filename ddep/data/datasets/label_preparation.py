"""Convert the label images of semantic data sets that number their classes differently.

The labels go into a separate folder, and the names of the images to use into a text file that is
written last: after an interrupted preparation the data set counts as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from ddep.data.datasets.preparation import do_jobs, new_file, write_png
from ddep.data.image_reader import open_image
from ddep.errors import UserError, one_line
from ddep.parallel import check_workers


@dataclass(frozen=True)
class LabelJob:
    """One image, its original label file, and the label file to write."""

    image: Path
    source: Path
    target: Path


def write_labels(
    jobs: Sequence[LabelJob],
    read: Callable[[Path], np.ndarray],
    workers: int,
    progress: str,
    leave_out_mismatched: bool = False,
) -> list[str]:
    """Write the label image of each job.

    Args:
        jobs: the labels to write.
        read: picklable; makes a label, (H, W) uint8, from an original file.
        workers: number of processes.
        progress: name of the progress bar.
        leave_out_mismatched: whether to leave out labels whose size is not their image's, instead
            of raising an error.

    Returns:
        Names of the images that were left out, without endings.

    Raises:
        UserError: an unreadable file, a label out of range, sizes that differ.
    """
    check_workers(workers)
    left_out = []
    write = partial(_write_label, read=read)
    mismatches = do_jobs(write, jobs, lambda job: job.source, workers, progress)
    for job, mismatch in zip(jobs, mismatches, strict=True):
        if mismatch and not leave_out_mismatched:
            raise UserError(mismatch)
        if mismatch:
            left_out.append(job.image.stem)
    return left_out


def _write_label(job: LabelJob, read: Callable[[Path], np.ndarray]) -> str:
    """Write a label; return what is wrong with its size, or an empty string."""
    labels = read(job.source)
    with open_image(str(job.image)) as image:
        height, width = image.size
    if labels.shape == (height, width):
        write_png(job.target, labels)
        return ""
    job.target.unlink(missing_ok=True)
    return (
        f"{job.source}: {labels.shape[1]}x{labels.shape[0]} pixels, but its image {job.image} has "
        f"{width}x{height}; a label must have its image's size"
    )


def write_names(path: Path, names: Iterable[str]) -> None:
    """Write the names of images, sorted, one per line."""
    with new_file(path) as file:
        file.write("".join(f"{name}\n" for name in sorted(names)).encode())


def read_matlab(path: Path, variable: str) -> np.ndarray:
    """Read a variable of a MATLAB file.

    Raises:
        UserError: no such file or variable, or a damaged file.
    """
    try:
        return loadmat(path, variable_names=[variable])[variable]
    except Exception as error:  # SciPy's reader raises almost anything on damaged files
        raise UserError(
            f"{path}: not a MATLAB file with {variable} ({one_line(error) or repr(error)}); fetch "
            "it again"
        ) from error
