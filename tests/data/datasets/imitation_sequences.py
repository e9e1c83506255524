"""Sequences of MOTChallenge, with blank frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 30, 40


def write_sequence(folder: Path, length: int, lines: Sequence[str] | None) -> None:
    """Write a sequence's frames, seqinfo.ini and, unless ``lines`` is None, gt/gt.txt."""
    (folder / "img1").mkdir(parents=True)
    for frame in range(1, length + 1):
        blank = Image.fromarray(np.full((HEIGHT, WIDTH, 3), frame, dtype=np.uint8))
        blank.save(folder / "img1" / f"{frame:06d}.jpg")
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate=30\nseqLength={length}\n"
        f"imWidth={WIDTH}\nimHeight={HEIGHT}\nimExt=.jpg\n"
    )
    if lines is not None:
        (folder / "gt").mkdir()
        (folder / "gt" / "gt.txt").write_text("".join(f"{line}\n" for line in lines))
