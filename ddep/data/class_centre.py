"""Crops around a class: where a class is in a label map, and a crop that shows that place.

The class-uniform sampling of RobustNet (arXiv 2103.15597, section 5.1) crops images there.
"""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T

# The key of a record that names the class to crop at.
CLASS_TO_SHOW = "class_to_show"


def draw_class_centre(labels: np.ndarray, class_id: int, tile_size: int) -> np.ndarray | None:
    """Draw a tile of the image that shows a class, and find the class's centroid in it.

    The last tile of each row and column takes what is left of the image: all tiles have at least
    ``tile_size`` pixels in each direction, or as many as the image has. Draws from NumPy's global
    generator.

    Args:
        labels: (H, W) of any integer dtype.
        class_id: the class.
        tile_size: side of a tile, in pixels.

    Returns:
        x, y of the centroid, float64, where the first pixel's centre is at 0.5; None if the class
        is not there.
    """
    y, x = np.nonzero(labels == class_id)
    if not len(y):
        return None
    last_row, last_column = (max(side // tile_size, 1) - 1 for side in labels.shape)
    rows, columns = np.minimum(y // tile_size, last_row), np.minimum(x // tile_size, last_column)
    tiles = rows * (last_column + 1) + columns
    shown = np.unique(tiles)
    inside = tiles == shown[np.random.randint(len(shown))]
    return np.array([x[inside].mean() + 0.5, y[inside].mean() + 0.5])


class CropAtClass(T.Augmentation):
    """Another crop, moved to show the class's centroid if the sample has one.

    Of all crops of that size inside the image that do so, each is as likely.
    """

    def __init__(self, crop: T.RandomCrop | T.RandomCrop_CategoryAreaConstraint) -> None:
        """
        Args:
            crop: decides on the size and, for samples without a centroid, on the place.
        """
        super().__init__()
        self.crop = crop

    def get_transform(
        self, image: np.ndarray, sem_seg: np.ndarray | None, class_centre: np.ndarray | None
    ) -> T.Transform:
        """
        Args:
            image: (H, W, 3).
            sem_seg: (H, W).
            class_centre: x, y of the centroid, or None.
        """
        by_area = isinstance(self.crop, T.RandomCrop_CategoryAreaConstraint)
        if class_centre is None:
            return self.crop.get_transform(image, *([sem_seg] if by_area else []))
        sizes = self.crop.crop_aug if by_area else self.crop
        whole = image.shape[:2]
        cropped = sizes.get_crop_size(whole)
        x, y = np.floor(class_centre).astype(int)
        top, left = (
            _draw_start(place, part, side)
            for place, part, side in zip((y, x), cropped, whole, strict=True)
        )
        return T.CropTransform(left, top, cropped[1], cropped[0])


def _draw_start(place: int, part: int, side: int) -> int:
    """Draw where ``part`` pixels of ``side`` start, so that ``place`` is one of them."""
    place = min(max(place, 0), side - 1)
    return np.random.randint(max(place - part + 1, 0), min(place, side - part) + 1)
