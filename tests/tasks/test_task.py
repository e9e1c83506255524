"""What tasks have in common: mappers that they take, and what is measured on a data set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.errors import UserError
from ddep.tasks import load_config, task_of

CITYSCAPES, SEMANTIC = "test_task_cityscapes", "test_task_semantic"


@pytest.fixture(autouse=True)
def data_sets() -> Iterator[None]:
    """One data set with Cityscapes' instances, and one with semantic labels alone."""
    for name, evaluator_type in ((CITYSCAPES, "cityscapes_instance"), (SEMANTIC, "sem_seg")):
        DatasetCatalog.register(name, list)
        MetadataCatalog.get(name).set(
            evaluator_type=evaluator_type, stuff_classes=["a"], ignore_label=255
        )
    yield
    for name in (CITYSCAPES, SEMANTIC):
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def config_of(meta_architecture: str, *words: str) -> CfgNode:
    return load_config(
        "configs/Base-R50.yaml", ["MODEL.META_ARCHITECTURE", meta_architecture, *words]
    )


def measures(cfg: CfgNode, name: str) -> list[str]:
    return [measure.name for measure in task_of(cfg).measures_on(cfg, name)]


@pytest.mark.parametrize(
    ("meta_architecture", "mapper", "accepted"),
    [
        ("DenoisingPretrainer", "mask_former_semantic", "takes ddep_denoising; without"),
        ("MaskFormer", "ddep_denoising", "takes mask_former_semantic or mask_former_panoptic or "),
        ("GeneralizedRCNN", "mask_former_instance", "takes detection; without"),
    ],
)
def test_a_mapper_that_the_task_does_not_take_is_named(
    meta_architecture: str, mapper: str, accepted: str
) -> None:
    cfg = config_of(meta_architecture, "INPUT.DATASET_MAPPER_NAME", mapper)
    message = f"MAPPER_NAME is '{mapper}', but MODEL.META_ARCHITECTURE {meta_architecture} "
    with pytest.raises(UserError, match=message + accepted):
        task_of(cfg).check(cfg)


def test_what_the_data_set_has_and_the_model_predicts_is_measured() -> None:
    assert measures(config_of("DenoisingPretrainer"), SEMANTIC) == ["denoising"]
    assert measures(config_of("SemanticSegmentor"), SEMANTIC) == ["sem_seg"]
    panoptic = config_of("MaskFormer", "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "True")
    assert measures(panoptic, SEMANTIC) == ["sem_seg"]
    with pytest.raises(UserError, match=f"{CITYSCAPES}: .* SemanticSegmentor predicts sem_seg;"):
        measures(config_of("SemanticSegmentor"), CITYSCAPES)


def test_a_switch_that_would_help_is_named() -> None:
    cfg = config_of("MaskFormer", "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", "False")
    with pytest.raises(UserError, match=r"labelled for sem_seg\): MODEL.*SEMANTIC_ON must be True"):
        measures(cfg, SEMANTIC)


def test_of_cityscapes_detectors_measure_masks_alone() -> None:
    assert measures(config_of("GeneralizedRCNN", "MODEL.MASK_ON", "True"), CITYSCAPES) == ["segm"]
    with pytest.raises(UserError, match=f"{CITYSCAPES}: .*MODEL.MASK_ON is False"):
        measures(config_of("GeneralizedRCNN", "MODEL.MASK_ON", "False"), CITYSCAPES)
