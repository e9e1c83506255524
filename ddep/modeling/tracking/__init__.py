"""The same object through a video: instances of overlapping clips are linked to tracks."""

from ddep.modeling.tracking.clip_instances import ClipInstances, clip_instances
from ddep.modeling.tracking.clip_linker import ClipLinker
from ddep.modeling.tracking.clip_tracker import ClipTracker
from ddep.modeling.tracking.clips import cut_into_clips
from ddep.modeling.tracking.frame_tracks import FrameTracks
from ddep.modeling.tracking.video_results import video_results

__all__ = [
    "ClipInstances",
    "ClipLinker",
    "ClipTracker",
    "FrameTracks",
    "clip_instances",
    "cut_into_clips",
    "video_results",
]
