"""Small videos for tests."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from ddep.data.video_capture import open_capture

# 67 visible frames of 10 a second, H.264 with B-frames and open groups of 20 frames, trimmed so
# that it begins with hidden frames:
#   ffmpeg -f lavfi -i testsrc=size=48x32:rate=10:duration=8 -c:v libx264 -preset veryslow -g 20
#       -bf 3 -x264-params open-gop=1 -crf 40 whole.mp4
#   ffmpeg -ss 1.3 -i whole.mp4 -c copy -fflags +bitexact -map_metadata -1 trimmed_h264.mp4
TRIMMED_H264 = Path(__file__).with_name("trimmed_h264.mp4")


def write_video(
    path: Path,
    frames: int = 40,
    rate: float = 10.0,
    codec: str = "mp4v",
    size: tuple[int, int] = (48, 32),
) -> Path:
    """Write a video of a disc that moves before a pattern; ``size`` is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, size)
    assert writer.isOpened()
    width, height = size
    background = np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)
    background = cv2.GaussianBlur(background, (9, 9), 0)
    for number in range(frames):
        picture = background.copy()
        cv2.circle(picture, (2 * number % width, number % height), 6, (20, 90, 250), -1)
        writer.write(picture)
    writer.release()
    return path


def read_all(path: Path) -> list[np.ndarray]:
    """All frames in their order, (H, W, 3) uint8, RGB."""
    capture = open_capture(str(path))
    frames = []
    while (found := capture.read())[0]:
        frames.append(found[1][..., ::-1])
    return frames


def turn_right(path: Path) -> None:
    """Make an MP4 file say that its frames are shown turned by 90 degrees clockwise."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def speed_up(path: Path, normal: int) -> None:
    """Make an MP4 file show the frames after the first ``normal`` a quarter as long."""
    content = bytearray(path.read_bytes())
    times = content.index(b"stts")
    entries, frames, duration = struct.unpack_from(">3i", content, times + 8)
    assert entries == 1 and content.index(b"mdat") < times
    content[times + 8 : times + 20] = struct.pack(
        ">5i", 2, normal, duration, frames - normal, duration // 4
    )
    # Those that contain it.
    for box in (b"stts", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        place = content.index(box) - 4
        struct.pack_into(">i", content, place, struct.unpack_from(">i", content, place)[0] + 8)
    path.write_bytes(content)


def overwrite(path: Path, start: float, end: float) -> None:
    """Fill a part of a file, given as shares of it, with zeros."""
    content = bytearray(path.read_bytes())
    first, last = int(start * len(content)), int(end * len(content))
    content[first:last] = bytes(last - first)
    path.write_bytes(content)


def truncate(path: Path, share: float) -> None:
    """Cut off the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
