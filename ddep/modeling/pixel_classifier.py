"""Semantic models in parts: images, features, predictions of each pixel's class, losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn


class Predictions:
    """What a decoder says about a batch of B images.

    Attributes:
        outputs: of the decoder, for :meth:`PixelClassifier.losses`.
        log_probabilities: (B, K, h, w) float32 each: the logarithm of the probability of each class
            at each pixel, at the decoder's resolution. The last layer comes first, then the ones
            before it that predict, back to the first. Each is computed when it is first asked for.
        embeddings: (B, C, h, w): the features that pixels are classified by.
    """

    def __init__(
        self, outputs: Any, log_probabilities: Sequence[Tensor], embeddings: Tensor
    ) -> None:
        self.outputs = outputs
        self.log_probabilities = log_probabilities
        self.embeddings = embeddings


class _Layers(Sequence[Tensor]):
    """Tensors that are computed from the outputs of layers when they are first asked for."""

    def __init__(self, layers: Sequence[Any], compute: Callable[[Any], Tensor]) -> None:
        self._layers = layers
        self._compute = compute
        self._computed: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index not in self._computed:
            self._computed[index] = self._compute(self._layers[index])
        return self._computed[index]


class PixelClassifier(ABC):
    """A model whose parts can be called one by one, so that losses of one's own can be added.

    It holds no weights of its own and is not a module.
    """

    def __init__(self, model: nn.Module, *, num_classes: int, ignore_label: int) -> None:
        """
        Args:
            model: has ``backbone``, ``sem_seg_head``, ``pixel_mean`` and ``pixel_std``.
            num_classes: K.
            ignore_label: label of pixels that do not count.
        """
        self.model = model
        self.num_classes = num_classes
        self.ignore_label = ignore_label

    @property
    def num_layers(self) -> int:
        """Length of :attr:`Predictions.log_probabilities` in training."""
        return getattr(self.model.sem_seg_head.predictor, "num_predictions", 1)

    @property
    @abstractmethod
    def _size_divisibility(self) -> int:
        """What the sides of a batch are padded to a multiple of."""

    def images(self, batched_inputs: Sequence[Mapping[str, Any]], key: str = "image") -> ImageList:
        """Normalise images and pad them to one size, on the model's device.

        Args:
            batched_inputs: a dict per image, with (3, H, W) under ``key``, 0..255.
            key: which of a sample's images.
        """
        return self.batch_images([inputs[key] for inputs in batched_inputs])

    def batch_images(self, images: Sequence[Tensor]) -> ImageList:
        """As :meth:`images`, of (3, H, W) each, 0..255."""
        mean, std = self.model.pixel_mean, self.model.pixel_std
        normalised = [(image.to(mean.device) - mean) / std for image in images]
        return ImageList.from_tensors(normalised, self._size_divisibility)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The encoder's features of normalised images (B, 3, H, W)."""
        return self.model.backbone(images)

    @abstractmethod
    def predict(self, features: dict[str, Tensor]) -> Predictions:
        """Decode :meth:`features`."""

    @abstractmethod
    def losses(
        self,
        predictions: Predictions,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        normalisers: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        """The model's own losses, weighted, as its ``forward`` computes them.

        Args:
            predictions: of :meth:`predict` for ``images``.
            batched_inputs: the labelled samples.
            images: from :meth:`images` for ``batched_inputs``.
            normalisers: as the model's ``forward`` takes them; None if it takes none.
        """


class QueryClassifier(PixelClassifier):
    """MaskFormer and Mask2Former.

    The probability of class k at a pixel is the sum over queries of the query's probability of k
    times the sigmoid of its mask there (arXiv 2107.06278, section 3.4), divided by the sum over
    the K classes.
    """

    @property
    def _size_divisibility(self) -> int:
        return self.model.size_divisibility

    def predict(self, features: dict[str, Tensor]) -> Predictions:
        """As :meth:`PixelClassifier.predict`."""
        head = self.model.sem_seg_head
        with _InputsOf(head.predictor) as inputs:
            outputs = head(features)
        layers = [outputs, *reversed(outputs.get("aux_outputs", []))]
        return Predictions(outputs, _Layers(layers, _of_queries), inputs.positional[1])

    def losses(
        self,
        predictions: Predictions,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        normalisers: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        """As :meth:`PixelClassifier.losses`."""
        return self.model.losses(predictions.outputs, batched_inputs, images, normalisers)


class PixelwiseClassifier(PixelClassifier):
    """detectron2's SemanticSegmentor with a head that has ``layers`` and ``losses``."""

    @property
    def _size_divisibility(self) -> int:
        return self.model.backbone.size_divisibility

    def predict(self, features: dict[str, Tensor]) -> Predictions:
        """As :meth:`PixelClassifier.predict`."""
        head = self.model.sem_seg_head
        with _InputsOf(head.predictor) as inputs:
            outputs = head.layers(features)
        last, *earlier = outputs if isinstance(outputs, list) else [outputs]
        layers = [last, *reversed(earlier)]
        return Predictions(outputs, _Layers(layers, _of_logits), inputs.positional[-1])

    def losses(
        self,
        predictions: Predictions,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        normalisers: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        """As :meth:`PixelClassifier.losses`."""
        targets = ImageList.from_tensors(
            [inputs["sem_seg"].to(images.device) for inputs in batched_inputs],
            self._size_divisibility,
            self.ignore_label,
        )
        return self.model.sem_seg_head.losses(predictions.outputs, targets.tensor)


def valid_pixels(images: ImageList, size: tuple[int, int]) -> Tensor:
    """Which pixels of maps over padded images show their image.

    Args:
        images: padded to (H, W) at the bottom and on the right.
        size: h, w of the maps.

    Returns:
        (B, h, w) bool: whether the pixel's centre lies in the image.
    """
    padded, device = images.tensor.shape[-2:], images.tensor.device
    sizes = torch.tensor(images.image_sizes, device=device)
    inside = [
        (torch.arange(length, device=device) + 0.5) * (full / length) < sizes[:, axis, None]
        for axis, (length, full) in enumerate(zip(size, padded, strict=True))
    ]
    return inside[0][:, :, None] & inside[1][:, None, :]


def _of_logits(logits: Tensor) -> Tensor:
    return _at_least_float32(logits).log_softmax(1)


def _of_queries(layer: Mapping[str, Tensor]) -> Tensor:
    """``pred_logits`` (B, Q, K+1), ``pred_masks`` (B, Q, h, w) -> (B, K, h, w)."""
    with torch.autocast(layer["pred_logits"].device.type, enabled=False):
        classes = _at_least_float32(layer["pred_logits"]).softmax(-1)[..., :-1]
        masks = _at_least_float32(layer["pred_masks"]).sigmoid()
        scores = torch.einsum("bqk,bqhw->bkhw", classes, masks)
        scores = scores.clamp_min(torch.finfo(scores.dtype).tiny)
        return scores.log() - scores.sum(1, keepdim=True).log()


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _InputsOf:
    """Inside the ``with`` block, keeps the arguments of a module's latest call."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.positional: tuple[Any, ...] = ()

    def __enter__(self) -> _InputsOf:
        self._handle = self._module.register_forward_pre_hook(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _keep(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.positional = arguments
