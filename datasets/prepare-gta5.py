"""Write GTA5's labels as Cityscapes' 19 classes."""

from __future__ import annotations

import sys

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.gta5 import prepare_gta5
from ddep.data.datasets.preparation import prepare_in_place
from ddep.errors import UserError


def main() -> None:
    folder = prepare_in_place(
        __doc__,
        dataset_root() / "gta5",
        "with images/ and labels/; labels_19/ is written into it",
        prepare_gta5,
    )
    left_out = (folder / "left_out.txt").read_text("utf-8").split()
    if left_out:
        print(f"left out, their labels have other sizes: {', '.join(left_out)}")
    if not (folder / "split.mat").exists():
        print("no splits but all, because there is no split.mat")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
