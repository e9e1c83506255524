"""Where numbers and pictures of a running training go."""

from __future__ import annotations

from detectron2.utils.events import EventStorage, get_event_storage


def current_event_storage() -> EventStorage | None:
    """detectron2's storage of the running training; None outside training."""
    try:
        return get_event_storage()
    except AssertionError:  # detectron2's way to say that there is none
        return None
