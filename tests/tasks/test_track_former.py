"""What is checked of TrackFormer's configs."""

from __future__ import annotations

import re

import pytest

from ddep.errors import UserError
from ddep.tasks import TrackFormerTask, load_config, task_of

CONFIG = "configs/demo/moving_shapes_trackformer.yaml"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.TRACKFORMER.FALSE_NEGATIVES", 1.5, "is 1.5; expected a number from 0 to 1"),
        ("MODEL.TRACKFORMER.TRACK_SCORE", -0.1, "is -0.1; expected a number from 0 to 1"),
        ("MODEL.TRACKFORMER.PATIENCE", -1, "is -1; expected 0 or more"),
        ("INPUT.SAMPLING_FRAME_NUM", 3, "is 3; .* TrackFormer trains on 2 frames"),
        (
            "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
            "VideoMultiScaleMaskedTransformerDecoder",
            ".* TrackFormer needs MultiScaleMaskedTransformerDecoder",
        ),
    ],
)
def test_impossible_values(key: str, value: object, message: str) -> None:
    cfg = load_config(CONFIG, [])
    task = task_of(cfg)
    assert isinstance(task, TrackFormerTask)
    assert task.check(cfg) == []
    cfg = load_config(CONFIG, [key, str(value)])
    with pytest.raises(UserError, match=f"{re.escape(key)} .*{message}"):
        task.check(cfg)
