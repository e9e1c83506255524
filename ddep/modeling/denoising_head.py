"""The heads that turn a decoder's features into the denoising predictions."""

from __future__ import annotations

from torch import Tensor, nn

# All heads predict at this many times their features' resolution.
UPSAMPLING = 4
# Strides of the features that multi-scale denoising predicts from.
MULTI_SCALE_STRIDES = (8, 16, 32)


class DenoisingHead(nn.Module):
    """Predict three channels at input resolution from features at stride 4.

    Decoder denoising pretraining discards this head afterwards (Brempong et al., 2022, arXiv
    2205.11423, section 3). On request it also holds one small head for each of the decoder's
    coarser scales, and a linear one for the encoder's features of the clean image.
    """

    def __init__(
        self, *, mask_dim: int, scale_dim: int | None, feature_dim: int | None = None
    ) -> None:
        """
        Args:
            mask_dim: channels of the decoder's features at stride 4.
            scale_dim: channels of the multi-scale features; None makes no multi-scale heads.
            feature_dim: channels of the encoder's features to predict; None predicts none.
        """
        super().__init__()
        self.conv = nn.Conv2d(mask_dim, mask_dim, kernel_size=3, padding=1)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(mask_dim)
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(mask_dim, mask_dim // 2, kernel_size=2, stride=2),
            nn.ConvTranspose2d(mask_dim // 2, 3, kernel_size=2, stride=2),
        )
        self.multi_scale = nn.ModuleDict()
        if scale_dim is not None:
            for stride in MULTI_SCALE_STRIDES:
                self.multi_scale[f"s{stride}"] = _scale_head(scale_dim)
        self.features = None if feature_dim is None else nn.Conv2d(mask_dim, feature_dim, 1)

    def forward(self, mask_features: Tensor) -> Tensor:
        """(B, mask_dim, H/4, W/4) -> (B, 3, H, W)."""
        x = self.activation(self.conv(mask_features))
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.upsample(x)

    def predict_scales(self, multi_scale_features: list[Tensor]) -> dict[int, Tensor]:
        """Predict small images from the decoder's scales.

        Args:
            multi_scale_features: (B, scale_dim, H/s, W/s) for s = 32, 16, 8, in that order.

        Returns:
            For each stride s the prediction (B, 3, 4H/s, 4W/s), at four times the features'
            resolution.
        """
        coarse_to_fine = sorted(MULTI_SCALE_STRIDES, reverse=True)
        return {
            stride: self.multi_scale[f"s{stride}"](features)
            for stride, features in zip(coarse_to_fine, multi_scale_features, strict=True)
        }


def _scale_head(scale_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(scale_dim, scale_dim, kernel_size=1),
        nn.GELU(),
        nn.Conv2d(scale_dim, 3 * UPSAMPLING**2, kernel_size=1),
        nn.PixelShuffle(UPSAMPLING),
    )
