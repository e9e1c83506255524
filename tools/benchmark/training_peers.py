"""Official Mask2Former and Hugging Face's: models, training steps and predictions.

Nothing here imports ``ddep``: official Mask2Former registers the same names with detectron2, and
what this project takes of memory is not the peers'.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from training_job import Implementation, Job, detectron2_batch, detectron2_images

# The module of Deformable DETR's compiled operator, which users build in Mask2Former's checkout.
_OPERATOR = "MultiScaleDeformableAttention"
_DATA_SET = "benchmark"


def mask2former(job: Job) -> Implementation:
    """Official Mask2Former with the optimizer of its own ``train_net.py``.

    Raises:
        ValueError: its weights have other names than ours.
    """
    sys.path.insert(0, job.checkout)
    built = importlib.util.find_spec(_OPERATOR) is not None
    if not built:
        # Without it the package cannot be imported. If a call of the operator fails, as it does on
        # the CPU anyway, Mask2Former computes the same in plain PyTorch.
        sys.modules[_OPERATOR] = types.ModuleType(_OPERATOR)
    from detectron2.config import CfgNode, get_cfg
    from detectron2.data import MetadataCatalog
    from detectron2.modeling import build_model
    from detectron2.projects.deeplab import add_deeplab_config
    from mask2former import add_maskformer2_config

    from train_net import Trainer  # the checkout's

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_other_cfg(CfgNode(_shared_keys(_config(job), cfg)))
    # Ours may be "auto".
    cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME = "MultiScaleMaskedTransformerDecoder"
    cfg.DATASETS.TRAIN = (_DATA_SET,)
    things = {thing: thing for thing in job.thing_ids}
    MetadataCatalog.get(_DATA_SET).set(thing_dataset_id_to_contiguous_id=things)
    model = build_model(cfg)
    _load(model, job.load_weights())
    batch, images = detectron2_batch(job), detectron2_images(job)

    def loss() -> Tensor:
        return sum(model(batch).values())

    def predict(network_done: Callable[[], None]) -> object:
        hook = model.sem_seg_head.register_forward_hook(lambda *_: network_done())
        with hook:
            return model(images)

    operator = "its operator" if built and job.device == "cuda" else "its function in plain PyTorch"
    return Implementation(
        model,
        loss,
        _training_step(job, Trainer.build_optimizer(cfg, model), loss),  # which clips gradients
        predict,
        f"Mask2Former computes deformable attention by {operator}",
    )


def huggingface(job: Job, postprocess: bool = True) -> Implementation:
    """Hugging Face's Mask2Former with PyTorch's AdamW.

    Args:
        job: its images are normalised before anything is measured.
        postprocess: whether predictions go through the image processor's functions; else they are
            logits.
    """
    from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

    folder = Path(job.folder, "huggingface")
    cfg = _config(job)
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folder).to(job.device).train()
    processor = AutoImageProcessor.from_pretrained(folder)
    images = _normalised(cfg["MODEL"], job.images)
    predicted = _normalised(cfg["MODEL"], job.predicted)
    mask_labels = [masks.float() for masks in job.masks]

    def loss() -> Tensor:
        outputs = model(
            pixel_values=images.to(job.device),
            mask_labels=[masks.to(job.device) for masks in mask_labels],
            class_labels=[classes.to(job.device) for classes in job.classes],
        )
        return outputs.loss.squeeze()

    def predict(network_done: Callable[[], None]) -> object:
        outputs = model(pixel_values=predicted.to(job.device))
        network_done()
        return _results(processor, outputs, job, cfg["MODEL"]) if postprocess else outputs

    rates = {"lr": cfg["SOLVER"]["BASE_LR"], "weight_decay": cfg["SOLVER"]["WEIGHT_DECAY"]}
    parameters = list(model.parameters())
    step = _training_step(
        job,
        torch.optim.AdamW(parameters, **rates),
        loss,
        lambda: nn.utils.clip_grad_norm_(parameters, job.max_grad_norm),
    )
    return Implementation(model, loss, step, predict)


def _results(processor: Any, outputs: Any, job: Job, settings: Mapping[str, Any]) -> list[Any]:
    """All results that MODEL.MASK_FORMER.TEST asks for."""
    test = settings["MASK_FORMER"]["TEST"]
    sizes = [tuple(image.shape[-2:]) for image in job.predicted]
    results = []
    if test["SEMANTIC_ON"]:
        results += processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    if test["PANOPTIC_ON"]:
        results += processor.post_process_panoptic_segmentation(
            outputs,
            threshold=test["OBJECT_MASK_THRESHOLD"],
            overlap_mask_area_threshold=test["OVERLAP_THRESHOLD"],
            label_ids_to_fuse=set(range(settings["SEM_SEG_HEAD"]["NUM_CLASSES"]))
            - set(job.thing_ids),
            target_sizes=sizes,
        )
    if test["INSTANCE_ON"]:
        results += processor.post_process_instance_segmentation(outputs, target_sizes=sizes)
    return results


def _training_step(
    job: Job,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
    clip: Callable[[], object] | None = None,
) -> Callable[[], float]:
    """Forward, backward and optimizer, as detectron2's trainers have it; returns the loss.

    Args:
        job: its device and precision.
        optimizer, loss: of one model.
        clip: is called before the optimizer.
    """
    scaler = torch.amp.GradScaler(job.device, enabled=job.precision == "float16")

    def step() -> float:
        with job.autocast():
            total = loss()
        optimizer.zero_grad()
        scaler.scale(total).backward()
        if clip is not None:
            scaler.unscale_(optimizer)
            clip()
        scaler.step(optimizer)
        scaler.update()
        return total.item()

    return step


def _config(job: Job) -> dict[str, Any]:
    return yaml.safe_load(Path(job.folder, "config.yaml").read_text("utf-8"))


def _shared_keys(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``ours`` whose keys are in ``theirs``."""
    return {
        key: _shared_keys(value, theirs[key]) if isinstance(value, dict) else value
        for key, value in ours.items()
        if key in theirs
    }


def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict; buffers of the criterion are no weights."""
    missing, unexpected = model.load_state_dict(weights, strict=False)
    wrong = [name for name in [*missing, *unexpected] if not name.startswith("criterion.")]
    if wrong:
        raise ValueError(f"{len(wrong)} weights are not in both models, such as {wrong[0]}")


def _normalised(settings: Mapping[str, Any], images: Sequence[Tensor]) -> Tensor:
    """(3, H, W) images of equal size -> (B, 3, H, W) float32."""
    mean, std = (torch.tensor(settings[key]).view(3, 1, 1) for key in ("PIXEL_MEAN", "PIXEL_STD"))
    return (torch.stack(list(images)) - mean) / std
