"""The files that a prediction becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import Metadata

from ddep.data.datasets.cityscapes_classes import CATEGORIES, CLASSES
from ddep.data.datasets.panoptic import encode_panoptic
from ddep.data.datasets.preparation import label_pixels, new_file, write_json, write_png
from ddep.errors import UserError
from ddep.evaluation.coco_format import instance_predictions, panoptic_prediction
from ddep.inference.plan import Job
from ddep.inference.prediction import Prediction
from ddep.inference.predictor import Predictor

PICTURES, TRACKS = "pictures", "tracks"
# What can be saved, and what a model must predict for it (any of these; nothing: any model).
KINDS: dict[str, tuple[str, ...]] = {
    PICTURES: (),
    "semantic": ("sem_seg",),
    "panoptic": ("panoptic_seg",),
    "instances": ("segm", "bbox"),
    "logits": ("sem_seg", "classification"),
    "denoised": ("denoising",),
    TRACKS: ("video_segm",),
}
CONTIGUOUS, DATASET = "contiguous", "dataset"
IDS = (CONTIGUOUS, DATASET)


def check_kinds(kinds: Sequence[str], ids: str, predictor: Predictor) -> None:
    """Raise :class:`UserError` unless the model predicts what is to be saved."""
    predicted = predictor.task.measured(predictor.cfg)
    for kind in kinds:
        if KINDS[kind] and not set(KINDS[kind]) & predicted.keys():
            possible = [name for name, needed in KINDS.items() if set(needed) & predicted.keys()]
            switches = predictor.task.measurable(predictor.cfg)
            off = [switches[name] for name in KINDS[kind] if name in switches]
            hint = f", or set {off[0]} True" if off else ""
            raise UserError(
                f"--save {kind}: the model does not predict that; choose from "
                f"{', '.join([PICTURES, *possible])}{hint}"
            )
    if "semantic" in kinds and ids == DATASET:
        semantic_ids(predictor.metadata)


def parse_kinds(text: str) -> tuple[str, ...]:
    """The kinds in a list with commas, each once, in the order of ``KINDS``.

    Raises:
        UserError: an unknown kind, or none.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in KINDS:
            raise UserError(f"--save has {word!r}; expected some of {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in words)


def semantic_ids(metadata: Metadata) -> np.ndarray:
    """The data set's own id of each class, (K,) integers.

    They are those in the metadata's ``{stuff,thing}_dataset_id_to_contiguous_id``; of Cityscapes'
    19 classes, the ids of its label images (7 for road, ...), which its server expects.

    Raises:
        UserError: the data set has no ids of its own for all classes.
    """
    classes = metadata.get("stuff_classes") or metadata.get("thing_classes")
    by_class: dict[int, int] = {}
    for kind in ("stuff", "thing"):
        dataset_ids = metadata.get(f"{kind}_dataset_id_to_contiguous_id", {})
        for dataset_id, contiguous in dataset_ids.items():
            by_class.setdefault(contiguous, dataset_id)
    if list(classes) == CLASSES:
        by_class = {index: category["id"] for index, category in enumerate(CATEGORIES)}
    if any(index not in by_class for index in range(len(classes))):
        raise UserError(
            f"--ids {DATASET}: data set {metadata.name} has no ids of its own for its classes; "
            f"use --ids {CONTIGUOUS}, which counts them from 0"
        )
    return np.array([by_class[index] for index in range(len(classes))])


class ResultFiles:
    """Writes the results of images, each kind into a folder of its own.

    Pictures alone go straight to the output folder.
    """

    def __init__(
        self, output: Path, kinds: Sequence[str], ids: str, metadata: Metadata | None
    ) -> None:
        """
        Args:
            output: the folder.
            kinds: of ``KINDS``.
            ids: what pixels of semantic PNG files are, of ``IDS``.
            metadata: of the model's classes.
        """
        self.output = output
        self.kinds = kinds
        self._metadata = metadata
        self._ids = None
        if "semantic" in kinds and ids == DATASET:
            self._ids = semantic_ids(metadata)

    def paths(self, job: Job) -> dict[str, Path]:
        """Where the files of an image go, by kind; its instances have none of their own."""
        suffixes = {"logits": ".npz"}
        return {
            kind: self._folder(kind) / f"{job.name}{suffixes.get(kind, '.png')}"
            for kind in self.kinds
            if kind != "instances"
        }

    def _folder(self, kind: str) -> Path:
        return self.output if self.kinds == (PICTURES,) else self.output / kind

    def write(self, job: Job, prediction: Prediction) -> dict[str, Any]:
        """Write the files of an image, each whole or not at all.

        Returns:
            What the JSON files will say about the image.

        Raises:
            UserError: a file cannot be written, or the model predicts a class that its data set
                does not have.
        """
        inputs = prediction.inputs
        entry: dict[str, Any] = {
            "image": {
                "id": job.image_id,
                "file_name": str(job.image),
                "height": inputs["height"],
                "width": inputs["width"],
            }
        }
        for kind, path in self.paths(job).items():
            if kind == "panoptic":
                entry[kind] = self._write_panoptic(job, path, prediction)
            else:
                getattr(self, f"_write_{kind}")(path, prediction)
        if "instances" in self.kinds:
            objects = prediction.outputs["instances"].to("cpu")
            entry["instances"] = instance_predictions(objects, job.image_id, self._metadata)
        return entry

    def finish(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write panoptic.json and instances.json in COCO's formats, and images.json with the ids.

        Args:
            entries: what :meth:`write` returned for each image, in the order of the images.

        Raises:
            UserError: a file cannot be written.
        """
        entries = list(entries)
        contents: dict[str, Any] = {}
        if "panoptic" in self.kinds:
            contents["panoptic"] = {"annotations": [entry["panoptic"] for entry in entries]}
        if "instances" in self.kinds:
            contents["instances"] = [found for entry in entries for found in entry["instances"]]
        if contents:
            contents["images"] = {"images": [entry["image"] for entry in entries]}
        for name, content in contents.items():
            write_json(self.output / f"{name}.json", content)

    def _write_pictures(self, path: Path, prediction: Prediction) -> None:
        prediction.save(path)

    def _write_semantic(self, path: Path, prediction: Prediction) -> None:
        classes = prediction.semantic
        if self._ids is None:
            pixels = label_pixels(classes, len(prediction.outputs["sem_seg"]))
        else:
            pixels = label_pixels(self._ids[classes], self._ids.max() + 1)
        write_png(path, pixels)

    def _write_panoptic(self, job: Job, path: Path, prediction: Prediction) -> dict[str, Any]:
        ids, segments = panoptic_prediction(*prediction.outputs["panoptic_seg"], self._metadata)
        write_png(path, encode_panoptic(ids))
        file_name = path.relative_to(self._folder("panoptic")).as_posix()
        return {"image_id": job.image_id, "file_name": file_name, "segments_info": segments}

    def _write_logits(self, path: Path, prediction: Prediction) -> None:
        """Scores of classes, of each pixel (K, H, W) float16 or of the image (K,) float32."""
        if prediction.classes is not None:
            arrays = {"classes": prediction.classes}
        else:
            arrays = {"sem_seg": prediction.outputs["sem_seg"].half().cpu().numpy()}
        with new_file(path) as file:
            np.savez(file, **arrays)

    def _write_denoised(self, path: Path, prediction: Prediction) -> None:
        write_png(path, prediction.denoised)
