"""The jobs to compare: each mapper with usual settings, and torchvision's transforms.

Both read the same files, resize, crop, recolour and flip them with equal probabilities, and make
the same tensors: for denoising a noisy image and its noise, for segmentation an image and one mask
for each class or object.
"""

from __future__ import annotations

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import io, tv_tensors
from torchvision.transforms import v2

from ddep.config import add_ddep_config
from ddep.data.augmentation import IMAGE_FILL
from ddep.data.mappers import MAPPERS
from ddep.data.record import Record
from ddep.noise import add_noise
from photographs import NUM_CLASSES

IGNORE, VOID = 255, 0
SIGMA = 0.48
# Mean and standard deviation of colours between 0 and 1.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Sizes: denoising at 224; Mask2Former's for ADE20K, COCO (large-scale jitter) and DETR's.
_ADE20K = tuple(int(0.1 * step * 512) for step in range(5, 21))
_DETR = tuple(range(480, 801, 32))
_CROP = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE")
_SETTINGS = {
    "ddep_denoising": (
        *("INPUT.MIN_SIZE_TRAIN", (224,), "INPUT.MAX_SIZE_TRAIN", 4096),
        *(*_CROP, "absolute", "INPUT.CROP.SIZE", (224, 224), "MODEL.DDEP.SIGMA", [SIGMA]),
    ),
    "mask_former": (
        *("INPUT.MIN_SIZE_TRAIN", _ADE20K, "INPUT.MAX_SIZE_TRAIN", 2048),
        *(*_CROP, "absolute", "INPUT.CROP.SIZE", (512, 512)),
        *("INPUT.COLOR_AUG_SSD", True, "INPUT.SIZE_DIVISIBILITY", 512),
    ),
    "coco": ("INPUT.IMAGE_SIZE", 1024, "INPUT.MIN_SCALE", 0.1, "INPUT.MAX_SCALE", 2.0),
    "detr": (
        *("INPUT.MIN_SIZE_TRAIN", _DETR, "INPUT.MAX_SIZE_TRAIN", 1333),
        *(*_CROP, "absolute_range", "INPUT.CROP.SIZE", (384, 600)),
    ),
}

# Mappers of boxes and of videos are not measured.
_NOT_MEASURED = ("detr_detection", "detr_panoptic_boxes", "mask_former_video_instance")
# The mappers that have a counterpart in torchvision here.
MEASURED = [
    name for name in MAPPERS if name.startswith(tuple(_SETTINGS)) and name not in _NOT_MEASURED
]


def mapper_config(name: str) -> CfgNode:
    """The config of a mapper; its settings go by the beginning of its name."""
    cfg = get_cfg()
    add_ddep_config(cfg)
    [settings] = [value for key, value in _SETTINGS.items() if name.startswith(key)]
    cfg.merge_from_list(["INPUT.DATASET_MAPPER_NAME", name, "INPUT.FORMAT", "RGB", *settings])
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = ([255 * v for v in values] for values in IMAGENET)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = IGNORE
    return cfg


class TorchvisionMapper:
    """Does a mapper's job with ``torchvision.transforms.v2``: from a record to tensors."""

    def __init__(self, name: str, tensors: bool) -> None:
        """
        Args:
            name: the mapper's name.
            tensors: decode images into tensors instead of Pillow's images.
        """
        self.name = name
        self.tensors = tensors
        self.labels = MAPPERS[name].needs_labels
        fill = {tv_tensors.Mask: IGNORE if self.labels == "sem_seg" else VOID}
        self.transform = _transform(name, {**fill, "others": IMAGE_FILL})

    def __call__(self, record: Record) -> dict[str, torch.Tensor]:
        """
        Returns:
            ``image`` and ``noise`` (3, H, W) float32; or ``image`` (3, H, W) uint8, ``masks``
            (T, H, W) bool, ``classes`` (T,) int64 and, except for instances, ``labels`` (H, W)
            int64.
        """
        image = _read(record["file_name"], self.tensors)
        if self.labels is None:
            image = self.transform(image)
            noise = torch.randn_like(image)
            return {"image": add_noise(image, noise, SIGMA, "scaled"), "noise": noise}
        image, labels = self.transform(image, tv_tensors.Mask(_read_labels(record, self.labels)))
        sample = {"image": image}
        if self.labels == "segm":
            classes = torch.tensor([a["category_id"] for a in record["annotations"]])
            masks = labels.bool()
        else:
            sample["labels"] = labels.long()
            ids = labels.unique()
            ids = ids[ids != (IGNORE if self.labels == "sem_seg" else VOID)]
            masks = labels == ids[:, None, None]
            category = {s["id"]: s["category_id"] for s in record["segments_info"]}
            classes = ids
            if self.labels == "panoptic_seg":
                classes = torch.tensor([category[i] for i in ids.tolist()], dtype=torch.int64)
        visible = masks.flatten(1).any(1)
        return {**sample, "masks": masks[visible], "classes": classes[visible].long()}


def _transform(name: str, fill: dict) -> v2.Compose:
    flip = v2.RandomHorizontalFlip()
    if name == "ddep_denoising":
        crop = [v2.Resize(224, antialias=True), v2.RandomCrop(224), flip]
        to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        return v2.Compose([*crop, *to_tensor, v2.Normalize(*IMAGENET), v2.ToPureTensor()])
    if name.startswith("coco"):
        jitter = v2.ScaleJitter((1024, 1024), (0.1, 2.0), antialias=True)
        steps = [flip, jitter, v2.RandomCrop(1024, pad_if_needed=True, fill=fill)]
    elif name.startswith("detr"):
        resize = v2.RandomShortestSize(list(_DETR), 1333, antialias=True)
        first = v2.RandomShortestSize([400, 500, 600], antialias=True)
        steps = [flip, v2.RandomChoice([resize, v2.Compose([first, random_size_crop, resize])])]
    else:
        recolour = v2.RandomPhotometricDistort((7 / 8, 9 / 8), (0.5, 1.5), (0.5, 1.5), (-0.1, 0.1))
        resize = v2.RandomShortestSize(list(_ADE20K), 2048, antialias=True)
        crop = v2.RandomCrop(512, pad_if_needed=True, fill=fill)
        steps = [resize, crop, recolour, flip]
    return v2.Compose([*steps, v2.ToImage(), v2.ToPureTensor()])


def random_size_crop(*inputs: torch.Tensor | Image.Image) -> tuple[torch.Tensor | Image.Image, ...]:
    """DETR's crop: sides of 384 to 600 pixels, if the image has them, at a random place."""
    height, width = v2.functional.get_size(inputs[0])
    rows, columns = (
        int(torch.randint(min(side, 384), min(side, 600) + 1, ())) for side in (height, width)
    )
    top = int(torch.randint(height - rows + 1, ()))
    left = int(torch.randint(width - columns + 1, ()))
    return tuple(v2.functional.crop(value, top, left, rows, columns) for value in inputs)


def _read(path: str, tensors: bool) -> Image.Image | tv_tensors.Image:
    if tensors:
        return tv_tensors.Image(io.decode_image(io.read_file(path), io.ImageReadMode.RGB))
    with open(path, "rb") as file:
        return Image.open(file).convert("RGB")


def _read_labels(record: Record, kind: str) -> torch.Tensor:
    """(H, W) semantic labels or segment ids, or (T, H, W) masks of instances."""
    if kind == "sem_seg":
        return torch.from_numpy(np.array(Image.open(record["sem_seg_file_name"])))
    if kind == "panoptic_seg":
        red, green, blue = v2.functional.pil_to_tensor(
            Image.open(record["pan_seg_file_name"])
        ).int()
        return red + 256 * green + 65536 * blue
    polygons = [annotation["segmentation"] for annotation in record["annotations"]]
    size = record["height"], record["width"]
    run_lengths = [coco_mask.merge(coco_mask.frPyObjects(p, *size)) for p in polygons]
    return torch.from_numpy(coco_mask.decode(run_lengths)).permute(2, 0, 1)
