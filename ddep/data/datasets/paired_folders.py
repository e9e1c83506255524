"""A folder of images and one of label images, paired by their names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ddep.data.datasets.image_folder import find_images


@dataclass(frozen=True)
class PairedFolders:
    """The files of two folders, at any depth.

    Attributes:
        images: paths by name, which is relative to the folder and without the ending.
        labels: the same for the label images.
        repeated: pairs of files in one folder that have the same name.
    """

    images: dict[str, str]
    labels: dict[str, str]
    repeated: list[tuple[str, str]]

    @classmethod
    def read(cls, image_root: str | Path, label_root: str | Path) -> PairedFolders:
        """List two folders. If one is inside the other, the outer one is listed without it.

        Raises:
            UserError: a folder that does not exist or has no images.
        """
        images, labels = (
            {os.path.normpath(path) for path in find_images(Path(root))}
            for root in (image_root, label_root)
        )
        if images > labels:
            images -= labels
        elif labels > images:
            labels -= images
        repeated: list[tuple[str, str]] = []
        return cls(
            _by_name(image_root, images, repeated), _by_name(label_root, labels, repeated), repeated
        )

    def pairs(self) -> list[dict[str, str]]:
        """Records, sorted by name, of the images that have a label."""
        return [
            {"file_name": self.images[name], "sem_seg_file_name": self.labels[name]}
            for name in sorted(self.images.keys() & self.labels.keys())
        ]

    def images_without_label(self) -> list[str]:
        return sorted(self.images[name] for name in self.images.keys() - self.labels.keys())

    def labels_without_image(self) -> list[str]:
        return sorted(self.labels[name] for name in self.labels.keys() - self.images.keys())


def _by_name(
    root: str | Path, paths: Iterable[str], repeated: list[tuple[str, str]]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(paths):
        name = os.path.splitext(os.path.relpath(path, root))[0]
        if found.setdefault(name, path) != path:
            repeated.append((found[name], path))
    return found
