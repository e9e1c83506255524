"""Which images are predicted, what their files are called, and which ids they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddep.data.datasets.image_folder import find_images
from ddep.data.json_file import read_json
from ddep.data.record import Record
from ddep.errors import UserError


@dataclass(frozen=True)
class Job:
    """One image.

    Attributes:
        image: its path.
        name: of its files, without their folder and ending.
        position: in the order of all images.
        image_id: of COCO's formats.
    """

    image: Path
    name: str
    position: int
    image_id: int | str

    @property
    def record(self) -> Record:
        """What the mapper is given."""
        return {"file_name": str(self.image), "image_id": self.image_id}


def plan_jobs(inputs: Sequence[Path], output: Path, annotations: Path | None = None) -> list[Job]:
    """List the images of files and folders.

    An image's id is that of its file name in ``annotations``; or else the number that its name is,
    if the names of all images are different numbers; or else its position, counted from 1.

    Args:
        inputs: images, and folders that are searched recursively.
        output: folder for the results; it may not exist yet.
        annotations: a JSON file in COCO's format; its ``images`` have ``id`` and ``file_name``.

    Raises:
        UserError: nothing to predict, results that would replace or mix with the images, an image
            that ``annotations`` does not have.
    """
    pairs = plan_pictures(inputs, output)
    names = [str(picture.relative_to(output).with_suffix("")) for _, picture in pairs]
    images = [image for image, _ in pairs]
    roots = [path for path in inputs if path.is_dir()]
    ids = _ids_by_number(images) if annotations is None else _ids_of(images, roots, annotations)
    return [
        Job(image, name, position, image_id)
        for position, (image, name, image_id) in enumerate(zip(images, names, ids, strict=True))
    ]


def plan_pictures(inputs: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Pair each image with the picture to write; a second a.* becomes a.png.png or a.jpg.png.

    Raises:
        UserError: as :func:`plan_jobs`.
    """
    found = []
    for path in inputs:
        if path.is_dir():
            if output.resolve().is_relative_to(path.resolve()):
                raise UserError(
                    f"--output {output} is in --input {path}, where pictures would mix with "
                    "images; choose another folder"
                )
            images = [Path(image) for image in find_images(path)]
            found += [(image, image.relative_to(path)) for image in images]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise UserError(f"--input {path} does not exist; expected an image or a folder")
    pictures: dict[Path, Path] = {}
    for image, name in found:
        picture = output / name.with_suffix(".png")
        if picture in pictures:
            picture = output / f"{name}.png"
        if picture in pictures:
            raise UserError(
                f"--input has two images for {picture}: {pictures[picture]} and {image}; "
                "predict them into different folders"
            )
        pictures[picture] = image
    images = {image.resolve() for image in pictures.values()}
    for picture in pictures:
        if picture.resolve() in images:
            raise UserError(f"--output {output} would replace {picture}; choose another folder")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; expected a folder")
    return [(image, picture) for picture, image in pictures.items()]


def _ids_by_number(images: Sequence[Path]) -> list[int]:
    stems = [image.stem for image in images]
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(images) + 1))


def _ids_of(images: Sequence[Path], roots: Sequence[Path], annotations: Path) -> list[int | str]:
    """The ids in ``annotations``, by path below an input folder, else by file name."""
    try:
        listed = {
            str(image["file_name"]): image["id"]
            for image in read_json(annotations, ("images",))["images"]
        }
    except (KeyError, TypeError) as error:
        raise UserError(
            f"--annotations {annotations} has images without id or file_name; expected COCO's "
            "format"
        ) from error
    by_name: dict[str, list[int | str]] = {}
    for file_name, image_id in listed.items():
        by_name.setdefault(Path(file_name).name, []).append(image_id)
    ids = []
    for image in images:
        below = [image.relative_to(root) for root in roots if image.is_relative_to(root)]
        exact = next((listed[str(path)] for path in below if str(path) in listed), None)
        candidates = by_name.get(image.name, []) if exact is None else [exact]
        if len(candidates) != 1:
            problem = "no image" if not candidates else f"{len(candidates)} images"
            raise UserError(
                f"--annotations {annotations} has {problem} of the name of {image}; expected one: "
                "give the annotations of these images"
            )
        ids.append(candidates[0])
    if len(set(ids)) < len(ids):
        raise UserError(f"--annotations {annotations} gives two of the images one id")
    return ids
