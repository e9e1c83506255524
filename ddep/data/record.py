"""One image of a data set."""

from __future__ import annotations

from typing import Any

# detectron2's standard dict: ``file_name``, and where they are known ``image_id``, ``height``,
# ``width`` and labels (``sem_seg_file_name``; ``pan_seg_file_name`` with ``segments_info``;
# ``annotations``; ``classes``, the numbers of those that the whole image has).
Record = dict[str, Any]
