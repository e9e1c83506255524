"""Write semantic labels of COCO's 133 panoptic classes, to measure mIoU beside panoptic quality."""

from __future__ import annotations

import sys

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.coco import prepare_coco
from ddep.data.datasets.preparation import prepare_in_place
from ddep.errors import UserError


def main() -> None:
    prepare_in_place(
        __doc__,
        dataset_root() / "coco",
        "with annotations/ and panoptic_{train,val}2017/; panoptic_semseg_{train,val}2017/ "
        "are written into it",
        prepare_coco,
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
