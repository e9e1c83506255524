"""Check the video files whose frames are a data set's images."""

from __future__ import annotations

from collections.abc import Sequence

from ddep.data.checks.problems import Problem
from ddep.data.datasets.class_folders import ClassFolders
from ddep.data.image_index import ImageIndex
from ddep.data.record import Record


def check_video_files(records: Sequence[Record]) -> list[Problem]:
    """Name the videos that are damaged; some of their frames may be among ``records``."""
    index = records.images if isinstance(records, ClassFolders) else records
    if not isinstance(index, ImageIndex):
        return []
    found = index.damaged_videos()
    return [Problem("unreadable", path, message) for path, message in found.items()]
