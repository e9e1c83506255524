from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddep.errors import UserError
from ddep.inference import Predictor
from ddep.inference import attention_picture as module
from ddep.inference.attention_files import draw_attention_files
from ddep.inference.attention_picture import attention_picture, kept_queries
from tests.inference.tiny_models import write_run

IMAGE = np.random.default_rng(0).integers(0, 256, (100, 180, 3), dtype=np.uint8)
CONFIG = "configs/demo/shapes_panoptic.yaml"
SIZE = ("INPUT.MIN_SIZE_TEST", 50)  # 50 x 90, padded to 64 x 96


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ("MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", 0.0)
    predictor = Predictor(write_run(folder, CONFIG, *SIZE, *words))
    predictor.model.overlap_threshold = 0.0
    return predictor


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


def test_rows_are_the_best_queries_and_columns_the_layers(
    monkeypatch: pytest.MonkeyPatch, predictor: Predictor
) -> None:
    drawn: dict[str, Any] = {}

    def draw(image: np.ndarray, overview: np.ndarray, covered: Any, **others: Any) -> np.ndarray:
        drawn.update(others, image=image, covered=covered)
        return image

    monkeypatch.setattr(module, "draw_attention", draw)
    attention_picture(predictor, IMAGE, at=(90, 50))
    assert np.array_equal(drawn["image"], IMAGE)
    assert drawn["covered"] == (50 / 64, 90 / 96)
    layers = ["layer 1, 1/32", "layer 2, 1/16", "layer 3, 1/8"]
    assert drawn["layers"] == layers[: len(drawn["layers"])] and drawn["layers"]
    assert drawn["levels"] == ["scale 1/32", "scale 1/16", "scale 1/8"]
    assert drawn["at"] == pytest.approx((90.5 / 180 * 90 / 96, 50.5 / 100 * 50 / 64))
    assert [panel.title for panel in drawn["sampling"]] == ["encoder layer 1", "encoder layer 2"]
    assert 1 <= len(drawn["queries"]) <= module.MAX_QUERIES
    names = predictor.metadata.stuff_classes
    for row in drawn["queries"]:
        assert row.title.split(" ")[0] in {name.split(" ")[0] for name in names}
        assert row.mask.shape == (50, 90) and row.mask.any()
        for weights, allowed in zip(row.maps, row.allowed, strict=True):
            assert weights.sum() == pytest.approx(1, abs=1e-5)
            assert not weights[~allowed].any()


def test_a_picture_for_each_image(tmp_path: Path, predictor: Predictor) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(IMAGE).save(tmp_path / "in" / f"{name}.png")
    Image.fromarray(IMAGE[:, :90]).save(tmp_path / "in" / "c.png")
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"--attention-at 99,3 is outside .* 90x100; expected"):
        draw_attention_files(predictor, [tmp_path / "in"], tmp_path / "x", at=(99, 3))
    (tmp_path / "in" / "b.png").write_text("no image")
    with pytest.raises(UserError, match=r"1 of 3 images could not be read: .*b\.png"):
        draw_attention_files(predictor, [tmp_path / "in"], output, at=(0, 99))
    pictures = sorted(output.iterdir())
    assert [path.name for path in pictures] == ["a_attention.png", "c_attention.png"]
    assert min(Image.open(pictures[0]).size) > 400


def test_a_model_without_what_is_asked_for_is_named(tmp_path: Path) -> None:
    denoiser = Predictor(write_run(tmp_path / "denoiser", "configs/demo/shapes_pretrain.yaml"))
    with pytest.raises(UserError, match="no queries; add --attention-at X,Y"):
        attention_picture(denoiser, IMAGE)
    assert attention_picture(denoiser, IMAGE, at=(5, 5)).shape[1] >= 400
    words = ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder", *SIZE)
    plain = Predictor(write_run(tmp_path / "plain", CONFIG, *words))
    with pytest.raises(UserError, match="has no encoder whose pixels attend to others; leave"):
        attention_picture(plain, IMAGE, at=(1, 3))
    assert attention_picture(plain, IMAGE).shape[1] >= 400
