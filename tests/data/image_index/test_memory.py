"""The memory of a process does not grow with the number of images."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from ddep.data.image_index import ImageIndex
from ddep.data.image_index.containers import Container
from ddep.data.image_index.walking import walk
from ddep.data.image_index.write_index import write_index
from index_measurement import GeneratedImages

IMAGES, PER_FOLDER = 200_000, 1_000


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(IMAGES // PER_FOLDER):
        (root / f"n{number:08d}").mkdir(parents=True)
    tracemalloc.start()
    images = GeneratedImages(root, IMAGES, PER_FOLDER)
    write_index(tmp_path / "index", str(root), walk(Container(""), images))
    building = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    index = ImageIndex(tmp_path / "index")
    for position in range(0, IMAGES, 97):
        index[position]
    reading = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert len(index) == IMAGES
    assert index[-1]["image_id"] == "n00000199/n00000199_999.JPEG"
    # A list of dicts takes some 500 bytes per image.
    assert building / IMAGES < 5
    assert reading / IMAGES < 1
    on_disk = sum(path.stat().st_size for path in index.folder.iterdir())
    assert on_disk / IMAGES < len("n00000199_999.JPEG") + 8 + 1
