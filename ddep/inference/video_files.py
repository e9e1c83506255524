"""Videos of a model's results on videos and folders of frames, and files of their tracks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddep.data.video_capture import is_video
from ddep.errors import UserError, one_line
from ddep.files import remove_leftovers
from ddep.inference.image_tracks import check_has_objects
from ddep.inference.journal import Journal, model_identity
from ddep.inference.predictor import Predictor
from ddep.inference.result_files import PICTURES, TRACKS, parse_kinds
from ddep.inference.track_file import new_track_file
from ddep.inference.tracking import TrackedFrame
from ddep.inference.video import FrameFolder, Frames, Video
from ddep.inference.video_writing import drawn_video, write_all

_SUFFIXES = {PICTURES: ".mp4", TRACKS: ".json"}


@dataclass(frozen=True)
class _Job:
    """A video and its files, by kind."""

    frames: Frames
    name: str
    files: dict[str, Path]

    @property
    def identity(self) -> dict[str, Any]:
        path = self.frames.path
        return {
            "name": self.name,
            "source": str(path),
            "modified": os.stat(path).st_mtime_ns,
            "rate": self.frames.rate,
        }


def predict_video_files(
    predictor: Predictor,
    inputs: Sequence[Path],
    output: Path,
    rate: float | None = None,
    *,
    save: str = PICTURES,
    track: bool = False,
    resume: bool = False,
) -> list[Path]:
    """Write ``output/NAME.mp4`` for each video and folder of frames: the results over each frame.

    Tracks, by themselves or with videos, have folders of their own: ``output/tracks/NAME.json``,
    see :func:`ddep.inference.track_file.new_track_file`, and ``output/pictures/NAME.mp4``.

    Args:
        predictor: the model. One of videos draws each object in one colour all the way.
        inputs: videos and, with a ``rate``, folders of frames.
        output: folder for the files, made if need be.
        rate: frames a second of the folders; videos have their own.
        save: ``pictures``, ``tracks`` or both, with a comma.
        track: follow objects with a model of images as well.
        resume: leave out videos that an earlier call, which was stopped, has finished.

    Returns:
        The files of all videos.

    Raises:
        UserError: before anything is written, that an input cannot be read or would be replaced, or
            that the model cannot do it; after all others are done, the inputs that were damaged.
    """
    kinds = parse_kinds(save)
    _check_kinds(kinds, predictor, track)
    jobs = _plan(inputs, output, rate, kinds)
    settings = {**model_identity(predictor.cfg), "save": list(kinds), "track": track}
    journal = Journal(output, settings, resume)
    for folder in {output, *(path.parent for job in jobs for path in job.files.values())}:
        if folder.is_dir():
            remove_leftovers(str(folder))  # of a run that was killed
    problems: list[UserError] = []
    try:
        for job in jobs:
            is_done = journal.done.get(job.name) == job.identity
            if is_done and all(path.is_file() for path in job.files.values()):
                continue
            try:
                _predict(predictor, job, track)
            except UserError as error:
                problems.append(error)
            else:
                journal.add(job.identity)
    finally:
        is_complete = not problems and all(job.name in journal.done for job in jobs)
        journal.close(remove=is_complete)
    if problems:
        raise UserError("; ".join(map(one_line, problems)))
    return [path for job in jobs for path in job.files.values()]


def _check_kinds(kinds: Sequence[str], predictor: Predictor, track: bool) -> None:
    others = [kind for kind in kinds if kind not in _SUFFIXES]
    if others:
        raise UserError(
            f"--save {others[0]} is for images; of videos, {' and '.join(_SUFFIXES)} can be saved"
        )
    if TRACKS in kinds and not (track or predictor.takes_videos):
        raise UserError(
            f"--save {TRACKS}: the model does not predict tracks; add --track to link the objects "
            "that it finds in single frames"
        )
    if track and not predictor.takes_videos:
        check_has_objects(predictor)


def _plan(
    inputs: Sequence[Path], output: Path, rate: float | None, kinds: Sequence[str]
) -> list[_Job]:
    jobs: dict[str, _Job] = {}
    for path in inputs:
        name = path.stem if is_video(path) else path.resolve().name
        files = {
            kind: (output if kinds == (PICTURES,) else output / kind) / f"{name}{_SUFFIXES[kind]}"
            for kind in kinds
        }
        for target in files.values():
            if name in jobs:
                raise UserError(
                    f"--input has {jobs[name].frames.path} and {path}, which would both become "
                    f"{target}; write them into different folders"
                )
            if target.resolve() == path.resolve():
                raise UserError(f"--output {output} would replace {path}; choose another folder")
        jobs[name] = _Job(Video(path) if is_video(path) else FrameFolder(path, rate), name, files)
    return list(jobs.values())


def _predict(predictor: Predictor, job: _Job, track: bool) -> None:
    frames = job.frames
    progress = partial(tqdm, total=len(frames), unit="frame", desc=job.name, disable=None)
    if track or predictor.takes_videos:
        results: Iterable[Any] = progress(predictor.track(frames))
        draw = TrackedFrame.draw
    else:
        results, draw = progress(frames), partial(_draw, predictor)
    files: dict[Path, AbstractContextManager[Any]] = {}
    for kind, path in job.files.items():
        if kind == PICTURES:
            files[path] = drawn_video(path, frames.rate, draw)
        else:
            files[path] = new_track_file(path, predictor.metadata, frames.describe)
    write_all(results, files)


def _draw(predictor: Predictor, frame: np.ndarray) -> np.ndarray:
    return predictor(frame).draw()
