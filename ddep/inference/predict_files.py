"""Predict every image of some files and folders, and write pictures and data of the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm

from ddep.errors import UserError, one_line
from ddep.files import remove_leftovers
from ddep.inference.journal import Journal, model_identity
from ddep.inference.pipeline import run_pipeline
from ddep.inference.plan import Job, plan_jobs
from ddep.inference.prediction import Prediction
from ddep.inference.predictor import Predictor
from ddep.inference.result_files import (
    CONTIGUOUS,
    IDS,
    PICTURES,
    ResultFiles,
    check_kinds,
    parse_kinds,
)
from ddep.parallel import available_cores


def predict_files(
    model: str | Path | CfgNode,
    inputs: Sequence[Path],
    output: Path,
    *,
    overrides: Sequence[str] = (),
    save: str = PICTURES,
    ids: str = CONTIGUOUS,
    annotations: Path | None = None,
    batch: int = 1,
    resume: bool = False,
) -> list[Path]:
    """Predict images and write ``output/NAME.png`` for each; folders keep their inner structure.

    Of several kinds of files, or others than pictures, each kind has a folder of its own in
    ``output``; see :class:`ddep.inference.result_files.ResultFiles`.

    Args:
        model, overrides: as for :class:`Predictor`.
        inputs: images, and folders that are searched recursively.
        output: folder for the files, made if need be.
        save: kinds of files, with commas, of ``KINDS`` in :mod:`ddep.inference.result_files`.
        ids: what pixels of semantic PNG files are: ``contiguous`` (classes from 0) or ``dataset``
            (the data set's own ids).
        annotations: see :func:`ddep.inference.plan.plan_jobs`.
        batch: images of equal size that the model takes together. Results differ from those of
            single images by rounding.
        resume: leave out images that an earlier call, which was stopped, has finished.

    Returns:
        The files of all images.

    Raises:
        UserError: nothing to predict or impossible options, before anything is written; a file that
            cannot be written, where finished ones stay; images that could not be predicted, after
            all others are done.
    """
    kinds = parse_kinds(save)
    if ids not in IDS:
        raise UserError(f"--ids is {ids!r}; expected {' or '.join(IDS)}")
    if batch < 1:
        raise UserError(f"--batch is {batch}; expected at least 1")
    jobs = plan_jobs(inputs, output, annotations)
    predictor = Predictor(model, overrides=overrides)
    if predictor.takes_videos:
        raise UserError(
            f"--input has images, but MODEL.META_ARCHITECTURE "
            f"{predictor.cfg.MODEL.META_ARCHITECTURE} takes videos; give videos, or folders of "
            "frames with --frame-rate"
        )
    check_kinds(kinds, ids, predictor)
    files = ResultFiles(output, kinds, ids, predictor.metadata)
    _check_replaces_no_image(jobs, files)
    settings = {
        **model_identity(predictor.cfg),
        "save": list(kinds),
        "ids": ids,
        "batch": batch,
    }
    journal = Journal(output, settings, resume)
    folders = {path.parent for job in jobs for path in files.paths(job).values()}
    for folder in {output, *folders}:
        if folder.is_dir():
            remove_leftovers(str(folder))  # of a run that was killed
    problems: dict[Job, UserError] = {}
    left = [job for job in jobs if not _is_done(job, journal, files)]
    is_complete = False
    readers = min(available_cores(), 8)
    done = len(jobs) - len(left)
    try:
        with tqdm(total=len(jobs), initial=done, unit="image", disable=None) as bar:

            def write(job: Job, prediction: Prediction) -> None:
                journal.add({**_identity(job), **files.write(job, prediction)})
                bar.update()

            def fail(job: Job, error: UserError) -> None:
                problems[job] = error
                bar.update()

            run_pipeline(predictor, left, write, fail, batch=batch, readers=readers)
        files.finish(journal.done[job.name] for job in jobs if job not in problems)
        is_complete = not problems
    finally:
        journal.close(remove=is_complete)
    if problems:
        lines = [one_line(problems[job]) for job in jobs if job in problems]
        raise UserError(
            f"{len(problems)} of {len(jobs)} images could not be predicted: {'; '.join(lines)}"
        )
    return [path for job in jobs for path in files.paths(job).values()]


def _check_replaces_no_image(jobs: Sequence[Job], files: ResultFiles) -> None:
    images = {job.image.resolve() for job in jobs}
    for job in jobs:
        for path in files.paths(job).values():
            if path.resolve() in images:
                raise UserError(
                    f"--output {files.output} would replace {path}; choose another folder"
                )


def _identity(job: Job) -> dict[str, object]:
    return {
        "name": job.name,
        "source": str(job.image),
        "position": job.position,
        "image_id": job.image_id,
    }


def _is_done(job: Job, journal: Journal, files: ResultFiles) -> bool:
    """Whether an earlier run has finished this very image, and its files are still there."""
    entry = journal.done.get(job.name, {})
    is_same = _identity(job).items() <= entry.items()
    return is_same and all(path.is_file() for path in files.paths(job).values())
