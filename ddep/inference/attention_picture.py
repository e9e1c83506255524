"""One picture of what a model looked at in an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from ddep.drawing.attention import QueryRow, SamplingPanel, draw_attention
from ddep.drawing.classes import class_name
from ddep.drawing.segments import SCORE_THRESHOLD
from ddep.errors import UserError
from ddep.inference.attention import AttentionRecord, CrossAttention, record_attention
from ddep.inference.prediction import Prediction
from ddep.inference.predictor import ImageLike, Predictor
from ddep.tasks.class_names import class_names

MAX_QUERIES = 6


def attention_picture(
    predictor: Predictor, image: ImageLike, at: tuple[int, int] | None = None
) -> np.ndarray:
    """Draw what a model looks at in an image, in one pass without test-time augmentation.

    The results over the image; a row for each of the best queries with its mask or box and what it
    attends to in every layer of the transformer decoder; and where a pixel samples in every layer
    of the deformable encoder, or what it attends to in every layer of another one.

    Args:
        predictor: the model; without TEST.AUG, which leaves images in their own size.
        image: as for :class:`Predictor`.
        at: (x, y), a pixel of the image, whose sampling points or attention are drawn; None draws
            none.

    Returns:
        (H', W', 3) uint8, RGB.

    Raises:
        UserError: the model has nothing to draw, or ``at`` is outside the image.
        UnreadableImageError: the file cannot be read.
    """
    inputs = predictor.inputs(image)
    with torch.no_grad(), record_attention(predictor.model) as record:
        [outputs] = predictor.model([inputs])
    prediction = Prediction(inputs, outputs, predictor.cfg, predictor.task, predictor.metadata)
    covered = record.covered(inputs["image"].shape[-2:])
    drawn: dict[str, Any] = {}
    names = class_names(predictor.cfg) or ()
    if record.boxes is not None:
        drawn |= _boxes(record, inputs["image"].shape[-2:], names)
    elif record.mask_logits is not None:
        drawn |= _queries(predictor.model, record, inputs["image"].shape[-2:], names)
    if at is not None:
        drawn |= _pixel(record, prediction.image.shape[:2], covered, at)
    if not drawn:
        raise UserError(
            "--attention: the model has no queries; add --attention-at X,Y to see where a pixel "
            "samples in its deformable encoder"
        )
    return draw_attention(prediction.image, prediction.draw(), covered, **drawn)


def kept_queries(
    scores: Tensor, masks: Tensor, *, overlap_threshold: float, by_area: bool
) -> Tensor:
    """Find the queries that own pixels, as panoptic inference keeps them, the best first.

    Args:
        scores: (N,), the probabilities of the queries' classes.
        masks: (N, H, W), probabilities; each pixel belongs to the query with the largest product of
            both.
        overlap_threshold: the least part of its mask that a query owns.
        by_area: the largest first, instead of those with the highest scores.

    Returns:
        Numbers of queries, int64.
    """
    if len(scores) == 0:
        return scores.new_empty(0, dtype=torch.int64)
    owner = (scores[:, None, None] * masks).argmax(0)
    owned = torch.bincount(owner.flatten(), minlength=len(scores))
    areas = (masks >= 0.5).flatten(1).sum(1)
    kept = ((owned > 0) & (areas > 0) & (owned >= overlap_threshold * areas)).nonzero()[:, 0]
    order = (owned if by_area else scores)[kept].argsort(descending=True, stable=True)
    return kept[order]


def _queries(
    model: nn.Module,
    record: AttentionRecord,
    image_size: tuple[int, int],
    names: Sequence[str],
) -> dict[str, Any]:
    """Names of layers, and rows of queries; ``names`` are those of classes."""
    queries, classes, scores = _candidates(model, record)
    height, width = image_size
    masks = record.mask_logits[0, queries].float()
    if len(queries):
        masks = F.interpolate(masks[None], size=record.padded_size, mode="bilinear")[0]
    masks = masks[:, :height, :width].sigmoid()
    makes_segments = getattr(model, "panoptic_on", False) or getattr(model, "instance_on", False)
    kept = kept_queries(
        scores,
        masks,
        overlap_threshold=model.overlap_threshold if makes_segments else 0.0,
        by_area=not makes_segments,
    )[:MAX_QUERIES]
    layers = record.cross_attention(queries[kept])
    titles = []
    for index in kept.tolist():
        title = class_name(names, int(classes[index]))
        if record.class_logits is not None:
            title += f" {100 * float(scores[index]):.0f} %"
        titles.append(f"{title}, query {int(queries[index])}")
    return _rows(record, layers, titles, masks[kept] >= 0.5)


def _boxes(
    record: AttentionRecord, image_size: tuple[int, int], names: Sequence[str]
) -> dict[str, Any]:
    """As :func:`_queries`, of boxes: those that are drawn, by their scores."""
    scores, classes = record.class_logits[0].float().softmax(-1)[:, :-1].max(-1)
    order = scores.argsort(descending=True, stable=True)
    kept = order[scores[order] > SCORE_THRESHOLD][:MAX_QUERIES]
    height, width = image_size
    boxes = box_convert(record.boxes[0, kept], "cxcywh", "xyxy")
    left, top, right, bottom = (boxes * boxes.new_tensor([width, height] * 2)).unbind(1)
    rows = torch.arange(height, device=boxes.device)[:, None] + 0.5
    columns = torch.arange(width, device=boxes.device) + 0.5
    inside = (
        (rows > top[:, None, None])
        & (rows < bottom[:, None, None])
        & (columns > left[:, None, None])
        & (columns < right[:, None, None])
    )
    titles = [
        f"{class_name(names, int(classes[query]))} {100 * float(scores[query]):.0f} %, "
        f"query {query}"
        for query in kept.tolist()
    ]
    return {**_rows(record, record.cross_attention(kept), titles, inside), "region": "box"}


def _rows(
    record: AttentionRecord, layers: Sequence[CrossAttention], titles: Sequence[str], masks: Tensor
) -> dict[str, Any]:
    """Names of layers, and a row for each query; ``masks`` (N, H, W) bool."""
    rows = [
        QueryRow(
            title,
            masks[row].cpu().numpy(),
            [layer.weights[row].cpu().numpy() for layer in layers],
            [layer.allowed[row].cpu().numpy() for layer in layers],
        )
        for row, title in enumerate(titles)
    ]
    layer_names = [
        f"layer {number}, {_scale(record, layer.weights.shape[-2:])}"
        for number, layer in enumerate(layers, start=1)
    ]
    return {"layers": layer_names, "queries": rows}


def _candidates(model: nn.Module, record: AttentionRecord) -> tuple[Tensor, Tensor, Tensor]:
    """Queries that may be kept, their classes and probabilities; each (N,)."""
    if record.class_logits is None:  # a query for each class
        queries = torch.arange(record.mask_logits.shape[1], device=record.mask_logits.device)
        return queries, queries, record.mask_logits.new_ones(len(queries), dtype=torch.float32)
    logits = record.class_logits[0].float()
    scores, classes = logits.softmax(-1).max(-1)
    threshold = model.object_mask_threshold if model.panoptic_on or model.instance_on else 0.0
    # The last class is "no object".
    queries = ((classes < logits.shape[1] - 1) & (scores > threshold)).nonzero()[:, 0]
    return queries, classes[queries], scores[queries]


def _pixel(
    record: AttentionRecord,
    image_size: tuple[int, int],
    covered: tuple[float, float],
    at: tuple[int, int],
) -> dict[str, Any]:
    """The pixel, and for each layer of an encoder where it samples or what it attends to."""
    (height, width), (x, y) = image_size, at
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(
            f"--attention-at {x},{y} is outside the image, which is {width}x{height}; expected a "
            f"pixel from 0,0 to {width - 1},{height - 1}"
        )
    place = ((x + 0.5) / width * covered[1], (y + 0.5) / height * covered[0])
    maps = record.self_attention(place)
    if not record.level_sizes() and not maps:
        raise UserError(
            "--attention-at: the model has no encoder whose pixels attend to others; leave it out, "
            "or take a model with MSDeformAttnPixelDecoder, TransformerEncoderPixelDecoder or Detr"
        )
    if maps:
        return {"at": place, "pixel_maps": [weights.cpu().numpy() for weights in maps]}
    panels = [
        SamplingPanel(
            f"encoder layer {number}", layer.locations.cpu().numpy(), layer.weights.cpu().numpy()
        )
        for number, layer in enumerate(record.sampling_points(place), start=1)
    ]
    levels = [f"scale {_scale(record, size)}" for size in record.level_sizes()]
    return {"at": place, "levels": levels, "sampling": panels}


def _scale(record: AttentionRecord, size: tuple[int, int]) -> str:
    """A feature map's part of the padded image's height, such as 1/32."""
    return f"1/{round(record.padded_size[0] / size[0])}"
