"""Images that are not files: Pillow's, NumPy's arrays and PyTorch's tensors."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ddep.errors import UserError

_EXPECTED = (
    "expected (H, W, 3) uint8 in the order RGB, (H, W) uint8 for grey, or a tensor (3, H, W) uint8"
)


class ImageInMemory(str):
    """A stand-in for the name of an image file, which carries the image itself.

    Records, samples and messages name an image by one string, ``file_name``. As this is one, the
    image passes through mappers and drawing, and :func:`ddep.data.image_reader.open_image` reads it
    as it would read the file: upright, in three channels of 8 bits.

    Attributes:
        image: as Pillow has it.
    """

    image: Image.Image

    def __new__(cls, image: Image.Image | np.ndarray | torch.Tensor) -> ImageInMemory:
        """
        Args:
            image: a Pillow image of any mode; an array (H, W, 3) uint8 in the order RGB, (H, W, 4)
                with an opacity, which is dropped, or (H, W), which is grey; or a tensor (3, H, W)
                or (1, H, W) uint8, on any device.

        Raises:
            UserError: another shape or dtype, no pixels, or more than Pillow opens in a file.
        """
        pillow = image if isinstance(image, Image.Image) else _from_array(image)
        width, height = pillow.size
        if not width * height:
            raise UserError(f"an image is {width}x{height}; expected at least one pixel")
        limit = Image.MAX_IMAGE_PIXELS and 2 * Image.MAX_IMAGE_PIXELS  # Pillow's own, for files
        if limit and width * height > limit:
            raise UserError(
                f"an image is {width}x{height}; expected at most {limit} pixels: make it smaller, "
                "or raise PIL.Image.MAX_IMAGE_PIXELS"
            )
        name = super().__new__(cls, f"in memory ({width}x{height})")
        name.image = pillow
        return name


def _from_array(image: np.ndarray | torch.Tensor) -> Image.Image:
    pixels = image
    if isinstance(image, torch.Tensor):
        if image.dim() != 3 or image.shape[0] not in (1, 3):
            raise UserError(f"an image is a tensor of shape {tuple(image.shape)}; {_EXPECTED}")
        pixels = image.detach().cpu()
        if pixels.dtype != torch.uint8:
            raise _wrong_dtype(str(pixels.dtype).removeprefix("torch."))
        pixels = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    if not isinstance(pixels, np.ndarray):
        raise UserError(f"an image is a {type(image).__name__}; {_EXPECTED}, an image or a path")
    if pixels.dtype != np.uint8:
        raise _wrong_dtype(str(pixels.dtype))
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise UserError(f"an image is an array of shape {pixels.shape}; {_EXPECTED}")
    # A copy: what the caller does to the array afterwards does not change the prediction.
    return Image.fromarray(pixels.copy())


def _wrong_dtype(dtype: str) -> UserError:
    return UserError(f"an image has numbers of dtype {dtype}; {_EXPECTED}, with values 0 to 255")
