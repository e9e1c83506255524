"""Meta-architectures: denoising pretraining and mask classification."""

from ddep.modeling.meta_arch.denoiser import DenoisingPretrainer
from ddep.modeling.meta_arch.mask_former import MaskFormer

__all__ = ["DenoisingPretrainer", "MaskFormer"]
