"""A model with a whitened ResNet in training, whose losses include the whitening loss."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ddep.data.photometric import build_photometric
from ddep.data.seeding import seeded
from ddep.modeling.backbone.whitened_resnet import early_features, whitening_layers
from ddep.modeling.eval_mode import eval_mode
from ddep.modeling.whitening import SelectiveWhitening, covariance

_IMAGES = "whitened_images"
Normalisers = Callable[[list[dict[str, Any]]], dict[str, float]]


class WhitenedModel(nn.Module):
    """Maps a batch to losses, the whitening loss included; for training only.

    The loss is a mean over all images that go through the ResNet with gradients. With
    MODEL.ADAPTATION, these are the labelled images and the target images that the student sees.

    Attributes:
        model: what else computes losses.
        whitening: measures and has the masks.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        trained: nn.Module,
        normalisers: Normalisers | None,
    ) -> None:
        """
        Args:
            cfg: the whole config.
            model: has ``backbone``, a whitened ResNet, ``pixel_mean`` and ``pixel_std``.
            trained: maps a batch to losses: ``model``, or what has it inside.
            normalisers: of ``trained``; see :meth:`ddep.tasks.Task.normalisers`.
        """
        super().__init__()
        isw = cfg.MODEL.ISW
        self.model = trained
        self._normalisers = normalisers
        self._weight = isw.WEIGHT
        # In a list, so that it is not a module of this one a second time.
        self._inner = [model]
        self._layers = whitening_layers(model.backbone)
        self._change = build_photometric(
            color_jitter=isw.COLOR_JITTER,
            jitter_probability=1.0,
            gray_probability=0.0,
            blur_sigma=isw.BLUR_SIGMA,
            blur_probability=1.0,
            image_format=cfg.INPUT.FORMAT,
        )
        self.whitening = SelectiveWhitening(
            [layer.num_features for layer in self._layers],
            clusters=isw.CLUSTERS,
            start=isw.START_ITER,
            measured_steps=isw.MEASURED_ITERS,
            device=model.pixel_mean.device,
        )

    def normalisers(self, batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """What the losses of a batch are averaged over: the model's counts, and images."""
        own = self._normalisers(batched_inputs) if self._normalisers else {}
        return {**own, _IMAGES: len(batched_inputs)}

    def forward(
        self, batched_inputs: list[dict[str, Any]], normalisers: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch, or of a part of it.

        Args:
            batched_inputs: samples with ``image`` (3, H, W) uint8 and what the model needs.
            normalisers: the totals of :meth:`normalisers` over the whole batch.
        """
        if self.whitening.measures:
            for inputs in batched_inputs:
                self._measure(inputs["image"])
        arguments = {"normalisers": normalisers} if self._normalisers else {}
        with self._covariances(self.whitening.has_loss) as found:
            losses = self.model(batched_inputs, **arguments)
        share = len(batched_inputs) / normalisers[_IMAGES]
        if not self._normalisers:  # they are means over this part
            losses = {name: loss * share.to(loss.dtype) for name, loss in losses.items()}
        if not self.whitening.has_loss:
            return losses
        loss = self.whitening.loss([torch.cat(of_layer) for of_layer in found])
        return {**losses, "loss_whitening": self._weight * share.to(loss.dtype) * loss}

    @torch.no_grad()
    def _measure(self, image: Tensor) -> None:
        """Measure an image, (3, H, W) uint8, and its photometric transform."""
        [model] = self._inner
        # Depends on nothing but the image: any number of processes and parts does the same.
        with seeded(zlib.crc32(image.numpy().tobytes()), 0):
            image = image.to(model.pixel_mean.device)
            pair = torch.stack([image, self._change(image)])
        backbone = model.backbone
        with eval_mode(backbone), self._covariances(True) as found:
            early_features(backbone, (pair - model.pixel_mean) / model.pixel_std)
        self.whitening.measure([torch.cat(of_layer) for of_layer in found])

    @contextlib.contextmanager
    def _covariances(self, wanted: bool) -> Iterator[list[list[Tensor]]]:
        """Inside, gathers each layer's covariances, a list of (B, C, C) for each layer.

        When gradients are on, only what has them counts: not a teacher's.
        """
        found: list[list[Tensor]] = [[] for _ in self._layers]
        with_gradients = torch.is_grad_enabled()
        handles = []

        def gather_for(of_layer: list[Tensor]) -> Callable[..., Tensor | None]:
            def gather(_: nn.Module, __: Any, features: Tensor) -> Tensor | None:
                if torch.is_grad_enabled() != with_gradients:
                    return None
                of_layer.append(covariance(features))
                # What comes next changes the features in place, which the gradient needs.
                return features.clone()

            return gather

        if wanted:
            handles = [
                layer.register_forward_hook(gather_for(of_layer))
                for layer, of_layer in zip(self._layers, found, strict=True)
            ]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()
