"""Write Cityscapes' labels as detectron2 reads them: semantic, panoptic and instance labels."""

from __future__ import annotations

import sys

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.cityscapes import prepare_cityscapes
from ddep.data.datasets.preparation import prepare_in_place
from ddep.errors import UserError


def main() -> None:
    prepare_in_place(
        __doc__,
        dataset_root() / "cityscapes",
        "with gtFine/, into which the labels are written",
        prepare_cityscapes,
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
