"""What Detr's queries and pixels attend to, compared with Hugging Face's own record of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DetrForObjectDetection

from ddep.errors import UserError
from ddep.inference import Predictor
from ddep.inference import attention_picture as module
from ddep.inference.attention import record_attention
from ddep.inference.attention_picture import attention_picture
from tests.engine.tiny_runs import write_config
from tests.huggingface_detr import QUERIES, ours_of, pixels_of, small_detr
from tests.inference.tiny_models import write_run

SIZES = ((75, 131), (70, 97))  # 3 x 5 cells of 32 pixels; the second image covers 3 x 4 of them


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, *size), generator=generator).float() for size in SIZES]


@torch.no_grad()
def test_attention_is_hugging_faces(images: list[Tensor]) -> None:
    theirs = small_detr(DetrForObjectDetection)
    theirs.set_attn_implementation("eager")
    ours = ours_of(theirs)
    expected = theirs(**pixels_of(images), output_attentions=True)
    inputs = [{"image": image} for image in images]
    without = ours(inputs)
    with record_attention(ours) as record:
        found = ours(inputs)
    for one, other in zip(found, without, strict=True):
        assert torch.equal(one["instances"].scores, other["instances"].scores)
    assert record.padded_size == (75, 131)
    torch.testing.assert_close(record.class_logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(record.boxes, expected.pred_boxes, atol=1e-5, rtol=1e-5)
    queries = torch.tensor([QUERIES - 1, 1])
    layers = record.cross_attention(queries, image=1)
    assert len(layers) == len(expected.cross_attentions) == 3
    for layer, weights in zip(layers, expected.cross_attentions, strict=True):
        mean = weights[1, :, queries].mean(0).view(2, 3, 5)
        torch.testing.assert_close(layer.weights, mean, atol=1e-6, rtol=1e-4)
        assert layer.allowed[:, :, :4].all() and not layer.allowed[:, :, 4].any()
    # The pixel (100, 40) of the first image and (40, 70) of the second: columns 3 and 1, rows 1, 2.
    for image, (x, y), cell in ((0, (100, 40), 8), (1, (40, 70), 11)):
        maps = record.self_attention((x / 131, y / 75), image)
        assert len(maps) == len(expected.encoder_attentions) == 2
        for weights, attention in zip(maps, expected.encoder_attentions, strict=True):
            mean = attention[image, :, cell].mean(0).view(3, 5)
            torch.testing.assert_close(weights, mean, atol=1e-6, rtol=1e-4)


IMAGE = np.random.default_rng(0).integers(0, 256, (96, 144, 3), dtype=np.uint8)


def test_a_row_for_each_box_and_a_panel_for_each_layer_of_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detr = {"NUM_CLASSES": 4, "HIDDEN_DIM": 32, "ENC_LAYERS": 1, "DEC_LAYERS": 2}
    config = write_config(
        tmp_path,
        "detr",
        MODEL__META_ARCHITECTURE="Detr",
        MODEL__DETR={**detr, "NUM_OBJECT_QUERIES": 9},
        DATASETS__TEST=["shapes_instance_val"],
    )
    predictor = Predictor(write_run(tmp_path / "run", config))
    model = predictor.model
    with torch.no_grad():  # all queries find something, in the left half of the image
        model.class_embed.bias[0] += 20
        model.bbox_embed.layers[-1].weight.zero_()
        model.bbox_embed.layers[-1].bias.copy_(torch.logit(torch.tensor([0.25, 0.5, 0.4, 0.5])))
    drawn: dict[str, Any] = {}

    def draw(image: np.ndarray, overview: np.ndarray, covered: Any, **others: Any) -> np.ndarray:
        drawn.update(others)
        return image

    with monkeypatch.context() as patch:
        patch.setattr(module, "draw_attention", draw)
        attention_picture(predictor, IMAGE, at=(100, 10))
    assert drawn["region"] == "box"
    assert len(drawn["queries"]) == module.MAX_QUERIES
    assert drawn["layers"] == ["layer 1, 1/32", "layer 2, 1/32"]
    row = drawn["queries"][0]
    assert "100 %, query " in row.title
    # 72 x 48 pixels: x from 0.05 to 0.45, y from 0.25 to 0.75.
    inside = np.zeros((48, 72), dtype=bool)
    inside[12:36, 4:32] = True
    np.testing.assert_array_equal(row.mask, inside)
    assert len(drawn["pixel_maps"]) == 1
    assert drawn["pixel_maps"][0].sum() == pytest.approx(1, abs=1e-5)
    assert attention_picture(predictor, IMAGE, at=(100, 10)).shape[1] > 400
    with pytest.raises(UserError, match="--attention-at 144,3 is outside the image"):
        attention_picture(predictor, IMAGE, at=(144, 3))
