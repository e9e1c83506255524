"""Pictures of what a model looks at in the images of some files and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ddep.data.datasets.preparation import write_png
from ddep.data.image_reader import UnreadableImageError
from ddep.errors import UserError
from ddep.inference.attention_picture import attention_picture
from ddep.inference.plan import plan_pictures
from ddep.inference.predictor import Predictor


def draw_attention_files(
    predictor: Predictor,
    inputs: Sequence[Path],
    output: Path,
    at: tuple[int, int] | None = None,
) -> list[Path]:
    """Write ``output/NAME_attention.png`` for each image; folders keep their inner structure.

    Args:
        predictor: the model.
        inputs: images, and folders that are searched recursively.
        output: folder for the pictures, made if need be.
        at: see :func:`attention_picture`.

    Returns:
        The pictures written.

    Raises:
        UserError: as for :func:`ddep.inference.predict_files` and :func:`attention_picture`.
    """
    pairs = plan_pictures(inputs, output)
    unreadable = []
    written = []
    for image, picture in tqdm(pairs, unit="image", disable=None):
        try:
            drawn = attention_picture(predictor, image, at)
        except UnreadableImageError as error:
            unreadable.append(str(error))
            continue
        path = picture.with_name(f"{picture.stem}_attention.png")
        write_png(path, drawn)
        written.append(path)
    if unreadable:
        raise UserError(
            f"{len(unreadable)} of {len(pairs)} images could not be read: {'; '.join(unreadable)}"
        )
    return written
