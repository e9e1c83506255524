"""Write an index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ddep.data.image_index import stored
from ddep.data.image_index.strings import Strings
from ddep.data.image_index.walking import Run, Unit
from ddep.files import sync


def write_index(folder: Path, root: str, parts: Iterable[Unit | Run]) -> None:
    """Write an index into ``folder``.

    Each listing is flushed before the next container is listed, so that it is not lost if the
    process is killed.

    Args:
        folder: empty, or created.
        root: the containers' paths are relative to it.
        parts: as :func:`ddep.data.image_index.walking.walk` yields them.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(exist_ok=True)
    with (
        open(folder / stored.NAMES, "wb") as names,
        open(folder / stored.NAME_STARTS, "wb") as name_starts,
        open(folder / stored.SPANS, "wb") as spans,
        open(folder / stored.CONTAINERS, "wb") as containers,
    ):
        name_starts.write(np.int64(0).tobytes())
        firsts: list[tuple[int, int]] = []
        prefixes: list[str] = []
        runs: list[tuple[int, int, int]] = []
        positions = [0]
        images = bytes_written = spans_written = 0
        for part in parts:
            if isinstance(part, Run):
                first, first_span = firsts[part.unit]
                runs.append((first + part.start, first_span + part.start, part.unit))
                positions.append(positions[-1] + part.stop - part.start)
                continue
            container, listing = part
            names.write(listing.names.block)
            name_starts.write((listing.names.starts[1:] + bytes_written).tobytes())
            spans.write(listing.spans.tobytes())
            line = stored.StoredContainer(
                container,
                listing.status,
                listing.children,
                images,
                len(listing.names),
                spans_written,
                stored.checksum(listing),
                listing.problem,
            )
            containers.write(line.to_line())
            for file in (names, name_starts, spans, containers):
                file.flush()
            firsts.append((images, spans_written))
            prefixes += [container.prefix, container.file]
            images += len(listing.names)
            bytes_written += len(listing.names.block)
            spans_written += len(listing.spans)
    packed = Strings.pack(prefixes)
    (folder / stored.PREFIXES).write_bytes(packed.block.tobytes())
    (folder / stored.PREFIX_STARTS).write_bytes(packed.starts.tobytes())
    (folder / stored.RUNS).write_bytes(np.array(runs, dtype=np.int64).tobytes())
    (folder / stored.RUN_POSITIONS).write_bytes(np.array(positions, dtype=np.int64).tobytes())
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    header = {"root": root, "images": images, "sizes": sizes}
    (folder / stored.HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")
    for name in (*sizes, stored.HEADER):
        sync(os.path.join(folder, name))
    sync(str(folder))
