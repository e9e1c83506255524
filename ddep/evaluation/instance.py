"""Mask and box AP: detectron2's COCO evaluator, for thing classes of any numbering."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from detectron2.data.catalog import Metadata
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Instances

from ddep.errors import UserError


class _APEvaluator(COCOEvaluator):
    """COCO's AP, by pycocotools.

    detectron2's evaluator wants the thing classes to be numbered from 0 without gaps. In a panoptic
    data set they need not be: stuff classes come first or in between.
    """

    # What is measured, and what the results are called.
    kind: ClassVar[str]

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        """
        Args:
            dataset_name: a registered data set with ``thing_dataset_id_to_contiguous_id`` in its
                metadata, and ``json_file`` unless its dicts can be converted to COCO's format.
            output_dir: where predictions and results go.
        """
        super().__init__(
            dataset_name, tasks=(self.kind,), output_dir=output_dir, use_fast_impl=False
        )
        self._name = dataset_name
        things = self._metadata.thing_dataset_id_to_contiguous_id
        self._number = {label: i for i, label in enumerate(sorted(things.values()))}
        categories = self._coco_api.loadCats(sorted(self._coco_api.getCatIds()))
        self._metadata = Metadata(
            name=dataset_name,
            thing_classes=[category["name"] for category in categories],
            thing_dataset_id_to_contiguous_id={k: self._number[v] for k, v in things.items()},
        )

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Collect predictions.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``instances``: ``scores``, ``pred_classes`` (contiguous),
                ``pred_masks`` (N, H, W), which box AP does not need, and ``pred_boxes``.

        Raises:
            UserError: a predicted class that is no thing of the data set.
        """
        super().process(inputs, [{"instances": self._renumber(x["instances"])} for x in outputs])

    def _renumber(self, instances: Instances) -> Instances:
        labels = instances.pred_classes.tolist()
        unknown = set(labels) - set(self._number)
        if unknown:
            raise UserError(
                f"the model predicts thing class {min(unknown)}, which {self._name} does not have; "
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES (MODEL.ROI_HEADS.NUM_CLASSES of detectors) must be "
                "the data set's"
            )
        numbers = torch.tensor([self._number[label] for label in labels], dtype=torch.int64)
        fields = {**instances.get_fields(), "pred_classes": numbers}
        return Instances(instances.image_size, **fields)


class MaskAPEvaluator(_APEvaluator):
    """COCO's mask AP."""

    kind: ClassVar = "segm"


class BoxAPEvaluator(_APEvaluator):
    """COCO's box AP. Its files go to ``bbox`` in the output folder: mask AP's have their names."""

    kind: ClassVar = "bbox"

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        super().__init__(dataset_name, os.path.join(output_dir, "bbox"))

    def _renumber(self, instances: Instances) -> Instances:
        renumbered = super()._renumber(instances)
        if renumbered.has("pred_masks"):
            renumbered.remove("pred_masks")  # encoding them takes long
        return renumbered
