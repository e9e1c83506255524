"""What can be wrong with a data set."""

from __future__ import annotations

from typing import NamedTuple

# Kinds of problems, and what they are.
KINDS = {
    "annotations": "annotations that are malformed or cannot be used",
    "unpaired": "images without annotation and labels without image, which are not used",
    "missing": "files that do not exist",
    "unreadable": "files that are damaged or of the wrong kind",
    "crash": "images or labels that end the process that reads them",
    "size": "image, label and annotation are not of one size",
    "class": "classes out of range",
    "duplicate": "what must be there once is there twice",
    "unlisted_segment": "segments of a panoptic PNG file that the JSON file does not list",
    "absent_segment": "segments of the JSON file that the panoptic PNG file does not have",
    "area": "areas in the JSON file that are not those in the panoptic PNG file",
    "empty_mask": "masks without a pixel",
    "box": "boxes without area or outside the image",
}


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: a key of ``KINDS``.
        file: the file that it is in.
        message: what was found and, where it does not go without saying, what was expected.
    """

    kind: str
    file: str
    message: str
