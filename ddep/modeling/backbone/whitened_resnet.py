"""ResNets that normalise each image's features after the stem and the first two stages.

Instance norm without weights takes the mean and the scale of each channel out of an image, which
say more about its style than about what it shows (IBN-Net, arXiv 1807.09441; RobustNet, arXiv
2103.15597, section 4.1). :mod:`ddep.modeling.whitening` adds a loss on what is left.
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import (
    BasicBlock,
    BottleneckBlock,
    ResNet,
    build_resnet_backbone,
)
from detectron2.projects.deeplab.resnet import build_resnet_deeplab_backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.errors import UserError

# The registered names.
WHITENED = ("build_whitened_resnet_backbone", "build_whitened_resnet_deeplab_backbone")
# The stages whose last block normalises.
_STAGES = ("res2", "res3")


@BACKBONE_REGISTRY.register()
def build_whitened_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """detectron2's ``build_resnet_backbone`` with :func:`whiten`."""
    return whiten(build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_whitened_resnet_deeplab_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """detectron2's ``build_resnet_deeplab_backbone`` with :func:`whiten`."""
    return whiten(build_resnet_deeplab_backbone(cfg, input_shape))


class WhitenedBlock(CNNBlockBase):
    """A residual block that normalises the sum, before its ReLU."""

    def __init__(self, block: BasicBlock | BottleneckBlock) -> None:
        """
        Args:
            block: its convolutions are taken over, under the same names.
        """
        super().__init__(block.in_channels, block.out_channels, block.stride)
        for name, module in block.named_children():
            self.add_module(name, module)
        self.shortcut = block.shortcut
        self.whitening = nn.InstanceNorm2d(block.out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        residual = self.conv2(F.relu_(self.conv1(features)))
        if hasattr(self, "conv3"):
            residual = self.conv3(F.relu_(residual))
        shortcut = features if self.shortcut is None else self.shortcut(features)
        return F.relu_(self.whitening(residual + shortcut))


def whiten(resnet: ResNet) -> ResNet:
    """Put instance norm into ``resnet``, in place: no weight gets another name.

    In the stem it replaces the last batch norm. In the last block of each of the first two stages
    it comes after the shortcut is added.

    Raises:
        UserError: a stage is missing, or has deformable convolutions.
    """
    for name in _STAGES:
        stage = getattr(resnet, name, None)
        if stage is None or not isinstance(stage[-1], (BasicBlock, BottleneckBlock)):
            raise UserError(
                f"MODEL.BACKBONE.NAME is a whitened ResNet, which needs {' and '.join(_STAGES)} "
                "without deformable convolutions; correct MODEL.RESNETS.OUT_FEATURES or "
                "MODEL.RESNETS.DEFORM_ON_PER_STAGE"
            )
        stage[-1] = WhitenedBlock(stage[-1])
    *_, last = resnet.stem.children()
    last.norm = nn.InstanceNorm2d(resnet.stem.out_channels)
    return resnet


def whitening_layers(resnet: nn.Module) -> list[nn.InstanceNorm2d]:
    """The layers that :func:`whiten` has put in, in the order of computation; maybe none."""
    return [module for module in resnet.modules() if isinstance(module, nn.InstanceNorm2d)]


def early_features(resnet: ResNet, images: Tensor) -> Tensor:
    """Compute as much of ``resnet`` as its whitening layers need.

    Args:
        resnet: from :func:`whiten`.
        images: (B, 3, H, W), normalised.
    """
    features = resnet.stem(images)
    for name in _STAGES:
        features = getattr(resnet, name)(features)
    return features
