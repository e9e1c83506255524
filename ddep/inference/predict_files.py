"""Predict every image of some files and folders and write a picture of each result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm

from ddep.data.datasets.image_folder import find_images
from ddep.data.image_reader import UnreadableImageError
from ddep.errors import UserError
from ddep.inference.predictor import Predictor


def predict_files(
    model: str | Path | CfgNode,
    inputs: Sequence[Path],
    output: Path,
    *,
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Predict images and write ``output/NAME.png`` for each; folders keep their inner structure.

    Args:
        model, overrides: as for :class:`Predictor`.
        inputs: images, and folders that are searched recursively.
        output: folder for the pictures, made if need be.

    Returns:
        The pictures written.

    Raises:
        UserError: nothing to predict, pictures that would replace or mix with the images, or images
            that could not be read (after all others are done).
    """
    pairs = plan_pictures(inputs, output)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; expected a folder")
    predictor = Predictor(model, overrides=overrides)
    unreadable = []
    written = []
    for position, (image, picture) in enumerate(tqdm(pairs, unit="image")):
        try:
            sample = predictor.inputs(image, position)
        except UnreadableImageError as error:
            unreadable.append(str(error))
            continue
        [prediction] = predictor.predict([sample])
        prediction.save(picture)
        written.append(picture)
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {len(pairs)} images could not be read: {'; '.join(unreadable)}"
        )
    return written


def plan_pictures(inputs: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Pair each image with the picture to write; a second a.* becomes a.png.png or a.jpg.png.

    Raises:
        UserError: as for :func:`predict_files`, as far as nothing needs to be read.
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
    return [(image, picture) for picture, image in pictures.items()]
