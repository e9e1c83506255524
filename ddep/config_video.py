"""The config keys of models of videos; those of clips in training are Mask2Former-video's."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_video_config(cfg: CfgNode) -> None:
    """Add the keys to ``cfg``, in place."""
    _add_training_clips(cfg)
    _add_test_clips(cfg)


def _add_training_clips(cfg: CfgNode) -> None:
    # Frames of a training clip.
    cfg.INPUT.SAMPLING_FRAME_NUM = 2
    # They are at most this many frames away from one of them, which is drawn uniformly.
    cfg.INPUT.SAMPLING_FRAME_RANGE = 20
    # Whether their order is random.
    cfg.INPUT.SAMPLING_FRAME_SHUFFLE = False
    # Any of brightness, contrast, saturation (by up to a tenth) and rotation (up to 15 degrees).
    # MIN_SIZE_TRAIN_SAMPLING choice_by_clip or range_by_clip, and RANDOM_FLIP flip_by_clip, do the
    # same to all frames of a clip.
    cfg.INPUT.AUGMENTATIONS = []


def _add_test_clips(cfg: CfgNode) -> None:
    # Evaluation and prediction cut videos into clips of this many frames, whose instances are
    # linked; 0 takes whole videos, as Mask2Former-video does, whose memory grows with the video.
    clip = cfg.TEST.CLIP = CfgNode()
    clip.FRAMES = 0
    # Frames from one clip to the next; less than FRAMES makes them overlap. 0 is half of FRAMES
    # (at least 1).
    clip.STRIDE = 0
