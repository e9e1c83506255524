"""Write SYNTHIA's labels as Cityscapes' 19 classes."""

from __future__ import annotations

import sys

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.preparation import prepare_in_place
from ddep.data.datasets.synthia import prepare_synthia
from ddep.errors import UserError


def main() -> None:
    prepare_in_place(
        __doc__,
        dataset_root() / "RAND_CITYSCAPES",
        "with RGB/ and GT/LABELS/; labels_19/ is written into it",
        prepare_synthia,
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
