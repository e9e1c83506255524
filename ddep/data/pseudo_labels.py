"""Soft pseudo-labels in files: the probabilities of classes that a model gives to pixels.

A folder of them has ``pseudo_labels.json``, which says what they are of and is there when all are
written; ``prototypes.npz``; and ``images/NAME.npz`` for each image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor

from ddep.data.datasets.preparation import new_file
from ddep.data.file_paths import path_of
from ddep.data.json_file import read_json
from ddep.errors import UserError
from ddep.output_files import write_json

KEY = "MODEL.ADAPTATION.PSEUDO_LABELS"
INDEX, PROTOTYPES = "pseudo_labels.json", "prototypes.npz"
_VERSION = 1


class SoftLabel(NamedTuple):
    """The pseudo-label of one image.

    Attributes:
        probabilities: (K, h, w) float32, sums over the K classes are 1.
        covered: how many rows and columns of that map lie over the image, from the top left
            corner; the last ones may lie over it in part only.
    """

    probabilities: Tensor
    covered: tuple[float, float]


@dataclass(frozen=True)
class PseudoLabels:
    """What the files in a folder are.

    Attributes:
        root: the folder that all images are in.
        datasets: the data sets of the images.
        num_classes: K.
        classes: names of the classes; None where they are not known.
        model: which model and options made them, for people.
        unreadable: images that could not be read and have no file.
    """

    root: str
    datasets: list[str]
    num_classes: int
    classes: list[str] | None
    model: dict[str, Any]
    unreadable: list[str]

    def write(self, folder: Path) -> None:
        """Write the index, the last file of a folder.

        Raises:
            UserError: it cannot be written.
        """
        write_json(str(folder / INDEX), {"version": _VERSION, **asdict(self)})


def read_index(folder: str) -> PseudoLabels:
    """Read what the files in ``folder`` are.

    Raises:
        UserError: it is no complete folder of pseudo-labels.
    """
    if not folder:
        raise UserError(
            f"{KEY} is empty; make pseudo-labels with tools/pseudo-labels.py and name their folder"
        )
    path = Path(folder, INDEX)
    if not path.is_file():
        raise UserError(
            f"{KEY} {folder} has no {INDEX}; expected a folder that tools/pseudo-labels.py has "
            "finished: run it, or continue it with --resume"
        )
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("version", None) != _VERSION:
        raise UserError(f"{path} is not of version {_VERSION}; make the pseudo-labels again")
    try:
        return PseudoLabels(**content)
    except TypeError as error:
        raise UserError(f"{path} is damaged ({error}); make the pseudo-labels again") from error


def check_pseudo_labels(cfg: CfgNode) -> None:
    """Check that the pseudo-labels that a config names are of its classes and target images.

    Raises:
        UserError: they are not, or there are none.
    """
    folder = cfg.MODEL.ADAPTATION.PSEUDO_LABELS
    index = read_index(folder)
    number = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if index.num_classes != number:
        raise UserError(
            f"{KEY} {folder} has {index.num_classes} classes; expected {number}, the value of "
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES: make them with a model of these classes"
        )
    for name in cfg.DATASETS.TRAIN:
        names = list(MetadataCatalog.get(name).get("stuff_classes") or ())
        if index.classes and len(names) == number and names != index.classes:
            mine, theirs = next(
                pair for pair in zip(names, index.classes, strict=True) if pair[0] != pair[1]
            )
            raise UserError(
                f"{KEY} {folder} has the class {theirs!r} where data set {name} has {mine!r}; "
                "make them with a model of the same classes in the same order"
            )
    for name in cfg.DATASETS.TARGET:
        if name not in index.datasets:
            raise UserError(
                f"DATASETS.TARGET has {name}, but {KEY} {folder} is of "
                f"{', '.join(index.datasets)}; make pseudo-labels of all target sets together"
            )


def common_root(file_names: Sequence[str]) -> str:
    """The innermost folder that all images are in."""
    folders = {os.path.dirname(_absolute(name)) for name in file_names}
    return os.path.commonpath(folders)


def label_path(folder: Path, root: str, file_name: str) -> Path:
    """Where the pseudo-label of an image is.

    Args:
        folder: of the pseudo-labels.
        root: of the images, see :class:`PseudoLabels`.
        file_name: of the image, as in its record.

    Raises:
        UserError: the image is not below ``root``.
    """
    relative = os.path.relpath(_absolute(file_name), root)
    if relative.split(os.sep)[0] == os.pardir:
        raise UserError(
            f"image {file_name} is not in {root}, whose images the pseudo-labels in {folder} are "
            "of; make them again for the images where they are now"
        )
    return folder / "images" / f"{relative}.npz"


def write_label(path: Path, label: SoftLabel, **more: np.ndarray) -> None:
    """Write a pseudo-label, whole or not at all: a compressed NumPy archive.

    ``probabilities`` is (K, h, w) uint8, see :func:`quantise`; ``covered`` (2,) float64.

    Args:
        path: of the file; its folder is made if need be.
        label: the pseudo-label.
        more: further arrays for the archive.

    Raises:
        UserError: it cannot be written.
    """
    arrays = {"probabilities": quantise(label.probabilities), "covered": label.covered, **more}
    with new_file(path) as file:
        np.savez_compressed(file, **arrays)


def read_label(path: Path) -> SoftLabel:
    """Read what :func:`write_label` wrote.

    Raises:
        UserError: missing or damaged.
    """
    levels, covered = read_arrays(path, "probabilities", "covered")
    return SoftLabel(dequantise(levels), (float(covered[0]), float(covered[1])))


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Read arrays of a NumPy archive of pseudo-labels.

    Raises:
        UserError: the file or one of the arrays is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; make the pseudo-labels again with tools/pseudo-labels.py"
        ) from error
    except Exception as error:  # a damaged zip file raises all kinds of things
        raise UserError(
            f"{path} is damaged ({error}); make the pseudo-labels again with tools/pseudo-labels.py"
        ) from error


def quantise(probabilities: Tensor) -> np.ndarray:
    """Probabilities as ``round(255 * sqrt(p))``, uint8.

    The square root leaves digits to small probabilities, which rectification by prototypes can
    multiply by large factors: levels are 1.5e-5, 6e-5, ... at the lower end and 0.008 apart at 1.
    """
    return (255 * probabilities.clamp_min(0).sqrt()).round().clamp_max(255).byte().cpu().numpy()


def dequantise(levels: np.ndarray) -> Tensor:
    """The probabilities of :func:`quantise`, (K, h, w) float32, scaled so that sums are 1."""
    probabilities = (torch.from_numpy(levels).float() / 255).square()
    return probabilities / probabilities.sum(0, keepdim=True)


def _absolute(file_name: str) -> str:
    return os.path.abspath(path_of(file_name))
