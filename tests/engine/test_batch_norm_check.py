"""Batch norms that see few images are reported, and those that cannot train stop with a line."""

from __future__ import annotations

import logging

import pytest
import torch
from detectron2.utils import comm
from torch import nn

from ddep.engine.batch_norm_check import check_batch_norms
from ddep.engine.known_errors import explained, needs_traceback
from ddep.errors import UserError
from ddep.modeling.backbone import TimmBackbone
from ddep.tasks import load_config, task_of
from tests.engine.test_optimizer import make_config


def warnings_of(
    caplog: pytest.LogCaptureFixture, model: nn.Module, images: int, parts: int = 1
) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ddep"):
        check_batch_norms(make_config(IMS_PER_BATCH=images, ACCUMULATION_STEPS=parts), model)
    return [record.message for record in caplog.records]


@pytest.fixture
def encoder() -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": TimmBackbone(name="resnet10t"), "norm": nn.GroupNorm(1, 4)})


def test_few_images_at_a_time_are_reported(
    caplog: pytest.LogCaptureFixture, encoder: nn.ModuleDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    (warning,) = warnings_of(caplog, encoder, images=2)
    number = sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    first = f"{number} batch norms, such as backbone.model.conv1.1, take mean and variance of 2 im"
    assert warning.startswith(first)
    assert "(SOLVER.IMS_PER_BATCH 2, SOLVER.ACCUMULATION_STEPS 1, 1 process)" in warning
    assert "expected at least 8" in warning
    assert warnings_of(caplog, encoder, images=8) == []
    (warning,) = warnings_of(caplog, encoder, images=8, parts=8)
    assert "of 1 image at a time" in warning
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    (warning,) = warnings_of(caplog, encoder, images=8)
    assert "of 4 images at a time" in warning
    assert "2 processes)" in warning
    shared = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    assert warnings_of(caplog, shared, images=8) == []
    (warning,) = warnings_of(caplog, shared, images=8, parts=2)
    assert "of 4 images at a time" in warning


def test_frames_of_clips_count(caplog: pytest.LogCaptureFixture, encoder: nn.ModuleDict) -> None:
    with caplog.at_level(logging.WARNING, "ddep"):
        check_batch_norms(make_config(IMS_PER_BATCH=4), encoder, images_per_sample=2)
    assert caplog.records == []
    for name, images in (("moving_shapes", 2), ("moving_shapes_image", 1), ("shapes_panoptic", 1)):
        cfg = load_config(f"configs/demo/{name}.yaml")
        assert task_of(cfg).images_per_sample(cfg) == images


def test_norms_without_statistics_of_the_batch_are_not_reported(
    caplog: pytest.LogCaptureFixture, encoder: nn.ModuleDict
) -> None:
    encoder["backbone"].eval()  # as a frozen encoder is
    assert warnings_of(caplog, encoder, images=1) == []
    encoder["backbone"].train()
    assert warnings_of(caplog, encoder, images=1)


def test_one_value_per_channel_is_an_error_of_one_line() -> None:
    norm, image = nn.BatchNorm2d(4), torch.ones(1, 4, 1, 1)
    message = r"a batch norm cannot train: Expected more than 1 value .*raise SOLVER.IMS_PER_BATCH"
    with pytest.raises(UserError, match=message) as caught, explained("output"):
        norm(image)
    assert not needs_traceback(caught.value.__cause__)
    with pytest.raises(ValueError, match="something else"), explained("output"):
        raise ValueError("something else")
    assert needs_traceback(ValueError("something else"))
