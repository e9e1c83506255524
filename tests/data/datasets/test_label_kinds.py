"""What data sets are labelled for."""

from __future__ import annotations

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets import labelled_for
from ddep.data.datasets.label_kinds import may_be_labelled_for
from ddep.errors import UserError

NAME = "test_label_kinds"
INSTANCE = ("bbox", "segm")
# What the package's own sets, and those of detectron2 that it describes, are labelled for.
EXPECTED = {
    "camvid_sem_seg_val": ("sem_seg",),
    "camvid_panoptic_val": ("panoptic_seg", "sem_seg"),
    "penn_fudan_instance_val": INSTANCE,
    "coco_2017_val": INSTANCE,
    "coco_2017_val_panoptic": ("panoptic_seg", *INSTANCE),
    "coco_2017_val_panoptic_with_sem_seg": ("panoptic_seg", "sem_seg", *INSTANCE),
    "ade20k_panoptic_val": ("panoptic_seg", "sem_seg", *INSTANCE),
    "cityscapes_fine_sem_seg_val": ("sem_seg",),
    "cityscapes_fine_panoptic_val": ("panoptic_seg", "sem_seg", *INSTANCE),
    "cityscapes_fine_instance_seg_val": INSTANCE,
    "mapillary_vistas_panoptic_val": ("panoptic_seg", "sem_seg"),
    "bdd100k_sem_seg_val": ("sem_seg",),
    "moving_shapes_val": ("video_segm", "tracking"),
    "ytvis_2021_val": ("video_segm",),
    "ovis_train": ("video_segm",),
}


@pytest.fixture
def register():
    """Registers a data set as others do: with detectron2's own functions."""

    def register_set(records=(), **metadata) -> None:
        DatasetCatalog.register(NAME, lambda: list(records))
        MetadataCatalog.get(NAME).set(**metadata)

    yield register_set
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


@pytest.mark.parametrize("name", EXPECTED)
def test_known_sets(name: str) -> None:
    assert labelled_for(name) == EXPECTED[name]


@pytest.mark.parametrize(
    ("metadata", "record", "expected"),
    [
        ({"evaluator_type": "sem_seg"}, {}, ("sem_seg",)),
        ({"evaluator_type": "cityscapes_sem_seg"}, {}, ("sem_seg",)),
        ({"evaluator_type": "coco"}, {}, INSTANCE),
        ({"evaluator_type": "ytvis"}, {}, ("video_segm",)),
        ({"evaluator_type": "cityscapes_instance"}, {}, INSTANCE),
        ({"evaluator_type": "panoptic_seg"}, {}, ("panoptic_seg",)),
        (
            {"evaluator_type": "coco_panoptic_seg", "json_file": "a", "gt_dir": "b"},
            {"sem_seg_file_name": "c"},
            ("panoptic_seg", "sem_seg", *INSTANCE),
        ),
        (
            {"evaluator_type": "cityscapes_panoptic_seg", "gt_dir": "b"},
            {},
            ("panoptic_seg", *INSTANCE),
        ),
        ({"evaluator_type": "cityscapes_panoptic_seg", "json_file": "a"}, {}, ("panoptic_seg",)),
        ({"evaluator_type": "coco", "labelled_for": ["classification"]}, {}, ("classification",)),
        ({"evaluator_type": "lvis"}, {}, ()),
        ({}, {}, ()),
    ],
)
def test_sets_that_others_registered(register, metadata, record, expected) -> None:
    register([record], **metadata)
    assert labelled_for(NAME) == expected
    assert all(may_be_labelled_for(NAME, label) for label in expected)


def test_what_cannot_be_labelled_is_known_without_loading(register) -> None:
    register(evaluator_type="coco")
    assert not may_be_labelled_for(NAME, "sem_seg")
    MetadataCatalog.pop(NAME)
    MetadataCatalog.get(NAME).set(evaluator_type="coco_panoptic_seg")
    assert may_be_labelled_for(NAME, "sem_seg")
    MetadataCatalog.get(NAME).set(labelled_for=())
    assert not may_be_labelled_for(NAME, "sem_seg")


def test_a_panoptic_set_that_cannot_be_read(register) -> None:
    register(evaluator_type="panoptic_seg")
    DatasetCatalog.pop(NAME)
    DatasetCatalog.register(NAME, lambda: {}["images"])
    with pytest.raises(UserError, match=f"data set {NAME} cannot be read: .*images"):
        labelled_for(NAME)
