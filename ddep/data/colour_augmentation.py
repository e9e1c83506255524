"""Training augmentations that change an image's colours and sharpness."""

from __future__ import annotations

import random

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from ddep.config_checks import check_probability, check_range
from ddep.data.photometric import build_photometric, check_color_jitter


def build_recolouring(cfg: CfgNode, image_format: str) -> list[T.Augmentation]:
    """Build what ``INPUT.COLOR_AUG_SSD``, ``COLOR_JITTER`` and ``GAUSSIAN_BLUR`` ask for.

    Args:
        cfg: the whole config.
        image_format: order of the channels, RGB or BGR.

    Raises:
        UserError: an impossible value.
    """
    jitter, blur = cfg.INPUT.COLOR_JITTER, cfg.INPUT.GAUSSIAN_BLUR
    if jitter.ENABLED:
        check_color_jitter("INPUT.COLOR_JITTER.STRENGTH", jitter.STRENGTH)
        check_probability("INPUT.COLOR_JITTER.PROBABILITY", jitter.PROBABILITY)
    if blur.ENABLED:
        check_range("INPUT.GAUSSIAN_BLUR.SIGMA", blur.SIGMA)
        check_probability("INPUT.GAUSSIAN_BLUR.PROBABILITY", blur.PROBABILITY)
    augmentations: list[T.Augmentation] = []
    if cfg.INPUT.COLOR_AUG_SSD:
        augmentations.append(RandomColour(image_format))
    if jitter.ENABLED or blur.ENABLED:
        augmentations.append(RandomPhotometric(cfg, image_format))
    return augmentations


class RandomColour(T.Augmentation):
    """SSD's random brightness, contrast, saturation and hue (Liu et al., 2016, arXiv 1512.02325).

    Each is drawn with probability 1/2: brightness by up to 32 of 255, contrast and saturation by a
    factor of 0.5 to 1.5, hue by up to 18 of OpenCV's 180 steps; contrast comes first or last.
    """

    def __init__(self, image_format: str) -> None:
        super().__init__()
        self.transform = ColourTransform(image_format)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return self.transform


class ColourTransform(ColorAugSSDTransform):
    """detectron2's with the same results, but with look-up tables instead of pixel arithmetic."""

    def __init__(self, image_format: str) -> None:
        super().__init__(img_format="BGR")
        self.image_format = image_format

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        if self.image_format == "BGR":
            return super().apply_image(image)
        image = super().apply_image(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

    def convert(self, image: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        return cv2.LUT(image, super().convert(np.arange(256), alpha, beta))

    def hue(self, image: np.ndarray) -> np.ndarray:
        if not random.randrange(2):
            return image
        image = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        turned = (np.arange(256) + random.randint(-self.hue_delta, self.hue_delta)) % 180
        image[:, :, 0] = cv2.LUT(image[:, :, 0], turned.astype(np.uint8))
        return cv2.cvtColor(image, cv2.COLOR_HSV2BGR)


class RandomPhotometric(T.Augmentation):
    """The jitter of ``INPUT.COLOR_JITTER``, then the blur of ``INPUT.GAUSSIAN_BLUR``."""

    def __init__(self, cfg: CfgNode, image_format: str) -> None:
        super().__init__()
        jitter, blur = cfg.INPUT.COLOR_JITTER, cfg.INPUT.GAUSSIAN_BLUR
        self.change = build_photometric(
            color_jitter=jitter.STRENGTH,
            jitter_probability=jitter.PROBABILITY if jitter.ENABLED else 0.0,
            gray_probability=0.0,
            blur_sigma=blur.SIGMA,
            blur_probability=blur.PROBABILITY if blur.ENABLED else 0.0,
            image_format=image_format,
        )

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return T.ColorTransform(self._apply)

    def _apply(self, image: np.ndarray) -> np.ndarray:
        # Photometric changes are of planes, (3, H, W), and images here are (H, W, 3).
        planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return np.ascontiguousarray(self.change(planes).permute(1, 2, 0).numpy())
