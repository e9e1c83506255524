"""Generated images and videos have numbers as names: 00000.png, or folders 00000."""

from __future__ import annotations

import shutil
from pathlib import Path


def numbered(index: int) -> str:
    """The name of a generated image (without its ending) or of a video's folder."""
    return f"{index:05d}"


def remove_surplus(folder: Path, number: int) -> None:
    """Remove the generated files and folders in ``folder`` from index ``number`` on."""
    for path in folder.glob("[0-9][0-9][0-9][0-9][0-9]*"):
        if path.name[5:] in ("", ".png") and int(path.stem) >= number:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
