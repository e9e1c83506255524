"""Mask2Former's transformer decoder for clips of videos."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ddep.modeling.position_encoding import sine_position_encoding, sine_time_encoding
from ddep.modeling.transformer_decoder.build_transformer_decoder import (
    TRANSFORMER_DECODER_REGISTRY,
)
from ddep.modeling.transformer_decoder.mask2former_transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
    Predictions,
    flatten_pixels,
    resized_features,
)


@TRANSFORMER_DECODER_REGISTRY.register()
class VideoMultiScaleMaskedTransformerDecoder(MultiScaleMaskedTransformerDecoder):
    """Queries attend to all frames of a clip together, each only inside its latest mask.

    Mask2Former for videos (Cheng et al., 2021, arXiv 2112.10764, section 3.2). Parameters are those
    of the decoder for images. A query is one object in all frames; it attends everywhere if its
    mask is empty in the whole clip.
    """

    def forward(
        self,
        multi_scale_features: Sequence[torch.Tensor],
        mask_features: torch.Tensor,
        num_frames: int = 1,
    ) -> dict[str, torch.Tensor | list[Predictions]]:
        """Predict Q classes and masks per clip.

        Args:
            multi_scale_features: 3 maps (B * T, in_channels, ., .), coarse to fine; the frames of a
                clip are neighbours.
            mask_features: (B * T, mask_dim, H, W).
            num_frames: T, of each clip.

        Returns:
            As the decoder for images, with ``pred_masks`` (B, Q, T, H, W).
        """
        values, keys, resized = [], [], []
        for feature, value in zip(
            multi_scale_features, self.project(multi_scale_features), strict=True
        ):
            size = feature.shape[-2:]
            positions = sine_position_encoding(*size, value.shape[-1], value.device)
            positions = positions + sine_time_encoding(num_frames, value.shape[-1], value.device)
            value = _clips(value, num_frames).flatten(1, 2)  # (B, T * S, C)
            values.append(value)
            keys.append(value + flatten_pixels(positions).flatten(0, 1))
            if len(resized) < self.num_layers:
                of_frames = _clips(resized_features(mask_features, size), num_frames)
                resized.append(of_frames.transpose(1, 2).flatten(2))  # (B, mask_dim, T * S)
        # Frames one below the other: (B, mask_dim, T * H, W).
        features = _clips(mask_features, num_frames).transpose(1, 2).flatten(2, 3)
        outputs = self.decode(keys, values, resized, features)
        for layer in (outputs, *outputs["aux_outputs"]):
            layer["pred_masks"] = layer["pred_masks"].unflatten(2, (num_frames, -1))
        return outputs


def _clips(of_frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    """(B * T, ...) -> (B, T, ...)."""
    return of_frames.unflatten(0, (-1, num_frames))
