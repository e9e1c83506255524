"""MaskFormer from a config: names, arguments, and settings that do not fit together."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from ddep.errors import UserError
from tests.modeling.meta_arch.small_mask_former import MEAN, PANOPTIC, STD, tiny_config


def test_parameter_names_and_buffers() -> None:
    keys = build_model(tiny_config()).state_dict()
    outside = {".".join(key.split(".")[:2]) for key in keys if not key.startswith("backbone.")}
    decoders = {"sem_seg_head.pixel_decoder", "sem_seg_head.predictor"}
    assert outside == {*decoders, "criterion.empty_weight"}


def test_arguments_from_the_config() -> None:
    cfg = tiny_config(**PANOPTIC)
    mask_former = cfg.MODEL.MASK_FORMER
    mask_former.DEEP_SUPERVISION = False
    mask_former.NO_OBJECT_WEIGHT = 0.3
    mask_former.SIZE_DIVISIBILITY = 64
    mask_former.TEST.PANOPTIC_ON = True
    mask_former.TEST.SEMANTIC_ON = False
    mask_former.TEST.OBJECT_MASK_THRESHOLD, mask_former.TEST.OVERLAP_THRESHOLD = 0.7, 0.6
    cfg.TEST.DETECTIONS_PER_IMAGE = 11
    model = build_model(cfg)
    assert model.criterion.weight_dict == {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    assert model.criterion.empty_weight[-1] == pytest.approx(0.3)
    assert model.criterion.mask_losses.num_points == 256
    assert model.criterion.matcher.mask_costs.num_points == 256
    matcher = model.criterion.matcher
    assert (matcher.cost_class, matcher.cost_mask, matcher.cost_dice) == (2.0, 5.0, 5.0)
    assert model.size_divisibility == 64
    assert model.thing_ids == {1, 2}
    assert (model.semantic_on, model.panoptic_on, model.instance_on) == (False, True, False)
    assert (model.object_mask_threshold, model.overlap_threshold) == (0.7, 0.6)
    assert model.max_detections == 11
    torch.testing.assert_close(model.pixel_mean.flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(model.pixel_std.flatten(), torch.tensor(STD))


@pytest.mark.parametrize("in_test", [False, True])
def test_number_of_classes_against_the_data_set(in_test: bool) -> None:
    cfg = tiny_config(**PANOPTIC)
    if in_test:
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), cfg.DATASETS.TRAIN
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 54
    with pytest.raises(UserError, match="NUM_CLASSES is 54; .*3 .stuff_classes. or 2 .thing") as e:
        build_model(cfg)
    assert "\n" not in str(e.value)


def test_instance_models_count_things_and_unknown_data_sets_pass() -> None:
    cfg = tiny_config(**PANOPTIC)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    assert build_model(cfg).sem_seg_head.num_classes == 2
    cfg = tiny_config()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    assert build_model(cfg).thing_ids == frozenset()


def test_panoptic_results_need_to_know_the_things() -> None:
    cfg = tiny_config(stuff_classes=["a", "b", "c"])
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = True
    with pytest.raises(UserError, match="does not say which classes are things"):
        build_model(cfg)


def test_no_results_requested() -> None:
    cfg = tiny_config()
    cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON = False
    with pytest.raises(UserError, match="SEMANTIC_ON, PANOPTIC_ON and INSTANCE_ON are all False"):
        build_model(cfg)


def test_unknown_mask_loss() -> None:
    cfg = tiny_config()
    cfg.MODEL.DDEP.MASK_LOSS = "focal"
    with pytest.raises(UserError, match="MASK_LOSS is 'focal'; expected auto, points or dense"):
        build_model(cfg)
