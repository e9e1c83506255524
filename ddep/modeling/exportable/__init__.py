"""Models as functions of tensors alone, with sizes that may be symbols, for ``torch.export``."""

from ddep.modeling.exportable.denoising import ExportableDenoiser
from ddep.modeling.exportable.exportable import Exportable
from ddep.modeling.exportable.per_pixel import ExportablePerPixel
from ddep.modeling.exportable.segmentation import ExportableMaskFormer

__all__ = ["Exportable", "ExportableDenoiser", "ExportableMaskFormer", "ExportablePerPixel"]
