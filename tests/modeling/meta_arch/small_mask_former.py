"""Small MaskFormers, images and annotations for tests."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from torch import Tensor, nn

from ddep.config import add_ddep_config
from ddep.modeling.criterion import SetCriterion
from ddep.modeling.mask_costs import PointMaskCosts
from ddep.modeling.mask_losses import PointMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from ddep.modeling.meta_arch import MaskFormer

CLASSES = 3
QUERIES = 4
MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]


class Pool(nn.Module):
    """A backbone: every 4x4 pixels become one, their mean."""

    size_divisibility = 8

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.images = images
        return {"res2": nn.functional.avg_pool2d(images, 4)}


class PixelwiseHead(nn.Module):
    """A head whose masks depend on one pixel each, and whose classes are fixed."""

    num_classes = CLASSES
    num_queries = QUERIES

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mask = nn.Conv2d(3, QUERIES, 1)
        self.logits = nn.Parameter(2 * torch.randn(QUERIES, CLASSES + 1))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Any]:
        masks = 4 * self.mask(features["res2"])
        logits = self.logits.expand(len(masks), -1, -1)
        self.outputs = {"pred_logits": logits, "pred_masks": masks, "aux_outputs": []}
        return self.outputs


def small_model(**overrides: Any) -> MaskFormer:
    criterion = SetCriterion(
        CLASSES,
        matcher=HungarianMatcher(mask_costs=PointMaskCosts(50)),
        mask_losses=PointMaskLosses(
            num_points=50, oversample_ratio=3.0, importance_sample_ratio=0.75
        ),
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=3.0,
        no_object_weight=0.1,
        num_aux_outputs=0,
    )
    arguments = {
        "backbone": Pool(),
        "sem_seg_head": PixelwiseHead(),
        "criterion": criterion,
        "pixel_mean": MEAN,
        "pixel_std": STD,
        "size_divisibility": 16,
        "thing_ids": [0, 2],
        "semantic_on": True,
        "panoptic_on": True,
        "instance_on": True,
        "resize_before_semantic": False,
        "mask_threshold": 0.5,
        "object_mask_threshold": 0.1,
        "overlap_threshold": 0.1,
        "max_detections": 7,
    }
    return MaskFormer(**{**arguments, **overrides})


def image_of_size(height: int, width: int, seed: int) -> Tensor:
    """A smooth uint8 image, which still varies after averaging."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(1, 3, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0].byte()


def annotated(height: int, width: int, classes: list[int], seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((height, width))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    instances.gt_masks = torch.rand(len(classes), height, width, generator=generator) > 0.5
    image = image_of_size(height, width, seed)
    return {"image": image, "instances": instances, "file_name": f"image{seed}.png"}


def tiny_config(**metadata: Any) -> CfgNode:
    """The config of a Swin with both decoders that a CPU builds and runs in a moment."""
    cfg = get_cfg()
    add_ddep_config(cfg)
    name = f"tiny_{len(MetadataCatalog.list())}"
    MetadataCatalog.get(name).set(**metadata)
    cfg.DATASETS.TRAIN = (name,)
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.META_ARCHITECTURE = "MaskFormer"
    model.PIXEL_MEAN, model.PIXEL_STD = MEAN, STD
    model.BACKBONE.NAME = "D2SwinTransformer"
    model.SWIN.EMBED_DIM, model.SWIN.WINDOW_SIZE = 16, 4
    model.SWIN.DEPTHS, model.SWIN.NUM_HEADS = [1, 1, 1, 1], [1, 1, 2, 2]
    model.SWIN.DROP_PATH_RATE = 0.0
    head = model.SEM_SEG_HEAD
    head.NAME, head.PIXEL_DECODER_NAME = "MaskFormerHead", "MSDeformAttnPixelDecoder"
    head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    head.NUM_CLASSES, head.NORM, head.TRANSFORMER_ENC_LAYERS = CLASSES, "GN", 1
    head.CONVS_DIM = head.MASK_DIM = 32
    mask_former = model.MASK_FORMER
    mask_former.TRANSFORMER_IN_FEATURE = "multi_scale_pixel_decoder"
    mask_former.HIDDEN_DIM, mask_former.NHEADS, mask_former.DIM_FEEDFORWARD = 32, 4, 64
    mask_former.DEC_LAYERS, mask_former.NUM_OBJECT_QUERIES = 3, 6
    mask_former.TRAIN_NUM_POINTS = 256
    mask_former.CLASS_WEIGHT, mask_former.DICE_WEIGHT, mask_former.MASK_WEIGHT = 2.0, 5.0, 5.0
    mask_former.DROPOUT = 0.0
    return cfg


PANOPTIC = {
    "stuff_classes": ["background", "square", "disc"],
    "thing_classes": ["square", "disc"],
    "thing_dataset_id_to_contiguous_id": {7: 1, 9: 2},
}


def squares() -> dict[str, Any]:
    """An image of two bright squares on a dark ground, with its annotation."""
    masks = torch.zeros(3, 64, 96, dtype=torch.bool)
    masks[1, 8:32, 8:40] = True
    masks[2, 36:60, 50:90] = True
    masks[0] = ~masks.any(0)
    instances = Instances((64, 96))
    instances.gt_classes = torch.tensor([0, 1, 2])
    instances.gt_masks = masks
    colours = torch.tensor([[20, 30, 40], [250, 60, 60], [60, 60, 250]])
    image = colours[masks.byte().argmax(0)].permute(2, 0, 1).byte()
    return {"image": image, "instances": instances, "file_name": "squares.png"}


def tiny_video_config(**metadata: Any) -> CfgNode:
    """As :func:`tiny_config`, for clips of videos."""
    cfg = tiny_config(**metadata)
    cfg.MODEL.META_ARCHITECTURE = "VideoMaskFormer"
    decoder = "VideoMultiScaleMaskedTransformerDecoder"
    cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME = decoder
    return cfg


def tiny_track_config(**metadata: Any) -> CfgNode:
    """As :func:`tiny_config`, for track queries."""
    cfg = tiny_config(**metadata)
    cfg.MODEL.META_ARCHITECTURE = "TrackFormer"
    return cfg


def annotated_clip(
    frames: int, height: int, width: int, classes: list[int], seed: int
) -> dict[str, Any]:
    """A clip of frames that have nothing to do with each other; its first object is in one only."""
    of_frames = [annotated(height, width, classes, 100 * seed + frame) for frame in range(frames)]
    for sample in of_frames[1:]:
        sample["instances"].gt_masks[:1] = False
    return {
        "image": [sample["image"] for sample in of_frames],
        "instances": [sample["instances"] for sample in of_frames],
        "file_name": f"clip{seed}.png",
    }


def annotated_pair(height: int, width: int, classes: list[int], seed: int) -> dict[str, Any]:
    """Two frames: the first object leaves, and the last one is new if there are several."""
    sample = annotated_clip(2, height, width, classes, seed)
    for frame, absent in ((0, slice(max(1, len(classes) - 1), None)), (1, slice(0, 1))):
        instances = sample["instances"][frame]
        instances.gt_ids = torch.arange(len(classes)) + 5
        instances.gt_ids[absent] = -1
        instances.gt_masks[absent] = False
    return {**sample, "seed": seed}
