"""What is measured beside other implementations: the same job for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Job:
    """A model, images and annotations.

    Attributes:
        folder: has ``config.yaml``, a whole config of this project; ``weights.pt``, the state dict
            of its model; and with Hugging Face as a peer ``huggingface``, the same model for
            ``from_pretrained``.
        checkout: of Mask2Former; empty if it is no peer.
        device: ``cpu`` or ``cuda``.
        precision: of autocast, a name of a torch dtype; float32 is none.
        max_grad_norm: gradients of the whole model are clipped to it; may be inf.
        thing_ids: classes that are things.
        images: a training batch, (3, H, W) uint8 each, all of one size.
        classes, masks: of each image's objects, (T,) int64 and (T, H, W) bool.
        predicted: the batch to predict, (3, H, W) uint8 each, all of one size.
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
    predicted: list[Tensor]

    def load_weights(self) -> dict[str, Tensor]:
        """Read ``weights.pt``."""
        return torch.load(Path(self.folder, "weights.pt"), weights_only=True)

    def autocast(self) -> contextlib.AbstractContextManager:
        """What a forward pass runs in."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=getattr(torch, self.precision))


@dataclass(frozen=True)
class Implementation:
    """A model on its device, and what can be done with it.

    Attributes:
        model: in training mode.
        loss: a forward pass of the training batch; returns the weighted sum of all losses.
        step: a whole training step, in the job's precision.
        predict: the results for ``Job.predicted``, with the model in evaluation mode; calls its
            argument when the network is done and post-processing begins.
        note: what the report has to say about it.
    """

    model: nn.Module
    loss: Callable[[], Tensor]
    step: Callable[[], object]
    predict: Callable[[Callable[[], None]], object]
    note: str = ""


def detectron2_batch(job: Job) -> list[dict[str, Any]]:
    """The training batch as detectron2's models take it."""
    from detectron2.structures import Instances  # of which Hugging Face's process has no need

    batch = []
    for image, classes, masks in zip(job.images, job.classes, job.masks, strict=True):
        instances = Instances(tuple(image.shape[-2:]), gt_classes=classes, gt_masks=masks)
        batch.append({"image": image, "instances": instances})
    return batch


def detectron2_images(job: Job) -> list[dict[str, Any]]:
    """``Job.predicted`` as detectron2's models take it; results have the images' size."""
    return [
        {"image": image, "height": image.shape[-2], "width": image.shape[-1]}
        for image in job.predicted
    ]
