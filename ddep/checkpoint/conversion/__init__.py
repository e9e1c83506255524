"""Turning checkpoints of other projects into ones that MODEL.WEIGHTS takes.

Every format is a module with ``recognises(weights)``, ``target_name(name)`` and
``config_of(weights)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from ddep.checkpoint.conversion import pretraining, swin, torchvision_resnet
from ddep.errors import UserError

FORMATS: dict[str, ModuleType] = {
    "swin": swin,
    "torchvision-resnet": torchvision_resnet,
    "ddep": pretraining,
}


@dataclass
class Conversion:
    """A converted state dict.

    Attributes:
        weights: name in the whole model -> tensor.
        matched: name in the source -> name in the whole model.
        unused: names in the source that nothing takes.
        config: the config keys and values that describe the model that the weights belong to; empty
            if they do not tell.
    """

    weights: dict[str, torch.Tensor]
    matched: dict[str, str]
    unused: list[str]
    config: dict[str, Any]

    def missing(self, expected: dict[str, tuple[int, ...]]) -> list[str]:
        """Names in ``expected`` (name -> shape) that have no weight.

        Raises:
            UserError: a weight has another shape than is expected, or is not expected at all: the
                source only resembles its format.
        """
        for name, tensor in self.weights.items():
            if expected.get(name) != tuple(tensor.shape):
                raise UserError(
                    f"{name} would have shape {tuple(tensor.shape)}, and the model that the other "
                    f"weights describe takes {expected.get(name, 'no such weight')}; the file is "
                    "of another format than it seems"
                )
        return [name for name in expected if name not in self.weights]


def convert(weights: dict[str, torch.Tensor], format_name: str) -> Conversion:
    """Rename ``weights``, and drop what has no place.

    Args:
        weights: the source's state dict.
        format_name: a key of FORMATS, or "auto".

    Raises:
        UserError: the weights are not of that format, or of none.
    """
    candidates = FORMATS if format_name == "auto" else {format_name: FORMATS[format_name]}
    form = next((form for form in candidates.values() if form.recognises(weights)), None)
    if form is None:
        raise UserError(
            f"nothing matches the format {' or '.join(candidates)}; found {len(weights)} weights: "
            f"{', '.join(list(weights)[:4])}, ...; convert an original Swin checkpoint, "
            "torchvision's ResNet or this project's own, and name a file whose weights already "
            "have this project's names, or one of detectron2's zoo, in MODEL.WEIGHTS as it is"
        )
    matched = {name: form.target_name(name) for name in weights}
    unused = [name for name, target in matched.items() if target is None]
    matched = {name: target for name, target in matched.items() if target is not None}
    return Conversion(
        weights={target: weights[name] for name, target in matched.items()},
        matched=matched,
        unused=unused,
        config=form.config_of(weights),
    )
