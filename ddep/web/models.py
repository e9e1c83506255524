"""The models of the page: loaded when they are chosen, and one of them runs at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata

from ddep.data.datasets import data_sets_below
from ddep.data.image_reader import read_image
from ddep.errors import UserError
from ddep.inference import Predictor
from ddep.inference.attention import CrossAttention, record_attention
from ddep.inference.inference_model import NO_AVERAGING
from ddep.modeling.meta_arch.mask_former import MaskLogits
from ddep.noise import add_noise, recover_image
from ddep.web.runs import data_folder

logger = logging.getLogger(__name__)

# More are not kept in memory.
MAX_LOADED = 3
MAX_EXAMPLES = 8


class Model:
    """A trained model that visitors' images are given to.

    Args:
        name: what the page calls it.
        folder: of its run.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        with data_sets_below(data_folder(folder)):
            self._predictor = Predictor(folder, overrides=NO_AVERAGING)
            self.examples = _example_paths(self._predictor.cfg.DATASETS.TEST)
        self._running = threading.Lock()

    @property
    def metadata(self) -> Metadata | None:
        """Names and colours of the model's classes."""
        return self._predictor.metadata

    @property
    def network(self) -> torch.nn.Module:
        return self._predictor.model

    @property
    def cfg(self) -> CfgNode:
        return self._predictor.cfg

    @property
    def thresholds(self) -> dict[str, float]:
        """Those of the config that act on the logits of a mask classification model."""
        names = ("object_mask_threshold", "overlap_threshold")
        return {name: getattr(self.network, name) for name in names}

    def inputs(self, image: np.ndarray) -> dict[str, Any]:
        """What the network is given for an (H, W, 3) uint8 RGB image."""
        return self._predictor.inputs(image)

    def with_sigma(self, inputs: Mapping[str, Any], sigma: float) -> dict[str, Any]:
        """A denoiser's input with the same noise, of another standard deviation ``sigma``."""
        formulation = self.cfg.MODEL.DDEP.NOISE
        noise = inputs["noise"]
        clean = recover_image(inputs["image"], noise, inputs["sigma"], formulation)
        return {**inputs, "image": add_noise(clean, noise, sigma, formulation), "sigma": sigma}

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any]) -> tuple[MaskLogits | None, dict[str, Any] | None]:
        """Run the network on one image.

        Returns:
            The logits of a mask classification model, from which :meth:`results` come; or the
            results of another.
        """
        logits, outputs = None, None
        start = time.monotonic()
        with self._running:
            if hasattr(self.network, "predict_logits"):
                (logits,) = self.network.predict_logits([inputs])
            else:
                (outputs,) = self.network([inputs])
        size = "x".join(map(str, inputs["image"].shape[-2:]))
        logger.info("%s ran on %s pixels in %.2f s", self.name, size, time.monotonic() - start)
        return logits, outputs

    @torch.no_grad()
    def results(self, logits: MaskLogits, **thresholds: float) -> dict[str, Any]:
        """Results from logits; see :meth:`ddep.modeling.meta_arch.MaskFormer.results`."""
        return self.network.results(logits, **thresholds)

    @torch.no_grad()
    def attention(
        self, inputs: Mapping[str, Any], query: int
    ) -> tuple[list[CrossAttention], tuple[float, float]]:
        """What a query of a mask classification model attends to; the network runs once more.

        Returns:
            Its map in each layer of the transformer decoder; and the parts of the height and the
            width of the maps that the image covers.
        """
        with self._running, record_attention(self.network) as record:
            self.network.predict_logits([inputs])
        covered = record.covered(inputs["image"].shape[-2:])
        return record.cross_attention(torch.tensor([query])), covered

    def example(self, position: int) -> tuple[str, np.ndarray]:
        """Name and (H, W, 3) uint8 RGB pixels of one of ``examples``."""
        path = self.examples[position]
        return Path(path).name, read_image(path)


class Models:
    """Loads models on first use; the last few stay in memory.

    Args:
        runs: folders by name.
    """

    def __init__(self, runs: Mapping[str, Path]) -> None:
        self._runs = dict(runs)
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._loading = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self._runs)

    def get(self, name: str) -> Model:
        """The model of that name.

        Raises:
            UserError: there is none, or it cannot be loaded.
        """
        if name not in self._runs:
            raise UserError(f"there is no model {name}; choose one of the list")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = Model(name, self._runs[name])
            self._loaded.move_to_end(name)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[name]


def _example_paths(dataset_names: tuple[str, ...]) -> list[str]:
    """Some images of the data sets, evenly spaced; none of a data set that is not there."""
    for name in dataset_names:
        try:
            records = DatasetCatalog.get(name)
        except Exception as error:  # loaders of all kinds raise all kinds of things
            logger.info("no examples of %s: %s", name, error)
            continue
        positions = np.linspace(0, len(records) - 1, min(len(records), MAX_EXAMPLES)).astype(int)
        paths = [str(records[position]["file_name"]) for position in positions]
        return [path for path in paths if Path(path).is_file()]
    return []
