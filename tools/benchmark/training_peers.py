"""Official Mask2Former and Hugging Face's: models, training steps and predictions.

Nothing here imports ``ddep``: official Mask2Former registers the same names with detectron2, and
neither needs this project's memory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

# The module with the compiled operator of Deformable DETR, which Mask2Former's checkout builds.
OPERATOR = "MultiScaleDeformableAttention"
_DATA_SET = "benchmark"


@dataclass(frozen=True)
class Job:
    """What all implementations are given, written by the parent process.

    Attributes:
        folder: has ``config.yaml``, a whole config of this project; ``weights.pt``, the state dict
            of its model; and with Hugging Face as a peer ``huggingface``, the same model for
            ``from_pretrained``.
        checkout: of Mask2Former; empty if it is no peer.
        device: ``cpu`` or ``cuda``.
        precision: of autocast, a name of a torch dtype.
        max_grad_norm: gradients of the whole model are clipped to it; may be inf.
        thing_ids: classes that are things.
        images: a training batch, (3, H, W) uint8 each.
        classes, masks: of each image's objects, (T,) int64 and (T, H, W) bool.
        image: the image to predict, (3, H, W) uint8.
    """

    folder: str
    checkout: str
    device: str
    precision: str
    max_grad_norm: float
    thing_ids: list[int]
    images: list[Tensor]
    classes: list[Tensor]
    masks: list[Tensor]
    image: Tensor

    @property
    def weights(self) -> dict[str, Tensor]:
        """The content of ``weights.pt``."""
        return torch.load(Path(self.folder, "weights.pt"), weights_only=True)

    def autocast(self) -> contextlib.AbstractContextManager:
        """What a forward pass runs in."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=getattr(torch, self.precision))


@dataclass(frozen=True)
class Implementation:
    """A model on its device.

    Attributes:
        model: in training mode.
        loss: a forward pass of the training batch, to the sum of all weighted losses.
        step: a whole training step.
        predict: the model's results for ``Job.image``, with the model in evaluation mode.
        note: what the report has to say about it.
    """

    model: nn.Module
    loss: Callable[[], Tensor]
    step: Callable[[], object]
    predict: Callable[[], object]
    note: str = ""


def detectron2_batch(job: Job) -> list[dict[str, Any]]:
    """The training batch as detectron2's models take it."""
    from detectron2.structures import Instances

    batch = []
    for image, classes, masks in zip(job.images, job.classes, job.masks, strict=True):
        instances = Instances(tuple(image.shape[-2:]), gt_classes=classes, gt_masks=masks)
        batch.append({"image": image, "instances": instances})
    return batch


def detectron2_image(job: Job) -> dict[str, Any]:
    """``Job.image`` as detectron2's models take it; results have the image's size."""
    height, width = job.image.shape[-2:]
    return {"image": job.image, "height": height, "width": width}


def mask2former(job: Job) -> Implementation:
    """Official Mask2Former with the optimizer of its own ``train_net.py``."""
    sys.path.insert(0, job.checkout)
    built = importlib.util.find_spec(OPERATOR) is not None
    if not built:
        # The package does not even import without it. Mask2Former falls back to its function in
        # plain PyTorch if a call of the operator fails, as it also does on the CPU.
        sys.modules[OPERATOR] = types.ModuleType(OPERATOR)
    from detectron2.config import CfgNode, get_cfg
    from detectron2.data import MetadataCatalog
    from detectron2.modeling import build_model
    from detectron2.projects.deeplab import add_deeplab_config
    from mask2former import add_maskformer2_config

    from train_net import Trainer

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    ours = yaml.safe_load(Path(job.folder, "config.yaml").read_text("utf-8"))
    cfg.merge_from_other_cfg(CfgNode(_shared_keys(ours, cfg)))
    # Which may be "auto" in ours.
    cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME = "MultiScaleMaskedTransformerDecoder"
    cfg.DATASETS.TRAIN = (_DATA_SET,)
    things = {thing: thing for thing in job.thing_ids}
    MetadataCatalog.get(_DATA_SET).set(thing_dataset_id_to_contiguous_id=things)
    model = build_model(cfg)
    _load(model, job.weights)
    batch, image = detectron2_batch(job), detectron2_image(job)

    def loss() -> Tensor:
        return sum(model(batch).values())

    note = "its operator" if built and job.device == "cuda" else "its function in plain PyTorch"
    return Implementation(
        model,
        loss,
        # Its optimizer clips gradients.
        _step(job, Trainer.build_optimizer(cfg, model), loss, lambda: None),
        lambda: model([image]),
        f"mask2former computes deformable attention by {note}",
    )


def huggingface(job: Job, postprocess: bool = True) -> Implementation:
    """Hugging Face's Mask2Former with PyTorch's AdamW.

    Args:
        job: its images are normalised here, before anything is measured.
        postprocess: whether predictions go through the image processor's functions; else they are
            logits.
    """
    from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

    folder = Path(job.folder, "huggingface")
    cfg = yaml.safe_load(Path(job.folder, "config.yaml").read_text("utf-8"))
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folder).to(job.device).train()
    processor = AutoImageProcessor.from_pretrained(folder)

    def normalised(*images: Tensor) -> Tensor:
        mean, std = (torch.tensor(cfg["MODEL"][key]) for key in ("PIXEL_MEAN", "PIXEL_STD"))
        return (torch.stack(images) - mean.view(3, 1, 1)) / std.view(3, 1, 1)

    inputs = {
        "pixel_values": normalised(*job.images),
        "mask_labels": [masks.float() for masks in job.masks],
        "class_labels": job.classes,
    }
    image = normalised(job.image)

    def loss() -> Tensor:
        device = job.device
        return model(
            pixel_values=inputs["pixel_values"].to(device),
            mask_labels=[masks.to(device) for masks in inputs["mask_labels"]],
            class_labels=[classes.to(device) for classes in inputs["class_labels"]],
        ).loss.squeeze()

    solver = cfg["SOLVER"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=solver["BASE_LR"], weight_decay=solver["WEIGHT_DECAY"]
    )

    def clip() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), job.max_grad_norm)

    test = cfg["MODEL"]["MASK_FORMER"]["TEST"]
    stuff = set(range(cfg["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"])) - set(job.thing_ids)

    def predict() -> object:
        outputs = model(pixel_values=image.to(job.device))
        if not postprocess:
            return outputs
        sizes = [tuple(image.shape[-2:])]
        thresholds = {
            "threshold": test["OBJECT_MASK_THRESHOLD"],
            "overlap_mask_area_threshold": test["OVERLAP_THRESHOLD"],
        }
        results = []
        if test["SEMANTIC_ON"]:
            results.append(processor.post_process_semantic_segmentation(outputs, sizes))
        if test["PANOPTIC_ON"]:
            results.append(
                processor.post_process_panoptic_segmentation(
                    outputs, label_ids_to_fuse=stuff, target_sizes=sizes, **thresholds
                )
            )
        if test["INSTANCE_ON"]:
            results.append(
                processor.post_process_instance_segmentation(outputs, target_sizes=sizes)
            )
        return results

    return Implementation(model, loss, _step(job, optimizer, loss, clip), predict)


def _step(
    job: Job,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
    clip: Callable[[], None],
) -> Callable[[], float]:
    scaler = torch.amp.GradScaler(job.device, enabled=job.precision == "float16")

    def step() -> float:
        with job.autocast():
            total = loss()
        optimizer.zero_grad()
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        clip()
        scaler.step(optimizer)
        scaler.update()
        return total.item()

    return step


def _shared_keys(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``ours`` whose keys are in ``theirs``."""
    return {
        key: _shared_keys(value, theirs[key]) if isinstance(value, dict) else value
        for key, value in ours.items()
        if key in theirs
    }


def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict with the same names; buffers of the criterion are no weights."""
    missing, unexpected = model.load_state_dict(weights, strict=False)
    wrong = [name for name in [*missing, *unexpected] if not name.startswith("criterion.")]
    if wrong:
        raise ValueError(f"its model and ours differ in {len(wrong)} weights, such as {wrong[0]}")
