"""Training on few labels: choose the images of a data set that count as labelled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode

from ddep.data.datasets.preparation import new_file
from ddep.data.file_paths import path_of
from ddep.data.record import Record
from ddep.errors import UserError

# In OUTPUT_DIR: the names of the chosen images.
LABELLED_IMAGES = "labelled_images.txt"
_MAX_SEED = 2**32 - 1


def limits_labels(cfg: CfgNode) -> bool:
    """Whether ``cfg`` lets training use only a part of the labels."""
    datasets = cfg.DATASETS
    return bool(datasets.LABEL_FRACTION != 1 or datasets.LABEL_COUNT or datasets.LABEL_LIST)


def check_label_keys(cfg: CfgNode) -> None:
    """Raise :class:`UserError` if ``DATASETS.LABEL_*`` keys are impossible, or exclude each other.

    :func:`choose_labelled` checks what depends on the size of the data sets.
    """
    fraction, count = cfg.DATASETS.LABEL_FRACTION, cfg.DATASETS.LABEL_COUNT
    seed, path = cfg.DATASETS.LABEL_SEED, cfg.DATASETS.LABEL_LIST
    if not (isinstance(fraction, (int, float)) and 0 < fraction <= 1):
        raise UserError(
            f"DATASETS.LABEL_FRACTION is {fraction}; expected a number above 0 and up to 1"
        )
    if not (isinstance(count, int) and count >= 0):
        raise UserError(f"DATASETS.LABEL_COUNT is {count}; expected a number of images, or 0")
    if not (isinstance(seed, int) and 0 <= seed <= _MAX_SEED):
        raise UserError(f"DATASETS.LABEL_SEED is {seed}; expected 0 to {_MAX_SEED}")
    given = {"LABEL_FRACTION": fraction != 1, "LABEL_COUNT": count, "LABEL_LIST": path}
    keys = [f"DATASETS.{key}" for key, is_given in given.items() if is_given]
    if len(keys) > 1:
        raise UserError(f"{' and '.join(keys)} are given; expected at most one of them")
    if path and not os.path.isfile(path):
        found = "is a folder" if os.path.isdir(path) else "does not exist"
        raise UserError(f"DATASETS.LABEL_LIST {path} {found}; expected a list of file names")


def choose_labelled(
    cfg: CfgNode, names: Sequence[str], sets: Sequence[Sequence[Record]]
) -> list[list[Record]]:
    """Choose the records that training may use, in each data set separately.

    Args:
        cfg: with the ``DATASETS.LABEL_*`` keys.
        names: of the data sets.
        sets: all records of each data set, in any order.

    Returns:
        For each data set the records of the chosen images, in their order.

    Raises:
        UserError: more images are requested than there are, or none; a list names an unknown image
            or data set.
    """
    relative = [relative_names(record["file_name"] for record in records) for records in sets]
    if cfg.DATASETS.LABEL_LIST:
        available = {name: set(paths.values()) for name, paths in zip(names, relative, strict=True)}
        chosen = read_label_list(cfg.DATASETS.LABEL_LIST, available)
    else:
        chosen = {
            name: _draw(cfg, name, sorted(set(paths.values())))
            for name, paths in zip(names, relative, strict=True)
        }
    return [
        [record for record in records if paths[record["file_name"]] in chosen[name]]
        for name, paths, records in zip(names, relative, sets, strict=True)
    ]


def relative_names(file_names: Iterable[str]) -> dict[str, str]:
    """Map each file name to its path below the deepest folder that holds all files, with ``/``.

    These paths and their order do not depend on where a data set is. For an image in a tar file,
    the path is that of the tar file, then that of the image in it.
    """
    paths = {name: os.path.abspath(path_of(name)) for name in file_names}
    folder = os.path.commonpath([os.path.dirname(path) for path in paths.values()])
    start = len(folder.rstrip(os.sep)) + 1
    return {name: path[start:].replace(os.sep, "/") for name, path in paths.items()}


def draw_names(names: Sequence[str], count: int, seed: int) -> set[str]:
    """The first ``count`` of a permutation of sorted ``names`` that depends only on ``seed``."""
    # RandomState, unlike Generator, gives the same numbers in every version of NumPy.
    order = np.random.RandomState(seed).permutation(len(names))
    return {names[i] for i in order[:count]}


def _draw(cfg: CfgNode, data_set: str, names: Sequence[str]) -> set[str]:
    fraction, count = cfg.DATASETS.LABEL_FRACTION, cfg.DATASETS.LABEL_COUNT
    if count > len(names):
        raise UserError(
            f"DATASETS.LABEL_COUNT is {count}, but data set {data_set} has {len(names)} images; "
            f"expected at most {len(names)}"
        )
    count = count or round(fraction * len(names))
    if not count:
        raise UserError(
            f"DATASETS.LABEL_FRACTION {fraction} of the {len(names)} images of data set {data_set} "
            f"is less than one image; expected at least {1 / len(names):.2g}"
        )
    return draw_names(names, count, cfg.DATASETS.LABEL_SEED)


def write_label_list(
    path: str,
    names: Sequence[str],
    chosen: Sequence[Sequence[Record]],
    sets: Sequence[Sequence[Record]],
) -> None:
    """Write the names of the chosen images, whole or not at all, as LABEL_LIST takes them.

    Each data set has a line ``[data set]``, then the names of its images, sorted, one per line.

    Args:
        path: the file.
        names: of the data sets.
        chosen: the chosen records of each data set.
        sets: all records of each data set.

    Raises:
        UserError: it cannot be written.
    """
    lines = []
    for name, records, everything in zip(names, chosen, sets, strict=True):
        if f"[{name}]" in lines:  # a set that is named twice
            continue
        paths = relative_names(record["file_name"] for record in everything)
        lines += [f"[{name}]", *sorted({paths[record["file_name"]] for record in records})]
    with new_file(Path(path)) as file:
        file.write(("\n".join(lines) + "\n").encode())


def read_label_list(path: str, available: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Read a list that :func:`write_label_list` wrote, or one written by hand.

    A single data set needs no line ``[data set]``. Empty lines are ignored.

    Args:
        path: the file.
        available: the names of all images, by data set.

    Returns:
        The names of the chosen images, by data set.

    Raises:
        UserError: a file that cannot be read; an unknown image or data set; a data set without an
            image in the list.
    """
    source = f"DATASETS.LABEL_LIST {path}"
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}") from error
    chosen: dict[str, set[str]] = {name: set() for name in available}
    current = next(iter(available)) if len(available) == 1 else None
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            current = line[1:-1]
            if current not in available:
                raise UserError(
                    f"{source}, line {number}: data set {current} is not in DATASETS.TRAIN, which "
                    f"has {', '.join(available)}"
                )
        elif current is None:
            raise UserError(
                f"{source}, line {number}: a file name without a data set; expected [NAME] "
                f"before the images of each of {', '.join(available)}"
            )
        else:
            chosen[current].add(line)
    for name, images in chosen.items():
        _check_listed(source, name, images, available[name])
    return chosen


def _check_listed(source: str, data_set: str, images: set[str], available: set[str]) -> None:
    if not images:
        raise UserError(f"{source} names no image of data set {data_set}; expected at least one")
    unknown = sorted(images - available)
    if unknown:
        raise UserError(
            f"{source} has {len(unknown)} names that are not in data set {data_set}, such as "
            f"{unknown[0]}; its images are named like {min(available)}"
        )
