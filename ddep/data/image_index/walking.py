"""Walk through all containers below a root, with their images in the order of their names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ddep.data.image_index.containers import Container, Listing


class Unit(NamedTuple):
    """A container that the walk reached; units are numbered from 0 in their order."""

    container: Container
    listing: Listing


class Run(NamedTuple):
    """The next images in the order: ``names[start:stop]`` of a unit's listing."""

    unit: int
    start: int
    stop: int


def walk(top: Container, find: Callable[[Container], Listing | None]) -> Iterator[Unit | Run]:
    """Yield every container, then the runs of its images, with its child containers in between.

    Images are sorted by prefix and name as one string. Names of containers end with ``/``, so that
    they sort among the images of their parent.

    Args:
        top: where to start.
        find: returns the listing of a container, or None to skip it.
    """
    units = 0
    stack: list[Iterator[Run | Container]] = [iter((top,))]
    while stack:
        part = next(stack[-1], None)
        if part is None:
            stack.pop()
        elif isinstance(part, Run):
            yield part
        else:
            listing = find(part)
            if listing is not None:
                yield Unit(part, listing)
                stack.append(_parts(units, len(part.prefix), listing))
                units += 1


def _parts(unit: int, prefix_length: int, listing: Listing) -> Iterator[Run | Container]:
    start = 0
    for child in listing.children:
        stop = bisect_left(listing.names, child.prefix[prefix_length:], lo=start)
        if start < stop:
            yield Run(unit, start, stop)
        yield child
        start = stop
    if start < len(listing.names):
        yield Run(unit, start, len(listing.names))
