"""Meta-architectures: denoising, mask classification, detection and image classification."""

from ddep.modeling.meta_arch.denoiser import DenoisingPretrainer
from ddep.modeling.meta_arch.detr import Detr
from ddep.modeling.meta_arch.image_classifier import ImageClassifier
from ddep.modeling.meta_arch.mask_former import MaskFormer
from ddep.modeling.meta_arch.track_former import TrackFormer
from ddep.modeling.meta_arch.video_mask_former import VideoMaskFormer

__all__ = [
    "DenoisingPretrainer",
    "Detr",
    "ImageClassifier",
    "MaskFormer",
    "TrackFormer",
    "VideoMaskFormer",
]
