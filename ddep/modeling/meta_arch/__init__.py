"""Meta-architectures: denoising pretraining, mask classification and image classification."""

from ddep.modeling.meta_arch.denoiser import DenoisingPretrainer
from ddep.modeling.meta_arch.image_classifier import ImageClassifier
from ddep.modeling.meta_arch.mask_former import MaskFormer

__all__ = ["DenoisingPretrainer", "ImageClassifier", "MaskFormer"]
