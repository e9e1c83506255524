"""Run a trained model on image files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from ddep.checkpoint import Checkpointer
from ddep.data.datasets.custom import register_custom_sets
from ddep.data.mappers import build_mapper
from ddep.errors import UserError
from ddep.tasks import task_of


class Predictor:
    """A trained model in evaluation mode, with the mapper that evaluation uses.

    Args:
        cfg: a config with MODEL.WEIGHTS set.

    Raises:
        UserError: MODEL.WEIGHTS is empty, does not exist or lacks weights of the model, or the
            names of the model's classes are not known.
    """

    def __init__(self, cfg: CfgNode) -> None:
        if not cfg.MODEL.WEIGHTS:
            raise UserError(
                "MODEL.WEIGHTS is empty; add MODEL.WEIGHTS and the path of a trained checkpoint"
            )
        register_custom_sets(cfg)
        self._task = task_of(cfg)
        self._metadata = self._task.class_metadata(cfg)
        self._cfg = cfg
        self.model = build_model(cfg).eval()
        checkpointer = Checkpointer(self.model)
        checkpointer.load(cfg.MODEL.WEIGHTS)
        absent = checkpointer.absent_parameters()
        if absent:
            raise UserError(
                f"{cfg.MODEL.WEIGHTS} lacks {len(absent)} weights of the model, such as "
                f"{absent[0]}; give the checkpoint that training with this config wrote"
            )
        self.mapper = build_mapper(cfg, is_train=False)

    @torch.no_grad()
    def __call__(self, file_name: str, position: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
        """Predict one image.

        Args:
            file_name: path of the image.
            position: seeds the noise that a denoiser is given.

        Returns:
            The model's input and its output for that image (see the meta-architectures).
        """
        inputs = self.mapper({"file_name": file_name, "position": position})
        return inputs, self.model([inputs])[0]

    def draw(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> np.ndarray:
        """Draw what :meth:`__call__` returned: (H, W, 3) uint8, RGB; see :meth:`Task.draw`."""
        return self._task.draw(self._cfg, inputs, outputs, self._metadata)
