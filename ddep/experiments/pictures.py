"""The report's picture of predictions: the truth and those of each start, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image, ImageDraw, ImageFont

from ddep.data.datasets.preparation import write_png
from ddep.drawing.contact_sheet import draw_record
from ddep.inference import Predictor

ROWS = 4
# Width of a column, of images and of strips of frames, and height of the titles, in pixels.
_WIDTH, _STRIP_WIDTH, _TITLE = 320, 640, 24


def compare_predictions(runs: dict[str, Path], path: Path) -> None:
    """Write a picture: a row per test image or video; image, truth, each run's prediction.

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
    records = DatasetCatalog.get(test_set)[:ROWS]
    width = _STRIP_WIDTH if "file_names" in records[0] else _WIDTH
    rows = [_titles(["image", "truth", *runs], width)]
    for position, record in enumerate(records):
        unlabelled = {key: record[key] for key in ("file_name", "file_names") if key in record}
        cells = [draw_record(unlabelled, metadata), draw_record(record, metadata)]
        for predictor in predictors:
            [prediction] = predictor.predict([predictor.map_record(record, position)])
            cells.append(prediction.draw())
        height = round(width * cells[0].shape[0] / cells[0].shape[1])
        resized = [Image.fromarray(cell).resize((width, height)) for cell in cells]
        rows.append(np.concatenate([np.asarray(cell) for cell in resized], axis=1))
    write_png(path, np.concatenate(rows))


def _titles(titles: Sequence[str], width: int) -> np.ndarray:
    picture = Image.new("RGB", (width * len(titles), _TITLE), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    for column, title in enumerate(titles):
        draw.text((width * column + 6, 2), title, "black", font)
    return np.asarray(picture)
