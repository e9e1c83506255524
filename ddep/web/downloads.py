"""Results as files to download."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import Metadata
from PIL import Image

from ddep.data.datasets.panoptic import encode_panoptic
from ddep.data.datasets.preparation import label_pixels, new_file, write_json, write_png
from ddep.evaluation.coco_format import instance_predictions, panoptic_prediction
from ddep.web.analysis import Analysis, full_outputs, triptych


def write_results(analysis: Analysis, picture: np.ndarray | None) -> list[str]:
    """Write what a model found in an image, at the size of the image, into a new folder.

    ``NAME.png`` is the picture; ``NAME_semantic.png`` has classes as the model numbers them;
    ``NAME_panoptic.zip`` has COCO's PNG and JSON, and ``NAME_instances.json`` COCO's results, both
    with the category ids of the data set; ``NAME_classes.json`` has an image's classes.

    Args:
        analysis: of the image.
        picture: (H, W, 3) uint8, RGB, of the segments as they are shown; None if there are none.

    Returns:
        The paths of the files. The folder is in Gradio's, with a name that cannot be guessed.

    Raises:
        UserError: the disk is full, or the model predicts a class that its data set does not have.
    """
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    stem = Path(analysis.name).stem
    outputs = full_outputs(analysis) if analysis.views else analysis.outputs
    metadata = analysis.model.metadata
    if "denoised" in outputs:
        picture = np.concatenate(triptych(analysis)[0], axis=1)
    if picture is not None:
        write_png(folder / f"{stem}.png", picture)
    if "classes" in outputs:
        write_json(folder / f"{stem}_classes.json", _classes(outputs["classes"].tolist(), metadata))
    if "sem_seg" in outputs:
        classes = outputs["sem_seg"].argmax(0).cpu().numpy()
        pixels = label_pixels(classes, len(outputs["sem_seg"]))
        write_png(folder / f"{stem}_semantic.png", pixels)
    if "panoptic_seg" in outputs:
        _write_panoptic(folder / f"{stem}_panoptic.zip", stem, outputs["panoptic_seg"], metadata)
    if "instances" in outputs:
        instances = outputs["instances"].to("cpu")
        found = instance_predictions(instances, analysis.name, metadata)
        write_json(folder / f"{stem}_instances.json", found)
    return [str(path) for path in sorted(folder.iterdir())]


def _write_panoptic(
    path: Path, stem: str, panoptic_seg: tuple[Any, list[dict]], metadata: Metadata
) -> None:
    """Write a zip file of COCO's panoptic PNG and its JSON."""
    ids, segments = panoptic_prediction(*panoptic_seg, metadata)
    annotation = {"file_name": f"{stem}.png", "segments_info": segments}
    png = BytesIO()
    Image.fromarray(encode_panoptic(ids)).save(png, format="PNG")
    with new_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{stem}.png", png.getvalue())
        archive.writestr(f"{stem}.json", json.dumps({"annotations": [annotation]}))


def _classes(scores: list[float], metadata: Metadata | None) -> list[dict[str, Any]]:
    names = (metadata.get("classes") if metadata else None) or ()
    return [
        {"class": i, "name": names[i] if i < len(names) else str(i), "score": score}
        for i, score in enumerate(scores)
    ]
