"""Pictures of an evaluation show the truth and the prediction for the same images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventStorage
from PIL import Image

from ddep.data.image_reader import read_panoptic
from ddep.drawing.segments import draw_outputs
from ddep.evaluation.pictures import NUM_ROWS, PredictionPictures
from tests.engine.tiny_runs import shapes_root


@pytest.fixture(autouse=True)
def shapes(tmp_path: Path) -> Iterator[None]:
    with shapes_root(tmp_path):
        yield


def make_pictures(name: str, folder: Path) -> PredictionPictures:
    return PredictionPictures(
        lambda inputs, outputs, metadata: draw_outputs(inputs["file_name"], outputs, metadata),
        name,
        str(folder),
        "segmentation",
    )


def test_truth_on_the_left_and_prediction_on_the_right(tmp_path: Path) -> None:
    name = "shapes_panoptic_train"
    pictures = make_pictures(name, tmp_path / "inference")
    records = DatasetCatalog.get(name)
    assert len(records) > NUM_ROWS
    with EventStorage() as storage:
        for record in records:
            ids = torch.from_numpy(read_panoptic(record["pan_seg_file_name"]))
            # The prediction is the truth, except for one image: there, everything is one segment.
            segments = record["segments_info"]
            if record is records[1]:
                ids, segments = torch.full_like(ids, segments[0]["id"]), segments[:1]
            pictures.process([record], [{"panoptic_seg": (ids, segments)}])
        assert pictures.evaluate() == {}
        [(shown, stored, _)] = storage._vis_data
    picture = np.asarray(Image.open(tmp_path / "inference" / "segmentation.png"))
    assert shown == f"segmentation/{name}"
    assert np.array_equal(stored.permute(1, 2, 0), picture)
    rows = np.split(picture, NUM_ROWS)
    halves = [np.split(row, 2, axis=1) for row in rows]
    differences = [np.abs(a.astype(int) - b).mean() for a, b in halves]
    # Colours of things vary a little from picture to picture.
    assert differences[1] > 4 * max(differences[0], *differences[2:])


def test_without_predictions_nothing_is_drawn(tmp_path: Path) -> None:
    name = "shapes_panoptic_val"
    pictures = make_pictures(name, tmp_path / "inference")
    assert pictures.evaluate() == {}
    assert not (tmp_path / "inference").exists()
