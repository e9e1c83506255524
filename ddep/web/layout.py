"""Where things are on the page."""

from __future__ import annotations

import html
from collections.abc import Sequence

import gradio as gr
from PIL import Image

from ddep.web.models import Model
from ddep.web.upload_image import upload_image

LEGEND = "legend"
THUMBNAIL = 160
# Seconds after which a visitor's image is forgotten.
FORGET_AFTER = 1800
WELCOME = "Drop an image or choose an example."


class Layout:
    """The components of the page, made inside ``gr.Blocks``; what has no value yet is hidden.

    Args:
        names: of the models to choose from.
        first: the model that is chosen.
    """

    def __init__(self, names: Sequence[str], first: Model) -> None:
        self.visit = gr.State(None, time_to_live=FORGET_AFTER)
        self.style = gr.HTML(padding=False, elem_id="legend-style")
        self.model = gr.Dropdown(
            names,
            value=first.name,
            label="Model",
            interactive=len(names) > 1,
            elem_id="model",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self.upload = upload_image(
                    label="Image",
                    sources=["upload", "clipboard"],
                    height=260,
                    elem_id="upload",
                )
                self.examples = gr.Gallery(
                    thumbnails(first),
                    label="Examples",
                    visible=bool(first.examples),
                    columns=4,
                    height="auto",
                    allow_preview=False,
                    object_fit="cover",
                    interactive=False,
                    buttons=[],
                    elem_id="examples",
                )
            with gr.Column(scale=5, min_width=320):
                self.message = gr.HTML(say(WELCOME), elem_id="message", padding=False)
                self.picture = gr.Image(
                    label="Result: click a segment to ask about it",
                    format="png",
                    interactive=False,
                    visible=False,
                    buttons=["fullscreen"],
                    elem_id="picture",
                )
                with gr.Row(visible=False, elem_id="triptych") as self.triptych:
                    self.versions = [
                        gr.Image(
                            label=label,
                            format="png",
                            interactive=False,
                            min_width=180,
                            buttons=["fullscreen"],
                            elem_id=label,
                        )
                        for label in ("noisy", "denoised", "clean")
                    ]
                self.attention = gr.Gallery(
                    label="Where the query looks",
                    visible=False,
                    columns=3,
                    object_fit="contain",
                    height="auto",
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="attention",
                )
                self.classes = gr.Label(
                    label="Classes", visible=False, num_top_classes=5, elem_id="classes"
                )
            with gr.Column(scale=2, min_width=260):
                self.view = gr.Radio(label="Show", visible=False, interactive=True, elem_id="view")
                self.legend = gr.CheckboxGroup(
                    label="Classes", visible=False, interactive=True, elem_id=LEGEND
                )
                self.mask_threshold = _slider("Object mask threshold", "mask-threshold")
                self.overlap = _slider("Overlap threshold", "overlap")
                self.min_score = _slider("Score threshold", "min-score")
                self.sigma = gr.Slider(
                    0.05,
                    2,
                    step=0.01,
                    label="σ of the noise",
                    visible=False,
                    interactive=True,
                    elem_id="sigma",
                )
                self.scores = gr.Label(
                    label="Segment", visible=False, num_top_classes=5, elem_id="scores"
                )
                self.save = gr.Button("Results as files", visible=False, elem_id="save")
                self.files = gr.File(
                    label="Files", file_count="multiple", visible=False, elem_id="files"
                )

    @property
    def results(self) -> list[gr.blocks.Block]:
        """The components that a result makes visible."""
        sliders = [self.mask_threshold, self.overlap, self.min_score, self.sigma]
        shown = [self.picture, self.triptych, self.classes, self.view, self.legend]
        return [*shown, *sliders, self.attention, self.scores, self.save, self.files]

    @property
    def everything(self) -> list[gr.blocks.Block]:
        """All that visitors' actions may change."""
        others = [self.visit, self.style, self.upload, self.examples, self.message]
        return [*others, *self.versions, *self.results]


def say(text: str, *, is_error: bool = False) -> str:
    """A line of the page, as HTML."""
    role = "alert" if is_error else "status"
    return f'<p role="{role}">{html.escape(text)}</p>'


def thumbnails(model: Model) -> list[Image.Image]:
    """Small pictures of a model's examples."""
    thumbnails = []
    for position in range(len(model.examples)):
        thumbnail = Image.fromarray(model.example(position)[1])
        thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
        thumbnails.append(thumbnail)
    return thumbnails


def _slider(label: str, element: str) -> gr.Slider:
    return gr.Slider(0, 1, step=0.01, label=label, visible=False, interactive=True, elem_id=element)
