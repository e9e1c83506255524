"""The type of a data set's records, each of which describes one image."""

from __future__ import annotations

from typing import Any

# detectron2's standard dict: ``file_name`` and, where known, ``image_id``, ``height``, ``width``
# and labels (``sem_seg_file_name``; ``pan_seg_file_name`` with ``segments_info``; ``annotations``;
# ``classes``, the indices of the whole image's classes).
Record = dict[str, Any]
