"""CSV files with the classes of images: each row has an image's name, then its classes.

beach/1.jpg,sky,water
beach/2.jpg,sky
black.jpg
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddep.data.datasets.catalog import register
from ddep.data.datasets.image_folder import load_image_folder
from ddep.data.datasets.label_kinds import CLASSIFICATION
from ddep.data.datasets.preparation import new_file
from ddep.data.record import Record
from ddep.errors import UserError


@dataclass(frozen=True)
class ClassList:
    """The classes of a data set's images.

    Attributes:
        path: of the CSV file.
        classes: names of the classes, by index.
        of_image: from an image's name to the sorted indices of its classes.
    """

    path: Path
    classes: list[str]
    of_image: Mapping[str, list[int]]

    @classmethod
    def read(cls, path: Path, classes: Sequence[str] | None = None) -> ClassList:
        """Read a CSV file.

        Args:
            path: of the file, in UTF-8.
            classes: names of the classes; None takes all names that occur, sorted.

        Raises:
            UserError: a file that cannot be read or names no image; an image without a name or with
                two rows; a class that is not in ``classes``.
        """
        names: dict[str, list[str]] = {}
        try:
            with open(path, encoding="utf-8", newline="") as file:
                for number, row in enumerate(csv.reader(file), start=1):
                    image, *of_image = map(str.strip, row or [""])
                    if not image and not any(of_image):
                        continue
                    if not image or not all(of_image):
                        raise UserError(
                            f"{path}, row {number}: a field is empty; expected the image's path "
                            "and then its classes"
                        )
                    if image in names:
                        raise UserError(f"{path}, row {number}: {image} has a row already")
                    names[image] = of_image
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text") from error
        except csv.Error as error:
            raise UserError(f"{path}: not a CSV file ({error})") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if not names:
            raise UserError(f"{path}: it names no image; expected a row for each")
        if classes is None:
            classes = sorted({name for of_image in names.values() for name in of_image})
        return cls(path, list(classes), _number(path, names, classes))

    @property
    def multi_label(self) -> bool:
        """Whether any image has no class, or more than one."""
        return any(len(numbers) != 1 for numbers in self.of_image.values())

    def records(self, images: Iterable[Record]) -> list[Record]:
        """The records of those ``images`` that have a row, in order, with ``classes`` added.

        Args:
            images: records with ``image_id``, the path that a row begins with.

        Raises:
            UserError: a row whose image does not exist.
        """
        found = [
            {**record, "classes": self.of_image[record["image_id"]]}
            for record in images
            if record["image_id"] in self.of_image
        ]
        if len(found) != len(self.of_image):
            missing = sorted(self.of_image.keys() - {record["image_id"] for record in found})
            raise UserError(
                f"{self.path}: {missing[0]} ({len(missing)} of {len(self.of_image)} images) is not "
                "in the folder of the images; expected paths relative to it"
            )
        return found


def register_class_list(name: str, images: str, class_list: ClassList, **metadata: Any) -> None:
    """Register the images in a class list, with the metadata that evaluators read.

    Args:
        name: what configs call them.
        images: ``images:<folder>`` with the images, listed when records are needed.
        class_list: their classes.
        metadata: further attributes.
    """
    register(
        name,
        lambda: class_list.records(load_image_folder(images)),
        evaluator_type="classification",
        labelled_for=CLASSIFICATION,
        classes=class_list.classes,
        multi_label=class_list.multi_label,
        **metadata,
    )


def _number(
    path: Path, names: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> dict[str, list[int]]:
    """Replace the names of each image's classes by their sorted indices."""
    numbers = {name: number for number, name in enumerate(classes)}
    for image, of_image in names.items():
        for name in of_image:
            if name not in numbers:
                raise UserError(
                    f"{path}: {image} is of class {name!r}; expected one of {', '.join(classes)}"
                )
    return {
        image: sorted({numbers[name] for name in of_image}) for image, of_image in names.items()
    }


def write_class_list(path: Path, classes: Mapping[str, Iterable[str]]) -> None:
    """Write a CSV file that :meth:`ClassList.read` reads.

    Args:
        path: the file.
        classes: from each image's name to the names of its classes.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [image, *names] for image, names in classes.items()
    )
    with new_file(path) as file:
        file.write(text.getvalue().encode())
