"""Write Pascal Context's labels of 59 and of 60 classes."""

from __future__ import annotations

import sys

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.pascal_context import prepare_pascal_context
from ddep.data.datasets.preparation import prepare_in_place
from ddep.errors import UserError


def main() -> None:
    prepare_in_place(
        __doc__,
        dataset_root() / "VOCdevkit" / "VOC2010",
        "with JPEGImages/ and trainval/ or SegmentationClassContext/; pascal_context_{59,60}/ are "
        "written into it",
        prepare_pascal_context,
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
