"""Write Mapillary Vistas' labels as Cityscapes' 19 classes."""

from __future__ import annotations

import sys

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.mapillary_vistas import prepare_mapillary_vistas
from ddep.data.datasets.preparation import prepare_in_place
from ddep.errors import UserError


def main() -> None:
    prepare_in_place(
        __doc__,
        dataset_root() / "mapillary_vistas",
        "with training/ and validation/; labels_19/ is written into both",
        prepare_mapillary_vistas,
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
