"""What users call an image that ``file_name`` of a record names."""

from __future__ import annotations

from ddep.data.tar_members import member_path
from ddep.data.video_frames import frame_path


def path_of(file_name: str) -> str:
    """``x.tar/member`` for a file in a tar file, ``x.mp4#000025`` for a frame, or the path."""
    return frame_path(member_path(file_name))
