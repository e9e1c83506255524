"""The discriminator of AdaptSegNet (arXiv 1802.10349) and AdvEnt (arXiv 1811.12833)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

_CHANNELS = (64, 128, 256, 512)
_STRIDE = 2 ** (len(_CHANNELS) + 1)
_KERNEL = {"kernel_size": 4, "stride": 2, "padding": 1}

SOURCE, TARGET = 0.0, 1.0


class Discriminator(nn.Module):
    """Tells the domain of images by maps of their predictions.

    Five 4x4 convolutions of stride 2 with leaky ReLUs (0.2) between them, without norms. Weights
    start as PyTorch's convolutions do, as in the authors' code.

    Args:
        channels: of the maps; the number of classes K.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for outputs in _CHANNELS:
            layers += [nn.Conv2d(channels, outputs, **_KERNEL), nn.LeakyReLU(0.2, inplace=True)]
            channels = outputs
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, **_KERNEL))

    def forward(self, maps: Tensor) -> Tensor:
        """
        Args:
            maps: (B, K, H, W). Zeros are added to sides below 32 pixels, the stride of the result.

        Returns:
            (B, 1, H // 32, W // 32) logits of the target domain.
        """
        height, width = maps.shape[-2:]
        padding = (0, max(0, _STRIDE - width), 0, max(0, _STRIDE - height))
        return self.layers(F.pad(maps, padding))

    def loss(self, maps: Tensor, domain: float) -> Tensor:
        """Binary cross entropy, averaged over the result's pixels.

        Args:
            maps: (K, H, W), of one image.
            domain: ``SOURCE`` or ``TARGET``.
        """
        return _cross_entropy(self(maps[None]), domain)

    def fooling_loss(self, maps: Tensor, domain: float) -> Tensor:
        """As :meth:`loss`, without gradients for the discriminator's weights."""
        weights = {name: weight.detach() for name, weight in self.named_parameters()}
        return _cross_entropy(functional_call(self, weights, maps[None]), domain)


def _cross_entropy(logits: Tensor, domain: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, logits.new_full((), domain).expand_as(logits))
