"""Go through all containers below a root, so that their images come in the order of their names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ddep.data.image_index.containers import Container, Listing


class Unit(NamedTuple):
    """A container that the walk came to; units count from 0, in the order in which they come."""

    container: Container
    listing: Listing


class Run(NamedTuple):
    """The next images in the order: those from ``start`` to before ``stop`` of a unit's own."""

    unit: int
    start: int
    stop: int


def walk(top: Container, find: Callable[[Container], Listing | None]) -> Iterator[Unit | Run]:
    """Yield every container, and then the runs of its images between those that it holds.

    Images come sorted by their names, that is by prefix and name as one string: containers' names
    end with ``/``, so that they sort among the images of the container that holds them.

    Args:
        top: where to start.
        find: gives the listing of a container, or None to pass it by.
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
