"""The report's picture of predictions: the truth and those of each start, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image, ImageDraw, ImageFont

from ddep.data.datasets.preparation import write_png
from ddep.data.image_reader import read_image
from ddep.drawing.contact_sheet import draw_record
from ddep.inference import Predictor

ROWS = 4
# Width of a column and height of the titles, in pixels.
_WIDTH, _TITLE = 320, 24


def compare_predictions(runs: dict[str, Path], path: Path) -> None:
    """Write a picture: a row per test image; image, truth, then the prediction of each run.

    Args:
        runs: folders of runs that have the same test set, by their titles.
        path: of the picture.

    Raises:
        UserError: a checkpoint cannot be read, or the file cannot be written.
    """
    predictors = []
    for folder in runs.values():
        predictors.append(Predictor(folder))
    test_set = predictors[0].cfg.DATASETS.TEST[0]
    metadata = MetadataCatalog.get(test_set)
    rows = [_titles(["image", "truth", *runs])]
    for record in DatasetCatalog.get(test_set)[:ROWS]:
        cells = [read_image(record["file_name"], "RGB"), draw_record(record, metadata)]
        cells += [predictor(record["file_name"]).draw() for predictor in predictors]
        height = round(_WIDTH * cells[0].shape[0] / cells[0].shape[1])
        resized = [Image.fromarray(cell).resize((_WIDTH, height)) for cell in cells]
        rows.append(np.concatenate([np.asarray(cell) for cell in resized], axis=1))
    write_png(path, np.concatenate(rows))


def _titles(titles: Sequence[str]) -> np.ndarray:
    picture = Image.new("RGB", (_WIDTH * len(titles), _TITLE), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    for column, title in enumerate(titles):
        draw.text((_WIDTH * column + 6, 2), title, "black", font)
    return np.asarray(picture)
