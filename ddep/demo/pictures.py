"""The demonstration's picture of segmentations: truth and each start's prediction, in columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from ddep.data.datasets.panoptic import PanopticSplit, load_panoptic
from ddep.data.datasets.shape_scenes import CATEGORIES
from ddep.data.image_reader import read_image, read_panoptic
from ddep.drawing.segments import draw_panoptic
from ddep.inference import Predictor
from ddep.tasks import load_config

ROWS = 4


def compare_segmentations(shapes: Path, folders: dict[str, Path], output: Path) -> None:
    """Write ``output/segmentation.png``: a row per image; image, truth, then each run's result.

    Args:
        shapes: folder of the generated data set.
        folders: output folder of one run per start.
        output: folder of the picture.
    """
    metadata = MetadataCatalog.get("shapes_panoptic_val")
    predictors = []
    for folder in folders.values():
        cfg = load_config(str(folder / "config.yaml"))
        cfg.MODEL.WEIGHTS = str(folder / "model_final.pth")
        predictors.append(Predictor(cfg))
    rows = []
    for truth in load_panoptic(PanopticSplit.below(shapes, "val"), CATEGORIES)[:ROWS]:
        image = read_image(truth["file_name"], "RGB")
        ids = torch.as_tensor(read_panoptic(truth["pan_seg_file_name"]))
        cells = [draw_panoptic(image, ids, truth["segments_info"], metadata)]
        for predictor in predictors:
            _, outputs = predictor(truth["file_name"])
            cells.append(draw_panoptic(image, *outputs["panoptic_seg"], metadata))
        height, width = cells[0].shape[:2]
        plain = np.asarray(Image.fromarray(image).resize((width, height)))
        rows.append(np.concatenate([plain, *cells], axis=1))
    Image.fromarray(np.concatenate(rows)).save(output / "segmentation.png")
