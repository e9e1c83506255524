"""Random augmentation of the frames of a clip, the same for all of them or different."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ddep.errors import UserError

# INPUT.AUGMENTATIONS
_COLOURS = {
    "brightness": T.RandomBrightness,
    "contrast": T.RandomContrast,
    "saturation": T.RandomSaturation,
}
_ROTATION = "rotation"


class AlikeInClip(T.Augmentation):
    """An augmentation that all frames of a clip share; see :func:`for_clip`."""

    def __init__(self, augmentation: T.Augmentation) -> None:
        """
        Args:
            augmentation: draws from NumPy's global generator.
        """
        super().__init__()
        self.augmentation = augmentation

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return self.augmentation.get_transform(image)


class _Repeated(AlikeInClip):
    """Draws once: every frame gets the random numbers of the first one."""

    def __init__(self, augmentation: T.Augmentation) -> None:
        super().__init__(augmentation)
        self._state = None

    def get_transform(self, image: np.ndarray) -> T.Transform:
        now = np.random.get_state(legacy=False)
        if self._state is None:
            self._state = now
            return super().get_transform(image)
        np.random.set_state(self._state)
        try:
            return super().get_transform(image)
        finally:
            np.random.set_state(now)


def for_clip(augmentations: Sequence[T.Augmentation]) -> list[T.Augmentation]:
    """The augmentations of one clip, to be applied to each of its frames: those that are
    :class:`AlikeInClip` use the same random numbers for all frames."""
    return [_Repeated(a.augmentation) if isinstance(a, AlikeInClip) else a for a in augmentations]


def build_frame_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """What INPUT.AUGMENTATIONS names, drawn for each frame anew, as in Mask2Former-video: factors
    from 0.9 to 1.1, and angles of up to 15 degrees around a point near the middle.

    Raises:
        UserError: an unknown name.
    """
    names = cfg.INPUT.AUGMENTATIONS
    known = (*_COLOURS, _ROTATION)
    for name in names:
        if name not in known:
            raise UserError(
                f"INPUT.AUGMENTATIONS has {name!r}; expected some of {', '.join(known)}"
            )
    augmentations = [make(0.9, 1.1) for name, make in _COLOURS.items() if name in names]
    if _ROTATION in names:
        centres = [(0.4, 0.4), (0.6, 0.6)]
        augmentations.append(RandomRotation([-15, 15], expand=False, center=centres))
    return augmentations


class RandomRotation(T.RandomRotation):
    """detectron2's, which can rotate masks."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        rotation = super().get_transform(image)
        if isinstance(rotation, T.RotationTransform):
            rotation = Rotation(
                rotation.h, rotation.w, rotation.angle, rotation.expand, rotation.center
            )
        return rotation


class Rotation(T.RotationTransform):
    """Turns images around a point."""

    def apply_segmentation(self, labels: np.ndarray) -> np.ndarray:
        # OpenCV does not take every dtype.
        if labels.dtype == bool:
            return super().apply_segmentation(labels.view(np.uint8)).view(bool)
        return super().apply_segmentation(labels)
