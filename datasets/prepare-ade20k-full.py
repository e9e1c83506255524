"""Write the full ADE20K of 2021 as MaskFormer reads it: 847 classes, shorter side 512 at most."""

from __future__ import annotations

import sys

from ddep.data.datasets.ade20k_full import prepare_ade20k_full
from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.preparation import prepare_in_place
from ddep.errors import UserError


def main() -> None:
    prepare_in_place(
        __doc__,
        dataset_root() / "ADE20K_2021_17_01",
        "with images/; images_detectron2/ and annotations_detectron2/ are written into it",
        prepare_ade20k_full,
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
