"""What a model says about one image of a visitor: kept, so that settings act without the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddep.drawing.attention import heat_map
from ddep.drawing.classes import class_name
from ddep.drawing.denoising import noisy_denoised_clean, to_picture
from ddep.modeling.meta_arch.mask_former import MaskLogits
from ddep.tasks.class_names import class_names
from ddep.web.models import Model
from ddep.web.picture import LARGEST, picture_size
from ddep.web.queries import class_scores, query_of
from ddep.web.segments import (
    Palette,
    Segments,
    instance_segments,
    panoptic_segments,
    semantic_segments,
)

# Scores of classes that are kept for each pixel.
BEST_OF_PIXEL = 5
# Layers whose attention is shown: one for each scale.
ATTENTION_LAYERS = 3
PANOPTIC, SEMANTIC, INSTANCES = "panoptic", "semantic", "instances"


@dataclass(frozen=True)
class Analysis:
    """An image and what a model says about it.

    Attributes:
        model: which one.
        name: of the image.
        image: (H, W, 3) uint8, RGB.
        inputs: what the network was given; sizes of results are at most those of pictures.
        logits: of a mask classification model.
        outputs: what else is shown: ``denoised``, or ``classes``.
        views: segments by the kind of result.
        pixel_scores: of a model that classifies pixels: (5, h, w) float16 scores of the best
            classes, and (5, h, w) int16, which they are.
        thresholds: of masks, as the model's results take them.
    """

    model: Model
    name: str
    image: np.ndarray
    inputs: Mapping[str, Any]
    logits: MaskLogits | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    views: Mapping[str, Segments] = field(default_factory=dict)
    pixel_scores: tuple[np.ndarray, np.ndarray] | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)


def analyse(model: Model, name: str, image: np.ndarray, sigma: float | None = None) -> Analysis:
    """Run a model on an image.

    Args:
        model: which one.
        name: of the image.
        image: (H, W, 3) uint8, RGB.
        sigma: of the noise that a denoiser is given; None takes the config's.
    """
    inputs = {**model.inputs(image), **_size_of_results(image)}
    if sigma is not None and "sigma" in inputs:
        inputs = model.with_sigma(inputs, sigma)
    logits, outputs = model.run(inputs)
    analysis = Analysis(model, name, image, inputs, logits)
    if logits is not None:
        return with_thresholds(analysis, model.thresholds)
    scores = _best_of_pixels(outputs["sem_seg"]) if "sem_seg" in outputs else None
    kept = {key: outputs[key].cpu() for key in ("denoised", "classes") if key in outputs}
    return replace(analysis, outputs=kept, views=_views(outputs, model), pixel_scores=scores)


def with_thresholds(analysis: Analysis, thresholds: Mapping[str, float]) -> Analysis:
    """The results that kept logits give with other thresholds; the model does not run."""
    outputs = analysis.model.results(analysis.logits, **thresholds)
    return replace(analysis, views=_views(outputs, analysis.model), thresholds=dict(thresholds))


def full_outputs(analysis: Analysis) -> dict[str, Any]:
    """The model's results at the size of the image, for files."""
    height, width = analysis.image.shape[:2]
    if analysis.logits is not None:
        logits = analysis.logits._replace(output_size=(height, width))
        return analysis.model.results(logits, **analysis.thresholds)
    return analysis.model.run({**analysis.inputs, "height": height, "width": width})[1]


@dataclass(frozen=True)
class Answer:
    """What a model says about a segment.

    Attributes:
        source: where the scores are from.
        scores: the best classes with their scores, the best first.
        query: of a mask classification model, the one that the segment comes from.
    """

    source: str
    scores: list[tuple[str, float]]
    query: int | None = None


def ask(analysis: Analysis, view: str, position: int, row: int, column: int) -> Answer:
    """Ask about a segment.

    Args:
        analysis: of the image.
        view: a key of its ``views``.
        position: of the segment in that view.
        row, column: of a pixel of it.
    """
    segments = analysis.views[view]
    segment = segments.found[position]
    if analysis.logits is not None:
        query = query_of(analysis.logits, segments.mask(position), segment.class_id)
        scores = class_scores(analysis.logits, query)
        best = scores.topk(min(BEST_OF_PIXEL, len(scores)))
        names = [*numbered_names(analysis.model, len(scores) - 1), "nothing"]
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return Answer(f"query {query}", [(names[i], score) for score, i in pairs], query)
    if analysis.pixel_scores is not None and view == SEMANTIC:
        scores, classes = (values[:, row, column].tolist() for values in analysis.pixel_scores)
        names = numbered_names(analysis.model, max(classes) + 1)
        pairs = zip(scores, classes, strict=True)
        return Answer("this pixel", [(names[i], score) for score, i in pairs])
    return Answer("its score", [(segment.name, segment.score or 0.0)])


def attention_pictures(analysis: Analysis, query: int) -> list[tuple[np.ndarray, str]]:
    """Where a query looks in the last layers of the transformer decoder, with captions.

    The network runs once more: what is needed for this is too large to be kept for everybody.
    """
    layers, covered = analysis.model.attention(analysis.inputs, query)
    height, width = picture_size(analysis.image.shape[:2])
    image = np.asarray(Image.fromarray(analysis.image).resize((width, height)))
    first = max(0, len(layers) - ATTENTION_LAYERS)
    return [
        (
            heat_map(
                image, layer.weights[0].cpu().numpy(), layer.allowed[0].cpu().numpy(), covered
            ),
            f"layer {number}",
        )
        for number, layer in enumerate(layers[first:], start=first + 1)
    ]


def triptych(analysis: Analysis) -> tuple[list[np.ndarray], tuple[float, float]]:
    """A denoiser's result.

    Returns:
        The noisy, the denoised and the clean image, (H, W, 3) uint8, RGB; and the PSNR of the first
        two in decibels.
    """
    cfg = analysis.model.cfg
    mean, std = (
        torch.tensor(values).view(-1, 1, 1)
        for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    versions = noisy_denoised_clean(
        analysis.inputs, analysis.outputs, cfg.MODEL.DDEP.NOISE, mean, std
    )
    errors = [(version - versions[2]).square().mean().item() for version in versions[:2]]
    noisy, denoised = (10 * np.log10(255**2 / max(error, 1e-10)) for error in errors)
    pictures = [to_picture(version, cfg.INPUT.FORMAT) for version in versions]
    return [picture.permute(1, 2, 0).numpy() for picture in pictures], (noisy, denoised)


def numbered_names(model: Model, count: int) -> list[str]:
    """Names of the first ``count`` classes; those without one are called by their number."""
    names = class_names(model.cfg) or ()
    return [class_name(names, number).strip() for number in range(count)]


def _size_of_results(image: np.ndarray) -> dict[str, int]:
    """Height and width of the image, reduced to the size of the page's pictures."""
    height, width = image.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    return {"height": max(1, round(height * scale)), "width": max(1, round(width * scale))}


def _views(outputs: Mapping[str, Any], model: Model) -> dict[str, Segments]:
    palette = Palette(model.metadata)
    views = {}
    if "panoptic_seg" in outputs:
        views[PANOPTIC] = panoptic_segments(*outputs["panoptic_seg"], palette)
    if "sem_seg" in outputs:
        views[SEMANTIC] = semantic_segments(outputs["sem_seg"].argmax(0), palette)
    if "instances" in outputs:
        views[INSTANCES] = instance_segments(outputs["instances"], palette)
    return views


def _best_of_pixels(sem_seg: Tensor) -> tuple[np.ndarray, np.ndarray]:
    best = sem_seg.softmax(0).topk(min(BEST_OF_PIXEL, len(sem_seg)), dim=0)
    return best.values.half().cpu().numpy(), best.indices.short().cpu().numpy()
