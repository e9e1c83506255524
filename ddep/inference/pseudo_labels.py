"""Write the soft pseudo-labels of data sets, and the prototypes of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from ddep.data import register_from_config
from ddep.data.datasets.preparation import new_file
from ddep.data.image_reader import UnreadableImageError
from ddep.data.pseudo_labels import (
    INDEX,
    PROTOTYPES,
    PseudoLabels,
    common_root,
    label_path,
    read_arrays,
    write_label,
)
from ddep.data.record import Record
from ddep.data.records import load_records
from ddep.errors import UserError, one_line
from ddep.files import remove_leftovers
from ddep.inference.inference_model import NO_AVERAGING
from ddep.inference.journal import Journal, model_identity
from ddep.inference.pipeline import run_pipeline
from ddep.inference.predictor import Predictor
from ddep.inference.soft_predictor import SoftPrediction, SoftPredictor
from ddep.parallel import available_cores
from ddep.tasks.class_names import class_names

# An image counts for the prototype of a class that at least so many pixels of its map are of
# (ProDA, its authors' code).
_FEWEST_PIXELS = 10


@dataclass(frozen=True)
class _Job:
    """An image, by the ``file_name`` of its record, and its position in the order of all."""

    image: str
    position: int

    @property
    def record(self) -> Record:
        return {"file_name": self.image}


def write_pseudo_labels(
    model: str | Path | CfgNode,
    datasets: Sequence[str],
    output: Path,
    *,
    overrides: Sequence[str] = (),
    flip: bool = False,
    batch: int = 1,
    resume: bool = False,
) -> PseudoLabels:
    """Write what :mod:`ddep.data.pseudo_labels` describes: a file for each image.

    The model sees whole images of the size that evaluation gives them, without windows or
    averaging over scales. A prototype is the mean over images of the mean feature of the pixels
    that the model gives to the class (ProDA, arXiv 2101.10979, section 3.2).

    Args:
        model, overrides: as for :class:`Predictor`.
        datasets: registered data sets or ``images:<folder>``; labels are not read.
        output: the folder, made if need be.
        flip: average the probabilities of an image and its mirror image.
        batch: images of equal size that the model takes together.
        resume: leave out images that an earlier call, which was stopped, has finished.

    Returns:
        What the index says. Images that cannot be read are listed in it.

    Raises:
        UserError: no such data set, or a model that does not classify pixels, before anything is
            written; images too large for the memory, or none that can be read, at the end.
    """
    if batch < 1:
        raise UserError(f"--batch is {batch}; expected at least 1")
    predictor = Predictor(model, overrides=[*overrides, *NO_AVERAGING])
    _check_model(predictor)
    soft = SoftPredictor(predictor, flip=flip)
    names = _file_names(predictor.cfg, datasets)
    root = common_root(names)
    jobs = [_Job(name, position) for position, name in enumerate(names)]
    paths = {job: label_path(output, root, job.image) for job in jobs}
    settings = {
        **model_identity(predictor.cfg),
        "datasets": list(datasets),
        "flip": flip,
        "batch": batch,
    }
    journal = Journal(output, settings, resume)
    (output / INDEX).unlink(missing_ok=True)
    for folder in {output, *(path.parent for path in paths.values())}:
        if folder.is_dir():
            remove_leftovers(str(folder))  # of a run that was killed
    left = [job for job in jobs if job.image not in journal.done or not paths[job].is_file()]
    problems: dict[str, UserError] = {}
    is_complete = False
    try:
        with tqdm(
            total=len(jobs), initial=len(jobs) - len(left), unit="image", disable=None
        ) as bar:

            def write(job: _Job, prediction: SoftPrediction) -> None:
                write_label(
                    paths[job],
                    prediction.label,
                    class_means=prediction.class_means.numpy(),
                    class_pixels=prediction.class_pixels.numpy(),
                )
                journal.add({"name": job.image})
                bar.update()

            def fail(job: _Job, error: UserError) -> None:
                problems[job.image] = error
                bar.update()

            readers = min(available_cores(), 8)
            run_pipeline(soft, left, write, fail, batch=batch, readers=readers)
        _check_problems(problems, len(jobs))
        done = [paths[job] for job in jobs if job.image not in problems]
        _write_prototypes(output / PROTOTYPES, done)
        index = PseudoLabels(
            root=root,
            datasets=list(datasets),
            num_classes=soft.classifier.num_classes,
            classes=class_names(predictor.cfg),
            model={"model": str(model), "weights": predictor.cfg.MODEL.WEIGHTS, "flip": flip},
            unreadable=sorted(problems),
        )
        index.write(output)
        is_complete = True
    finally:
        journal.close(remove=is_complete)
    return index


def _check_model(predictor: Predictor) -> None:
    measured, meta = predictor.task.measurable(predictor.cfg), predictor.cfg.MODEL.META_ARCHITECTURE
    if "sem_seg" not in measured:
        raise UserError(
            f"MODEL.META_ARCHITECTURE {meta} gives pixels no classes; expected the model of a "
            "semantic segmentation, MaskFormer or SemanticSegmentor"
        )


def _file_names(cfg: CfgNode, datasets: Sequence[str]) -> list[str]:
    """The images of data sets, which are registered if need be."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), tuple(datasets)
    try:
        register_from_config(cfg, keys=("TEST",))
    except UserError as error:
        raise UserError(str(error).replace("DATASETS.TEST", "--dataset", 1)) from error
    sets = load_records("--dataset", datasets, filter_empty=False)
    return list(dict.fromkeys(record["file_name"] for records in sets for record in records))


def _check_problems(problems: dict[str, UserError], total: int) -> None:
    """Raise :class:`UserError` unless all problems are files that training cannot read either."""
    grave = [e for e in problems.values() if not isinstance(e, UnreadableImageError)]
    if grave:
        lines = "; ".join(one_line(error) for error in grave)
        raise UserError(
            f"{len(grave)} of {total} images have no pseudo-label: {lines}; continue with --resume"
        )
    if len(problems) == total:
        [first, *_] = problems.values()
        raise UserError(f"none of the {total} images can be read; the first: {one_line(first)}")


def _write_prototypes(path: Path, labels: Sequence[Path]) -> None:
    """``means`` (K, C) float32 and ``images`` (K,), the number of images that each is of."""
    total, images = 0.0, 0
    for label in labels:
        means, pixels = read_arrays(label, "class_means", "class_pixels")
        counts = pixels >= _FEWEST_PIXELS
        total = total + np.where(counts[:, None], means.astype(np.float64), 0)
        images = images + counts.astype(np.int64)
    means = total / np.maximum(images, 1)[:, None]
    with new_file(path) as file:
        np.savez(file, means=means.astype(np.float32), images=images)
