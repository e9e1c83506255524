"""The momentum teacher: the moving average of the student's weights, used as a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ddep.modeling.eval_mode import eval_mode
from ddep.modeling.pixel_classifier import PixelClassifier, Predictions


class Teacher:
    """Predicts with averaged weights (Mean Teacher, arXiv 1703.01780), which are no second model.

    They are swapped into the student for each prediction.
    """

    def __init__(
        self,
        classifier: PixelClassifier,
        average_in_place: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """
        Args:
            classifier: of the student.
            average_in_place: makes a context in which the student's model has the averaged weights.
        """
        self.classifier = classifier
        self._average_in_place = average_in_place

    def predict(self, images: Tensor) -> Predictions:
        """Predict in eval mode and without gradients; afterwards the student is as before.

        May be called between the student's forward and backward pass. Autocast, if on, also holds
        here.

        Args:
            images: (B, 3, H, W), normalised and padded, on the model's device.
        """
        model = self.classifier.model
        device_type = images.device.type
        # Autocast would keep casts of the student's weights for the teacher, and the other way
        # round: it tells weights apart by their tensors, which are the same here.
        autocast = torch.autocast(
            device_type,
            dtype=torch.get_autocast_dtype(device_type),
            enabled=torch.is_autocast_enabled(device_type),
            cache_enabled=False,
        )
        with torch.no_grad(), autocast, self._average_in_place(), eval_mode(model):
            return self.classifier.predict(self.classifier.features(images))
