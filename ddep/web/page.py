"""The page: an image in, what a model sees in it out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ddep.errors import UserError, one_line
from ddep.web.analysis import analyse, ask, attention_pictures, with_thresholds
from ddep.web.downloads import write_results
from ddep.web.layout import FORGET_AFTER, WELCOME, Layout, say, thumbnails
from ddep.web.legend import legend_of
from ddep.web.models import Model, Models
from ddep.web.picture import pixel_at
from ddep.web.segments import NOTHING
from ddep.web.updates import Updates, show, show_new, show_sliders
from ddep.web.uploads import Limits, read_upload
from ddep.web.visit import Visit

logger = logging.getLogger(__name__)

TITLE = "Decoder denoising pretraining"


class Page:
    """Builds the page for some models.

    Args:
        models: to choose from; the first is loaded at once.
        limits: of uploads.

    Attributes:
        blocks: what Gradio serves.

    Raises:
        UserError: the first model cannot be loaded.
    """

    def __init__(self, models: Models, limits: Limits) -> None:
        self._models = models
        self._limits = limits
        first = models.get(models.names[0])
        with gr.Blocks(
            title=TITLE, analytics_enabled=False, delete_cache=(600, FORGET_AFTER)
        ) as self.blocks:
            self._at = Layout(models.names, first)
            self._connect()

    def _connect(self) -> None:
        at = self._at

        def on(
            trigger: Callable,
            act: Callable,
            *inputs: Any,
            needs_visit: bool | None = None,
            **options: Any,
        ) -> None:
            if needs_visit is None:
                needs_visit = at.visit in inputs
            trigger(
                self._in_page(act, needs_visit),
                inputs=list(inputs),
                outputs=at.everything,
                api_visibility="private",
                show_progress_on=at.message,
                **options,
            )

        latest = {"trigger_mode": "always_last", "show_progress": "hidden"}
        on(at.upload.upload, self._run_upload, at.upload, at.model)
        on(at.upload.clear, self._forget)
        on(at.examples.select, self._run_example, at.model)
        on(at.model.input, self._choose_model, at.visit, at.model, needs_visit=False)
        on(at.view.input, self._choose_view, at.visit, at.view)
        on(at.legend.input, self._switch_classes, at.visit, at.legend, **latest)
        for slider in (at.mask_threshold, at.overlap):
            thresholds = (at.mask_threshold, at.overlap)
            on(slider.input, self._set_thresholds, at.visit, *thresholds, **latest)
        on(at.min_score.input, self._set_min_score, at.visit, at.min_score, **latest)
        on(at.sigma.input, self._set_sigma, at.visit, at.sigma, **latest)
        on(at.picture.select, self._select, at.visit, show_progress="hidden")
        on(at.save.click, self._write_files, at.visit)

    def _in_page(self, act: Callable[..., Updates], needs_visit: bool) -> Callable[..., Updates]:
        """What fails leaves everything as it was, and says why in one line of the page."""

        @wraps(act)  # Gradio looks for parameters that take an event
        def acted(*arguments: Any) -> Updates:
            try:
                if needs_visit and arguments[0] is None:
                    raise UserError("the page no longer has the image; send it again")
                return act(*arguments)
            except UserError as error:
                line = one_line(error)
            except Exception as error:
                logger.exception("a visitor's action failed")
                line = f"this did not work ({type(error).__name__}); the server's log says more"
            return {self._at.message: say(line, is_error=True)}

        return acted

    def _model(self, name: str) -> Model:
        """A model; where it cannot be loaded, visitors are not told the server's paths."""
        try:
            return self._models.get(name)
        except UserError as error:
            logger.error("%s", one_line(error))
            raise UserError("this model cannot be loaded; the server's log says why") from error

    # What visitors do

    def _run_upload(self, path: str, model: str) -> Updates:
        name = Path(path).name
        return self._run(self._model(model), name, read_upload(path, name, self._limits))

    def _run_example(self, model: str, event: gr.SelectData) -> Updates:
        chosen = self._model(model)
        name, image = chosen.example(event.index)
        return {self._at.upload: image, **self._run(chosen, name, image)}

    def _choose_model(self, visit: Visit | None, name: str) -> Updates:
        model = self._model(name)
        examples = gr.update(value=thumbnails(model), visible=bool(model.examples))
        if visit is None:
            return {self._at.examples: examples}
        analysis = visit.analysis
        return {self._at.examples: examples, **self._run(model, analysis.name, analysis.image)}

    def _run(self, model: Model, name: str, image: np.ndarray) -> Updates:
        """Run a model on a new image: everything starts anew."""
        analysis = analyse(model, name, image)
        visit = Visit(analysis, next(iter(analysis.views), ""))
        return show_new(self._at, visit)

    def _forget(self) -> Updates:
        return {
            self._at.visit: None,
            self._at.message: say(WELCOME),
            **{component: gr.update(visible=False) for component in self._at.results},
        }

    def _choose_view(self, visit: Visit, view: str) -> Updates:
        visit = replace(visit, view=view, selected=NOTHING)
        return show(self._at, visit) | show_sliders(self._at, visit)

    def _switch_classes(self, visit: Visit, shown: list[str]) -> Updates:
        listed = {entry.name for entry in legend_of(visit.segments, visit.min_score_of_view)}
        # Those that are not listed at this moment stay as they were.
        hidden = (visit.hidden - listed) | (listed - set(shown))
        return show(self._at, replace(visit, hidden=hidden, selected=NOTHING), legend=False)

    def _set_thresholds(self, visit: Visit, mask_threshold: float, overlap: float) -> Updates:
        analysis = with_thresholds(
            visit.analysis,
            {"object_mask_threshold": mask_threshold, "overlap_threshold": overlap},
        )
        return show(self._at, replace(visit, analysis=analysis, selected=NOTHING))

    def _set_min_score(self, visit: Visit, min_score: float) -> Updates:
        return show(self._at, replace(visit, min_score=min_score, selected=NOTHING))

    def _set_sigma(self, visit: Visit, sigma: float) -> Updates:
        before = visit.analysis
        return show(self._at, Visit(analyse(before.model, before.name, before.image, sigma)))

    def _select(self, visit: Visit, event: gr.SelectData) -> Updates:
        seen = visit.seen()
        row, column = pixel_at(*event.index, visit.analysis.image.shape[:2], seen.shape)
        position = int(seen[row, column])
        visit = replace(visit, selected=position)
        if position == NOTHING:
            return {
                **show(self._at, visit, legend=False),
                self._at.message: say("Nothing is there."),
            }
        segment = visit.segments.found[position]
        answer = ask(visit.analysis, visit.view, position, row, column)
        facts = [segment.name, f"{100 * segment.area / seen.size:.1f} % of the image"]
        if segment.score is not None:
            facts.append(f"score {segment.score:.2f}")
        updates = {
            **show(self._at, visit, legend=False),
            self._at.message: say(", ".join(facts) + f"; scores of {answer.source}"),
            self._at.scores: gr.update(
                value=dict(answer.scores), label=f"{segment.name}: {answer.source}", visible=True
            ),
        }
        if answer.query is not None:
            pictures = attention_pictures(visit.analysis, answer.query)
            updates[self._at.attention] = gr.update(value=pictures, visible=True)
        return updates

    def _write_files(self, visit: Visit) -> Updates:
        picture = visit.picture(visit.analysis.image.shape[:2])
        files = write_results(visit.analysis, picture)
        return {self._at.files: gr.update(value=files, visible=True)}
