"""Resize weights whose size depends on the size of the window, image or patch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from ddep.errors import UserError

Shape = tuple[int, ...]


def is_computed(name: str) -> bool:
    """Whether the weight called ``name`` is a constant that follows from the config."""
    return name.endswith(".relative_position_index")


def relative_position_index(shape: Shape) -> torch.Tensor:
    """Compute the index of Swin's windows of w x w, the only constant there is.

    Args:
        shape: (w^2, w^2).

    Returns:
        The row of the position table for each pair of positions (arXiv 2103.14030, equation 4):
        (2w - 1) times their distance along the rows plus that along the columns, both counted
        from 0.
    """
    side = math.isqrt(shape[0])
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rows, columns = (
        axis.flatten()[:, None] - axis.flatten()[None] + side - 1 for axis in (rows, columns)
    )
    return rows * (2 * side - 1) + columns


def resize(name: str, tensor: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Resize a position table, a position embedding or a patch embedding.

    Args:
        name: name of the weight in the whole model.
        tensor: the weight in the source.
        shape: its shape in the model.

    Returns:
        The weight, with that shape and the dtype of ``tensor``.

    Raises:
        UserError: it is another kind of weight, or the shapes differ in more than the size.
    """
    resized = None
    if tensor.is_floating_point() and tensor.numel() and 0 not in shape:
        if name.endswith(".relative_position_bias_table"):
            resized = _resize_bias_table(tensor, shape)
        elif name.endswith(".absolute_pos_embed"):
            resized = _resize_map(tensor, shape)
        elif name.endswith(".pos_embed"):
            resized = _resize_tokens(tensor, shape)
        elif name.endswith(".patch_embed.proj.weight"):
            resized = _resize_kernel(tensor, shape)
    if resized is None:
        raise UserError(
            f"{name} is {tuple(tensor.shape)} in the file and {shape} in the model; use a config "
            "that describes the same model"
        )
    return resized


def _resize_bias_table(table: torch.Tensor, shape: Shape) -> torch.Tensor | None:
    """((2w - 1)^2, heads) for windows of w x w: bicubic, as Swin's authors fine-tune."""
    old, new = math.isqrt(len(table)), math.isqrt(shape[0])
    if table.ndim != 2 or table.shape[1:] != shape[1:]:
        return None
    if old**2 != len(table) or new**2 != shape[0]:
        return None
    return _bicubic(table.T.reshape(1, -1, old, old), (new, new)).flatten(2)[0].T.contiguous()


def _resize_map(embedding: torch.Tensor, shape: Shape) -> torch.Tensor | None:
    """(1, C, rows, columns): bicubic, as Swin's authors fine-tune."""
    if embedding.ndim != 4 or embedding.shape[:2] != shape[:2]:
        return None
    return _bicubic(embedding, shape[2:])


def _resize_tokens(embedding: torch.Tensor, shape: Shape) -> torch.Tensor | None:
    """(1, prefix + side^2, C): the square is resized as in timm (bicubic), the prefix kept."""
    if embedding.ndim != 3 or len(shape) != 3 or embedding.shape[::2] != shape[::2]:
        return None
    for prefix in range(6):  # class, distillation and register tokens
        patches = [max(count - prefix, 0) for count in (embedding.shape[1], shape[1])]
        old, new = map(math.isqrt, patches)
        if old and new and [old**2, new**2] == patches:
            return resample_abs_pos_embed(embedding, [new, new], num_prefix_tokens=prefix)
    return None


def _resize_kernel(kernel: torch.Tensor, shape: Shape) -> torch.Tensor | None:
    """(C, 3, rows, columns): the kernel that gives the same output on resized patches.

    This is timm's implementation of FlexiViT (arXiv 2212.08013, section 3.4).
    """
    if kernel.ndim != 4 or kernel.shape[:2] != shape[:2]:
        return None
    return resample_patch_embed(kernel, list(shape[2:]))


def _bicubic(maps: torch.Tensor, size: Shape) -> torch.Tensor:
    resized = F.interpolate(maps.float(), size=size, mode="bicubic", align_corners=False)
    return resized.to(maps.dtype)
