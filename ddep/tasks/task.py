"""What is asked of a kind of model, and the answers that most kinds share."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.utils.registry import Registry
from torch import nn

from ddep.config import get_key
from ddep.data.datasets import labelled_for
from ddep.drawing.segments import class_metadata, draw_outputs
from ddep.errors import UserError
from ddep.evaluation.measures import MEASURES, Measure
from ddep.evaluation.pictures import PredictionPictures
from ddep.modeling.exportable import Exportable
from ddep.modeling.pixel_classifier import PixelClassifier
from ddep.tasks.adapters import check_adapters
from ddep.tasks.test_time import check_test_time_values

logger = logging.getLogger(__name__)


class Task(ABC):
    """A kind of model.

    For a model of your own, subclass this or the task that comes closest, and register it with
    :func:`ddep.tasks.register_task`.

    Attributes:
        name: what messages call it.
        meta_architectures: the registered names (MODEL.META_ARCHITECTURE) that it serves.
        mappers: the values of INPUT.DATASET_MAPPER_NAME that it takes, the default first.
        num_classes_key: the config key that holds the number of classes; empty if there are none.
        freeze_key: the config key that says whether the encoder is frozen.
        exports: the formats that express its models: of ``tools/convert-pretrained.py --to`` and
            of ``tools/export.py --to``, which takes what :meth:`exportable` returns.
        class_scores: what the scores in the models' ``sem_seg`` are, ``"probabilities"`` (of each
            class, sums other than 1 included) or ``"logits"`` (whose softmax are probabilities);
            empty for models without ``sem_seg``.
    """

    name: ClassVar[str]
    meta_architectures: ClassVar[tuple[str, ...]]
    mappers: ClassVar[tuple[str, ...]]
    num_classes_key: ClassVar[str] = ""
    freeze_key: ClassVar[str] = "MODEL.BACKBONE.FREEZE"
    exports: ClassVar[tuple[str, ...]] = ()
    class_scores: ClassVar[str] = ""

    # Config

    def add_config(self, cfg: CfgNode) -> None:  # noqa: B027 (most tasks add none)
        """Add config keys of its own to ``cfg``, in place, with a comment on each."""

    def adapt(self, cfg: CfgNode) -> list[str]:
        """Change in ``cfg``, in place, what cannot work with its other values.

        Returns:
            A line for each change.
        """
        return []

    def check(self, cfg: CfgNode) -> list[str]:
        """Check what must hold before a run starts, as far as the model is concerned.

        Returns:
            A line for everything that may not be what the user meant.

        Raises:
            UserError: a value that the model cannot work with.
        """
        check_registered(cfg, "MODEL.BACKBONE.NAME", BACKBONE_REGISTRY)
        self._check_mapper(cfg)
        check_adapters(cfg)
        if cfg.MODEL.REIN.ENABLED and cfg.MODEL.REIN.LINK_QUERIES:
            self.check_linked_queries(cfg)
        self.check_test_time(cfg)
        return []

    def _check_mapper(self, cfg: CfgNode) -> None:
        name = cfg.INPUT.DATASET_MAPPER_NAME
        if name not in self.mappers:
            raise UserError(
                f"INPUT.DATASET_MAPPER_NAME is {name!r}, but MODEL.META_ARCHITECTURE "
                f"{cfg.MODEL.META_ARCHITECTURE} takes {' or '.join(self.mappers)}; without the "
                f"key it is {self.mappers[0]}"
            )

    def check_linked_queries(self, cfg: CfgNode) -> None:
        """Raise :class:`UserError` unless queries can be made of Rein's tokens."""
        raise UserError(
            f"MODEL.REIN.LINK_QUERIES is True, but MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE} has no queries; set it to False"
        )

    def num_classes(self, cfg: CfgNode) -> int | None:
        """The number of classes that the model predicts; None if it predicts none."""
        return get_key(cfg, self.num_classes_key) if self.num_classes_key else None

    # Training

    def freezes_encoder(self, cfg: CfgNode) -> bool:
        """Whether the encoder stays as it is in training, so that it must be pretrained."""
        return get_key(cfg, self.freeze_key)

    def transferred(self, cfg: CfgNode) -> Sequence[str]:
        """The groups of weights to take over from MODEL.WEIGHTS when training starts."""
        return cfg.MODEL.DDEP.TRANSFER

    def initial_weights(self, cfg: CfgNode) -> list[str]:
        """The checkpoints that are loaded one after the other when training starts."""
        return [cfg.MODEL.WEIGHTS] if cfg.MODEL.WEIGHTS else []

    def check_initial_weights(  # noqa: B027 (most tasks need none)
        self, cfg: CfgNode, model: nn.Module, loaded: Collection[str]
    ) -> None:
        """Check what was loaded when training started.

        Args:
            cfg: the whole config.
            model: with the weights.
            loaded: names of the weights that the last of :meth:`initial_weights` had.

        Raises:
            UserError: a weight that cannot be random is missing.
        """

    def normalisers(
        self, model: nn.Module
    ) -> Callable[[list[dict[str, Any]]], dict[str, float]] | None:
        """What the losses of a batch are averaged over.

        Returns:
            A function from a batch to counts by name, see :mod:`ddep.modeling.normalisers`; the
            totals are what ``model(batch, normalisers=...)`` is called with. None: the model is
            called with the batch alone, and its losses are means over the images that it is given.
        """
        return None

    def images_per_sample(self, cfg: CfgNode) -> int:
        """How many images of a training sample go through the model together."""
        return 1

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """The parts that MODEL.DDEP.COMPILE compiles: tensors in, tensors out.

        The first takes the images, (B, 3, H, W), and nothing else.
        """
        return [model.backbone]

    def check_adaptation(self, cfg: CfgNode) -> None:
        """Check that MODEL.ADAPTATION can add losses to the model.

        Raises:
            UserError: it cannot.
        """
        raise UserError(
            f"MODEL.ADAPTATION.METHOD is {cfg.MODEL.ADAPTATION.METHOD}, but "
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} does {self.name} and predicts "
            "no classes of pixels; expected MaskFormer or SemanticSegmentor"
        )

    def pixel_classifier(self, cfg: CfgNode, model: nn.Module) -> PixelClassifier:
        """The model in parts, for MODEL.ADAPTATION; see :meth:`check_adaptation`.

        Args:
            cfg: the model's config.
            model: not in a DistributedDataParallel.
        """
        raise NotImplementedError(f"{self.name} predicts no classes of pixels")

    # Evaluation

    @abstractmethod
    def measured(self, cfg: CfgNode) -> dict[str, str]:
        """What a model of this config predicts that can be measured.

        Returns:
            Keys of :data:`ddep.evaluation.measures.MEASURES` in the order of evaluation, and for
            each one the config key that switches it on; those that are off are left out.
        """

    def measurable(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`measured`, with what the config has switched off."""
        return self.measured(cfg)

    def measures_on(self, cfg: CfgNode, dataset_name: str) -> list[Measure]:
        """What is measured on a data set: what the model predicts and the set is labelled for.

        Raises:
            UserError: nothing is.
        """
        labels = labelled_for(dataset_name)
        possible = {name: key for name, key in self.measurable(cfg).items() if name in labels}
        measures = [MEASURES[name] for name in self.measured(cfg) if name in labels]
        if not possible:
            raise UserError(
                f"nothing to evaluate on data set {dataset_name}: it is labelled for "
                f"{', '.join(labels) or 'nothing'}, and {cfg.MODEL.META_ARCHITECTURE} predicts "
                f"{', '.join(self.measurable(cfg))}; choose another set for DATASETS.TEST"
            )
        if not measures:
            keys = " or ".join(dict.fromkeys(possible.values()))
            raise UserError(
                f"nothing to evaluate on data set {dataset_name} (labelled for "
                f"{', '.join(labels)}): {keys} must be True"
            )
        return measures

    def build_evaluator(self, cfg: CfgNode, dataset_name: str, folder: str) -> DatasetEvaluator:
        """Make what measures and draws the model's outputs on a data set.

        Args:
            cfg: the whole config.
            dataset_name: a registered data set.
            folder: where results go.

        Raises:
            UserError: see :meth:`measures_on`.
        """
        measures = self.measures_on(cfg, dataset_name)
        names = ", ".join(measure.title for measure in measures)
        logger.info("Evaluation on %s: %s", dataset_name, names)
        evaluators = [measure.evaluator(dataset_name, folder) for measure in measures]

        def draw(
            inputs: Mapping[str, Any], outputs: Mapping[str, Any], metadata: Metadata
        ) -> np.ndarray:
            return self.draw(cfg, inputs, outputs, metadata)

        return DatasetEvaluators(
            [*evaluators, PredictionPictures(draw, dataset_name, folder, self.name)]
        )

    # Inference and export

    def check_test_time(self, cfg: CfgNode) -> None:
        """Check TEST.AUG and TEST.SLIDE.

        Raises:
            UserError: one that the model cannot have is enabled, or has a value out of range.
        """
        for key in ("TEST.AUG.ENABLED", "TEST.SLIDE.ENABLED"):
            if get_key(cfg, key):
                self.check_averaging(cfg, key)
        check_test_time_values(cfg)

    def check_averaging(self, cfg: CfgNode, key: str) -> None:
        """Check that the model's results on parts or versions of an image can be averaged.

        Args:
            cfg: the whole config.
            key: what asks for it, TEST.AUG.ENABLED or TEST.SLIDE.ENABLED.

        Raises:
            UserError: they cannot.
        """
        if not self.class_scores:
            raise UserError(
                f"{key} is True, but MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} does "
                f"{self.name} and has no scores of classes at pixels to average; set {key} to False"
            )

    def class_metadata(self, cfg: CfgNode) -> Metadata | None:
        """Names and colours of the model's classes, for pictures; None if it has no classes.

        Raises:
            UserError: no data set of the config is known.
        """
        return class_metadata(cfg)

    def exportable(self, cfg: CfgNode, model: nn.Module, *, post_processing: bool) -> Exportable:
        """The model as a function of tensors, for the formats ``torch`` and ``onnx``.

        Args:
            cfg: the model's config.
            model: in evaluation mode.
            post_processing: whether results are what users look at, or what the network gives.
        """
        raise NotImplementedError(f"{self.name} exports no function of tensors")

    def draw(
        self,
        cfg: CfgNode,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        metadata: Metadata | None,
    ) -> np.ndarray:
        """Draw the model's output for one image.

        This draws panoptic segments, or else objects, or else the classes of pixels.

        Args:
            cfg: the model's config.
            inputs: what the mapper gave the model, with ``file_name``.
            outputs: what the model gave back.
            metadata: names and colours of the classes; None for a model without classes.

        Returns:
            (H, W, 3) uint8, RGB.
        """
        return draw_outputs(inputs["file_name"], outputs, metadata)


def check_registered(cfg: CfgNode, key: str, registry: Registry) -> None:
    """Raise :class:`UserError` unless the value of ``key`` is registered."""
    name = get_key(cfg, key)
    if name not in registry:
        raise UserError(
            f"{key} is {name!r}; expected one of {', '.join(name for name, _ in registry)}"
        )
