from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ddep.errors import UserError
from ddep.inference import attention_picture as module
from ddep.inference.attention import AttentionRecord, record_attention
from ddep.inference.attention_picture import attention_picture, kept_queries
from tests.inference.test_attention import STANDARD, build
from tests.modeling.meta_arch.small_mask_former import image_of_size

# Resized from 100 x 180, padded to 64 x 96.
INPUTS = {"image": image_of_size(50, 90, seed=0), "height": 100, "width": 180}
IMAGE = np.zeros((100, 180, 3), dtype=np.uint8)
NAMES = ["background", "square", "disc"]


@torch.no_grad()
def picture(
    model: nn.Module, at: tuple[int, int] | None = None, inputs: dict[str, Any] = INPUTS
) -> np.ndarray:
    with record_attention(model) as record:
        model([inputs])
    return attention_picture(model, record, inputs, IMAGE, IMAGE, NAMES, at)


def test_queries_are_kept_that_own_enough_of_their_masks() -> None:
    masks = torch.full((5, 1, 10), 0.1)
    masks[0, 0, :4] = 0.9
    masks[1, 0, :8] = 0.8  # of which the first owns half
    masks[2, 0, 8:] = 0.9
    masks[3, 0, 8:] = 0.6  # of which it owns nothing
    scores = torch.tensor([0.6, 0.5, 0.9, 0.5, 0.05])
    kept = kept_queries(scores, masks, overlap_threshold=0.5, by_area=False)
    assert kept.tolist() == [2, 0, 1]
    kept = kept_queries(scores, masks, overlap_threshold=0.51, by_area=False)
    assert kept.tolist() == [2, 0]
    assert kept_queries(scores, masks, overlap_threshold=0.0, by_area=True).tolist() == [0, 1, 2]
    assert kept_queries(scores[:0], masks[:0], overlap_threshold=0.5, by_area=True).tolist() == []


def test_rows_are_the_best_queries_and_columns_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}

    def draw(image: np.ndarray, overview: np.ndarray, covered: Any, **others: Any) -> np.ndarray:
        drawn.update(others, covered=covered)
        return image

    monkeypatch.setattr(module, "draw_attention", draw)
    model = build()
    model.panoptic_on = model.instance_on = False
    picture(model, at=(90, 50))
    assert drawn["covered"] == (50 / 64, 90 / 96)
    assert drawn["layers"] == ["layer 1, 1/32", "layer 2, 1/16", "layer 3, 1/8", "layer 4, 1/32"]
    assert drawn["levels"] == ["scale 1/32", "scale 1/16", "scale 1/8"]
    assert drawn["at"] == pytest.approx((90.5 / 180 * 90 / 96, 50.5 / 100 * 50 / 64))
    assert [panel.title for panel in drawn["sampling"]] == ["encoder layer 1", "encoder layer 2"]
    assert 1 <= len(drawn["queries"]) <= module.MAX_QUERIES
    for row in drawn["queries"]:
        assert row.title.split()[0] in NAMES
        assert row.mask.shape == (50, 90)
        for weights, allowed in zip(row.maps, row.allowed, strict=True):
            assert weights.sum() == pytest.approx(1, abs=1e-5)
            assert not weights[~allowed].any()


@pytest.mark.parametrize("decoder", [{}, STANDARD])
def test_a_picture_is_drawn(decoder: dict[str, str]) -> None:
    found = picture(build(**decoder), at=(0, 99))
    assert found.dtype == np.uint8 and found.shape[2] == 3
    assert min(found.shape[:2]) > 400


def test_mistakes_are_named() -> None:
    model = build()
    with pytest.raises(UserError, match=r"--attention-at 180,3 is outside .* 180x100; expected"):
        picture(model, at=(180, 3))
    with pytest.raises(UserError, match="has no deformable encoder; leave it out"):
        picture(build("BasePixelDecoder"), at=(1, 3))
    record = AttentionRecord(padded_size=(64, 96))  # of a denoiser
    with pytest.raises(UserError, match="no queries; add --attention-at X,Y"):
        attention_picture(model, record, INPUTS, IMAGE, IMAGE, NAMES)
