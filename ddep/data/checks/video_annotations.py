"""Check a JSON file in YouTube-VIS's format without opening a frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from ddep.data.checks.json_entries import Found, check_category, key_of, lacking
from ddep.data.datasets.video_json import PER_FRAME, TRACK_KEYS, VIDEO_KEYS


def check_videos(content: dict[str, Any], known: Collection[int | str]) -> Iterator[Found]:
    """Find what is wrong with the videos and their tracks.

    Args:
        content: of the file, with the lists ``videos`` and ``annotations``.
        known: the ids of the data set's categories.
    """
    lengths: dict[int | str | None, int | None] = {}
    for video in content["videos"]:
        number = key_of(video, "id")
        absent = lacking(video, VIDEO_KEYS)
        if absent:
            yield "annotations", f"video {str(video)[:60]} lacks {', '.join(absent)}"
        if number in lengths:
            yield "duplicate", f"two videos have the id {number!r}"
        lengths[number] = _length(video)
        if lengths[number] == 0:
            yield "annotations", f"video {number!r} has no frames"
        elif lengths[number] != video.get("length", lengths[number]):
            yield (
                "annotations",
                f"video {number!r} has length {video['length']!r}, but {lengths[number]} frames",
            )
    frames = Counter(name for video in content["videos"] for name in _frames(video))
    for name, times in frames.items():
        if times > 1:
            yield "duplicate", f"frame {name!r} is listed {times} times"
    yield from _check_tracks(content["annotations"], lengths, known)


def _check_tracks(
    tracks: list[Any], lengths: dict[int | str | None, int | None], known: Collection[int | str]
) -> Iterator[Found]:
    ids = Counter((key_of(track, "video_id"), key_of(track, "id")) for track in tracks)
    for (video, number), times in ids.items():
        if times > 1:
            yield "duplicate", f"video {video!r} has {times} annotations of id {number!r}"
    for track in tracks:
        what = f"annotation {key_of(track, 'id')}"
        absent = lacking(track, TRACK_KEYS)
        if absent:
            yield "annotations", f"{what} lacks {', '.join(absent)}"
            continue
        video = key_of(track, "video_id")
        if video not in lengths:
            yield "annotations", f"{what} is of video {video!r}, which is not listed"
        yield from check_category(what, track, known)
        length = lengths.get(video)
        for key in PER_FRAME:
            values = track.get(key)
            if isinstance(values, list) and length is not None and len(values) != length:
                yield (
                    "annotations",
                    f"{what} has {len(values)} {key}, but video {video!r} has {length} frames",
                )
        masks = track["segmentations"]
        if not isinstance(masks, list) or not any(masks):
            yield "empty_mask", f"{what} of video {video!r} has no mask in any frame"


def _length(video: Any) -> int | None:
    names = video.get("file_names") if isinstance(video, dict) else None
    return len(names) if isinstance(names, list) else None


def _frames(video: Any) -> list[str]:
    names = video.get("file_names") if isinstance(video, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
