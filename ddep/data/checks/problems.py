"""The kinds of problems that a data set can have."""

from __future__ import annotations

from typing import NamedTuple

# Kinds of problems, with descriptions.
KINDS = {
    "annotations": "annotations that are malformed or cannot be used",
    "unpaired": "images without annotation and labels without image, which are not used",
    "missing": "files that do not exist",
    "unreadable": "files that are damaged or of the wrong kind",
    "crash": "images or labels that crash the process that reads them",
    "size": "image, label and annotation differ in size",
    "class": "classes out of range",
    "duplicate": "entries that must be unique but occur twice",
    "unlisted_segment": "segments of a panoptic PNG file that the JSON file does not list",
    "absent_segment": "segments of the JSON file that the panoptic PNG file does not have",
    "area": "areas in the JSON file that differ from those in the panoptic PNG file",
    "empty_mask": "masks without a pixel",
    "box": "boxes without area or outside the image",
}


class Problem(NamedTuple):
    """One problem.

    Attributes:
        kind: a key of ``KINDS``.
        file: the file that has it.
        message: what was found and, if it is not obvious, what was expected.
    """

    kind: str
    file: str
    message: str
