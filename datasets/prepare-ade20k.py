"""Write ADE20K's labels as detectron2 reads them: semantic, and panoptic and instance labels."""

from __future__ import annotations

import sys

from ddep.data.datasets.ade20k_preparation import prepare_ade20k
from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.preparation import prepare_in_place
from ddep.errors import UserError


def main() -> None:
    folder = prepare_in_place(
        __doc__,
        dataset_root() / "ADEChallengeData2016",
        "with images/, annotations/ and, for panoptic and instance labels, "
        "annotations_instance/; all labels are written into it",
        prepare_ade20k,
    )
    if not (folder / "annotations_instance").exists():
        print("no panoptic and instance labels, because there is no annotations_instance/")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
