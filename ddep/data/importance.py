"""How often target images are drawn, so that all classes are seen (DA-SAC, arXiv 2105.00097)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ddep.data.pseudo_labels import label_path, read_arrays, read_index


def importance_weights(class_pixels: np.ndarray, uniform: float) -> np.ndarray:
    """The probability of each image when a class is drawn first, then an image for it.

    For a class, an image's probability is ``uniform / N``, and the rest of 1 times the image's
    share of the class's pixels; for a class without pixels, all images are as likely.

    Args:
        class_pixels: (N, K), how many pixels of each class each image has.
        uniform: in [0, 1]; with 1, all images are as likely.

    Returns:
        (N,) float64, sums to 1.
    """
    totals = class_pixels.sum(axis=0)
    shares = np.full(class_pixels.shape, 1 / len(class_pixels))
    np.divide(class_pixels, totals, out=shares, where=totals > 0)
    return uniform / len(class_pixels) + (1 - uniform) * shares.mean(axis=1)


def read_class_pixels(folder: str, file_names: Iterable[str]) -> np.ndarray:
    """How many pixels of each class the pseudo-labels of images have.

    Args:
        folder: that ``tools/pseudo-labels.py`` has written.
        file_names: of the images, as in their records.

    Returns:
        (N, K) int64; 0 for images that could not be read when the pseudo-labels were made.

    Raises:
        UserError: no such folder, or an image without a pseudo-label.
    """
    index = read_index(folder)
    unreadable, nothing = set(index.unreadable), np.zeros(index.num_classes, dtype=np.int64)
    paths = [
        None if name in unreadable else label_path(Path(folder), index.root, name)
        for name in file_names
    ]
    return np.stack([read_arrays(path, "class_pixels")[0] if path else nothing for path in paths])
