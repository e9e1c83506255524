"""Videos of a model's results on videos and folders of frames."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddep.data.video_capture import is_video
from ddep.errors import UserError
from ddep.inference.predictor import Predictor
from ddep.inference.video import FrameFolder, Frames, Video, draw_video


def draw_video_files(
    predictor: Predictor, inputs: Sequence[Path], output: Path, rate: float | None = None
) -> list[Path]:
    """Write ``output/NAME.mp4`` for each video and folder of frames: the results over each frame.

    Args:
        predictor: the model.
        inputs: videos and, with a ``rate``, folders of frames.
        output: folder for the videos, made if need be.
        rate: frames a second of the folders; videos have their own.

    Returns:
        The videos written.

    Raises:
        UserError: before anything is written, that an input cannot be read or would be replaced;
            after all others are done, the inputs that were damaged.
    """
    sources: dict[Path, Frames] = {}
    for path in inputs:
        target = output / f"{path.stem if is_video(path) else path.resolve().name}.mp4"
        if target in sources:
            raise UserError(
                f"--input has {sources[target].path} and {path}, which would both become {target}; "
                "write them into different folders"
            )
        if target.resolve() == path.resolve():
            raise UserError(f"--output {output} would replace {path}; choose another folder")
        sources[target] = Video(path) if is_video(path) else FrameFolder(path, rate)
    problems = []
    for target, frames in sources.items():
        progress = partial(tqdm, total=len(frames), unit="frame", desc=target.name, disable=None)
        try:
            draw_video(frames, partial(_draw, predictor), target, progress)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    return list(sources)


def _draw(predictor: Predictor, frame: np.ndarray) -> np.ndarray:
    return predictor(frame).draw()
