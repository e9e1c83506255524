"""What the components of the page show for a visit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ddep.drawing.classes import class_name
from ddep.web.analysis import INSTANCES, PANOPTIC, triptych
from ddep.web.layout import LEGEND, Layout, say
from ddep.web.legend import legend_of, style_of
from ddep.web.picture import picture_size
from ddep.web.visit import Visit

Updates = dict[Any, Any]


def show_new(at: Layout, visit: Visit) -> Updates:
    """Updates after a model has run: the components for what it predicts, and what they show."""
    analysis = visit.analysis
    return {
        at.picture: gr.update(visible=False),
        at.view: gr.update(
            choices=list(analysis.views), value=visit.view, visible=len(analysis.views) > 1
        ),
        at.triptych: gr.update(visible="denoised" in analysis.outputs),
        at.sigma: gr.update(
            value=round(analysis.inputs.get("sigma", 0.5), 2),
            visible="denoised" in analysis.outputs,
        ),
        at.classes: gr.update(visible=False),
        at.save: gr.update(visible=True),
        **show(at, visit),
        **show_sliders(at, visit),
    }


def show(at: Layout, visit: Visit, *, legend: bool = True) -> Updates:
    """Updates after a change of anything.

    Args:
        at: the components.
        visit: what is to be seen.
        legend: whether the classes of the legend may have changed.
    """
    analysis, segments = visit.analysis, visit.segments
    updates: Updates = {
        at.visit: visit,
        at.message: say(visit.summary()),
        at.scores: gr.update(visible=False),
        at.attention: gr.update(value=None, visible=False),
        at.files: gr.update(value=None, visible=False),
    }
    if segments is not None:
        size = picture_size(analysis.image.shape[:2])
        updates[at.picture] = gr.update(value=visit.picture(size), visible=True)
    if legend:
        updates |= _legend(at, visit)
    if "denoised" in analysis.outputs:
        pictures, _ = triptych(analysis)
        updates |= dict(zip(at.versions, map(_enlarged, pictures), strict=True))
    if "classes" in analysis.outputs:
        names = analysis.model.metadata.get("classes") or ()
        scores = _named(analysis.outputs["classes"].tolist(), names)
        updates[at.classes] = gr.update(value=scores, visible=True)
    return updates


def _legend(at: Layout, visit: Visit) -> Updates:
    segments = visit.segments
    entries = legend_of(segments, visit.min_score_of_view) if segments else []
    return {
        at.style: style_of(entries, LEGEND),
        at.legend: gr.update(
            choices=[(entry.text, entry.name) for entry in entries],
            value=[entry.name for entry in entries if entry.name not in visit.hidden],
            visible=segments is not None,
        ),
    }


def show_sliders(at: Layout, visit: Visit) -> Updates:
    """Updates of the sliders that act on the view, to what acts at the moment.

    Sliders that are being moved get none: they would jump back.
    """
    thresholds = visit.analysis.thresholds
    acts_on_masks = visit.view == PANOPTIC and bool(thresholds)
    updates: Updates = {
        at.min_score: gr.update(value=visit.min_score, visible=visit.view == INSTANCES)
    }
    for slider, name in (
        (at.mask_threshold, "object_mask_threshold"),
        (at.overlap, "overlap_threshold"),
    ):
        updates[slider] = gr.update(value=thresholds.get(name, 0), visible=acts_on_masks)
    return updates


def _enlarged(picture: np.ndarray) -> np.ndarray:
    height, width = picture_size(picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST))


def _named(scores: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    """Scores by the names of classes; those without a name are called by their number."""
    return {class_name(names, number): score for number, score in enumerate(scores)}
