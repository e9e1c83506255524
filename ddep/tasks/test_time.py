"""Values of TEST.AUG, TEST.SLIDE and TEST.CLIP."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from ddep.config import get_key
from ddep.config_checks import check_not_negative, check_probability
from ddep.errors import UserError


def check_test_time_values(cfg: CfgNode) -> None:
    """Raise :class:`UserError` unless the values of what is enabled are in range."""
    aug, slide = cfg.TEST.AUG, cfg.TEST.SLIDE
    if aug.ENABLED:
        sizes = aug.MIN_SIZES
        if not sizes or not all(_is_whole(size, 0) for size in sizes):
            raise _wrong(cfg, "TEST.AUG.MIN_SIZES", "lengths in pixels, or 0 for an image's own")
        if not _is_whole(aug.MAX_SIZE, 1):
            raise _wrong(cfg, "TEST.AUG.MAX_SIZE", "a length in pixels")
    if slide.ENABLED:
        for key in ("TEST.SLIDE.CROP_SIZE", "TEST.SLIDE.STRIDE"):
            value = get_key(cfg, key)
            if len(value) != 2 or not all(_is_whole(length, 1) for length in value):
                raise _wrong(cfg, key, "two lengths in pixels, height and width")
        if any(stride > crop for stride, crop in zip(slide.STRIDE, slide.CROP_SIZE, strict=True)):
            raise _wrong(
                cfg,
                "TEST.SLIDE.STRIDE",
                f"at most TEST.SLIDE.CROP_SIZE {tuple(slide.CROP_SIZE)}: there would be gaps",
            )
    _check_clips(cfg)


def _check_clips(cfg: CfgNode) -> None:
    clip = cfg.TEST.CLIP
    for key, least in (("FRAMES", 0), ("STRIDE", 0), ("MAX_INSTANCES", 1), ("MAX_GAP", 0)):
        if not _is_whole(clip[key], least):
            raise _wrong(cfg, f"TEST.CLIP.{key}", f"a whole number from {least} on")
    if clip.FRAMES and clip.STRIDE > clip.FRAMES:
        raise _wrong(
            cfg, "TEST.CLIP.STRIDE", f"at most TEST.CLIP.FRAMES {clip.FRAMES}: there would be gaps"
        )
    for key in ("SCORE_THRESHOLD", "NEW_THRESHOLD", "REFIND_THRESHOLD", "MIN_OVERLAP"):
        check_probability(f"TEST.CLIP.{key}", clip[key])
    for key in ("OVERLAP_WEIGHT", "SIMILARITY_WEIGHT"):
        check_not_negative(f"TEST.CLIP.{key}", clip[key])


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _wrong(cfg: CfgNode, key: str, expected: str) -> UserError:
    return UserError(f"{key} is {get_key(cfg, key)!r}; expected {expected}")
