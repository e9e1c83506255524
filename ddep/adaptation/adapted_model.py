"""A semantic model in training, with the losses of target images beside its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ddep.adaptation.method import AdaptationBatch, Method
from ddep.adaptation.teacher import Teacher
from ddep.errors import UserError
from ddep.modeling.pixel_classifier import PixelClassifier

_SOURCE, _TARGET = "source_images", "target_images"


class AdaptedModel(nn.Module):
    """Maps a batch of labelled and target images to losses; for training only.

    Attributes:
        model: what is adapted; its weights keep their names.
        method: its parameters are trained with the model's, by an optimizer of their own.
    """

    def __init__(
        self,
        classifier: PixelClassifier,
        method: Method,
        teacher: Teacher | None,
        model_normalisers: Callable[[list[dict[str, Any]]], dict[str, float]] | None,
    ) -> None:
        """
        Args:
            classifier: the model in parts.
            method: on the model's device.
            teacher: None unless there is an average of the weights.
            model_normalisers: :meth:`ddep.tasks.Task.normalisers` of the model.
        """
        super().__init__()
        self.model = classifier.model
        self.method = method
        self._classifier = classifier
        self._teacher = teacher
        self._model_normalisers = model_normalisers

    def normalisers(self, batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """What the losses of a batch are averaged over: the model's counts, and images."""
        source, target = _by_domain(batched_inputs)
        own = self._model_normalisers(source) if self._model_normalisers else {}
        return {**own, _SOURCE: len(source), _TARGET: len(target)}

    def forward(
        self, batched_inputs: list[dict[str, Any]], normalisers: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch, or of a part of it.

        Args:
            batched_inputs: samples of both domains in any order; those of the target have
                ``is_target``.
            normalisers: the totals of :meth:`normalisers` over the whole batch.
        """
        source, target = _by_domain(batched_inputs)
        images = self._classifier.images(source)
        predictions = self._classifier.predict(self._classifier.features(images.tensor))
        own = normalisers if self._model_normalisers else None
        losses = self._classifier.losses(predictions, source, images, own)
        if own is None:  # they are means over this part
            share = len(source) / normalisers[_SOURCE]
            losses = {name: loss * share.to(loss.dtype) for name, loss in losses.items()}
        batch = AdaptationBatch(
            classifier=self._classifier,
            teacher=self._teacher,
            source=source,
            target=target,
            source_images=images,
            source_predictions=predictions,
            source_count=normalisers[_SOURCE],
            target_count=normalisers[_TARGET],
        )
        return {**losses, **self.method.losses(batch)}


class MethodState:
    """What checkpoints hold of a method: its name, parameters and buffers."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def state_dict(self) -> dict[str, Any]:
        """``method``: its name; ``model``: its tensors."""
        return {"method": self._method.name, "model": self._method.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            UserError: it is another method's, or its tensors have other names or shapes.
        """
        if state["method"] != self._method.name:
            raise UserError(
                f"the run had MODEL.ADAPTATION.METHOD {state['method']}, not {self._method.name}; "
                "--resume needs the config that the run was started with"
            )
        try:
            self._method.load_state_dict(state["model"])
        except RuntimeError as error:
            raise UserError(
                f"the run's MODEL.ADAPTATION {self._method.name} had other sizes; --resume needs "
                "the config that the run was started with"
            ) from error


def _by_domain(
    batched_inputs: list[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Labelled and target samples, each in their order."""
    source = [inputs for inputs in batched_inputs if not inputs.get("is_target")]
    return source, [inputs for inputs in batched_inputs if inputs.get("is_target")]
